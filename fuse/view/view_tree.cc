// SPDX-License-Identifier: Apache-2.0
#include "fuse/view/view_tree.h"

#include <algorithm>

namespace twinspool {
namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kStatBlock = 512;  // st_blocks counts these
// Holes in small files save next to nothing, and most files of a spool are small.
constexpr std::uint64_t kSmallFile = 65536;
// So many ranges of a file are counted; what follows is taken to have as many holes as they.
constexpr std::size_t kCountedRanges = 1024;

// Directories above have ids as if they were made by a node that there never is: nodes are counted
// from 1, one for each standby. So they differ from all objects, and from the root.
constexpr std::uint8_t kNoNode = 0xff;

ObjectId id_above(std::size_t index) {
    return index == 0 ? kRootObject : make_object_id(kNoNode, 0, index);
}

std::uint64_t round_up(std::uint64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }

bool newer(const FileTime& a, const FileTime& b) {
    return a.seconds != b.seconds ? a.seconds > b.seconds : a.nanoseconds > b.nanoseconds;
}

bool before(const ImageEntry& entry, std::string_view name) { return entry.name < name; }

// Sorted entries; kNoObject if there is none of that name.
ObjectId find_in(const std::vector<ImageEntry>& entries, std::string_view name) {
    const auto at = std::lower_bound(entries.begin(), entries.end(), name, before);
    return at != entries.end() && at->name == name ? at->object : kNoObject;
}

}  // namespace

Result<std::unique_ptr<ViewTree>> ViewTree::make(Image& image) {
    std::unique_ptr<ViewTree> tree{new ViewTree{image}};
    tree->above_.push_back({.id = kRootObject});
    for (const ImageRoot& root : image.roots()) TS_TRY(tree->add_root(root));
    return tree;
}

Status ViewTree::add_root(const ImageRoot& root) {
    TS_ASSIGN(const ImageAttributes attributes, image_.attributes(root.object));
    std::string_view rest{root.path};
    for (std::size_t at = 0;;) {
        if (newer(attributes.mtime, above_[at].mtime)) above_[at].mtime = attributes.mtime;
        if (!rest.starts_with('/')) return make_error(EINVAL, "show {}", root.path);
        rest.remove_prefix(1);
        const std::string_view name = rest.substr(0, rest.find('/'));
        if (name.empty() || name == "." || name == "..")
            return make_error(EINVAL, "show {}", root.path);
        rest.remove_prefix(name.size());
        if (rest.empty())
            return add_entry(above_[at], {.name = std::string{name}, .object = root.object});
        TS_ASSIGN(at, enter(at, name));
    }
}

// The directory of that name below, made if need be.
Result<std::size_t> ViewTree::enter(std::size_t above, std::string_view name) {
    const ObjectId known = find_in(above_[above].entries, name);
    for (std::size_t i = 0; known != kNoObject && i < above_.size(); ++i)
        if (above_[i].id == known) return i;
    const std::size_t made = above_.size();
    TS_TRY(add_entry(above_[above], {.name = std::string{name}, .object = id_above(made)}));
    above_.push_back({.id = id_above(made)});
    return made;
}

Status ViewTree::add_entry(Above& above, ImageEntry entry) {
    const auto at =
        std::lower_bound(above.entries.begin(), above.entries.end(), entry.name, before);
    if (at != above.entries.end() && at->name == entry.name)
        return make_error(EINVAL, "show a directory of the volume within another ({})", entry.name);
    above.entries.insert(at, std::move(entry));
    return {};
}

bool ViewTree::is_above(ObjectId object) const {
    return object == kRootObject ||
           (raw(object) >= raw(id_above(1)) && raw(object) < raw(id_above(1)) + above_.size() - 1);
}

const ViewTree::Above& ViewTree::above(ObjectId object) const {
    return above_[object == kRootObject ? 0 : raw(object) - raw(id_above(1)) + 1];
}

Result<ObjectId> ViewTree::find(ObjectId directory, std::string_view name) {
    if (is_above(directory)) return find_in(above(directory).entries, name);
    return image_.find(directory, name);
}

Result<struct stat> ViewTree::attributes(ObjectId object) {
    struct stat to {};
    to.st_ino = raw(object);
    to.st_blksize = kBlock;
    ImageAttributes from{.mode = S_IFDIR | 0555, .size = kBlock};
    if (is_above(object)) {
        from.mtime = above(object).mtime;
    } else {
        TS_ASSIGN(from, image_.attributes(object));
    }
    std::uint64_t data = 0;
    if (S_ISDIR(from.mode)) data = from.size;
    if (S_ISREG(from.mode)) {
        TS_ASSIGN(data, data_bytes(object, from.size));
    }
    to.st_mode = from.mode;
    to.st_uid = from.uid;
    to.st_gid = from.gid;
    to.st_size = static_cast<off_t>(from.size);
    to.st_blocks = static_cast<blkcnt_t>(round_up(data) / kStatBlock);
    to.st_rdev = from.device;
    // Programs that look for directories by the links in their parent stop looking at 1.
    to.st_nlink = S_ISDIR(from.mode) ? 1 : from.links;
    to.st_mtim = {from.mtime.seconds, static_cast<long>(from.mtime.nanoseconds)};
    to.st_atim = to.st_ctim = to.st_mtim;
    return to;
}

// What of a file is not a hole, so that those who copy it look for its holes, or do not.
Result<std::uint64_t> ViewTree::data_bytes(ObjectId file, std::uint64_t size) {
    if (size < kSmallFile) return size;
    std::uint64_t counted = 0;
    std::uint64_t at = 0;
    for (std::size_t i = 0; i < kCountedRanges && at < size; ++i) {
        TS_ASSIGN(const auto range, image_.next_data(file, at));
        if (!range) return counted;
        TS_ASSERT(range->length > 0 && range->offset + range->length > at);
        const std::uint64_t begin = std::max(range->offset, at);
        at = std::min(range->offset + range->length, size);
        counted += at - std::min(begin, at);
    }
    if (at >= size) return counted;
    const double share = static_cast<double>(counted) / static_cast<double>(at);
    return static_cast<std::uint64_t>(share * static_cast<double>(size));
}

Result<ViewTree::Listing> ViewTree::list(ObjectId directory) {
    {
        const std::lock_guard lock{mutex_};
        for (const auto& [id, listing] : listings_)
            if (id == directory) return Listing{listing};
    }
    std::vector<ImageEntry> entries;
    if (is_above(directory)) {
        entries = above(directory).entries;
    } else {
        TS_ASSIGN(entries, image_.list(directory));
    }
    auto listing = std::make_shared<const std::vector<ImageEntry>>(std::move(entries));
    std::pair<ObjectId, Listing> oldest;  // freed after the lock is
    const std::lock_guard lock{mutex_};
    listings_.emplace_back(directory, listing);
    if (listings_.size() > kListings) {
        oldest = std::move(listings_.front());
        listings_.pop_front();
    }
    return Listing{std::move(listing)};
}

void ViewTree::finish_listing(ObjectId directory) {
    std::deque<std::pair<ObjectId, Listing>> finished;
    const std::lock_guard lock{mutex_};
    for (auto at = listings_.begin(); at != listings_.end();) {
        if (at->first != directory) {
            ++at;
            continue;
        }
        finished.push_back(std::move(*at));
        at = listings_.erase(at);
    }
}

Result<std::size_t> ViewTree::read(ObjectId file, std::uint64_t offset, std::span<std::byte> into) {
    if (is_above(file)) return make_error(EISDIR, "read");
    return image_.read(file, offset, into);
}

Result<std::uint64_t> ViewTree::seek(ObjectId file, std::uint64_t offset, Seek what) {
    if (is_above(file)) return make_error(EINVAL, "look for data");
    TS_ASSIGN(const ImageAttributes attributes, image_.attributes(file));
    if (offset >= attributes.size) return make_error(ENXIO, "look for data past the end");
    for (std::uint64_t at = offset;;) {
        TS_ASSIGN(const auto range, image_.next_data(file, at));
        const bool in_hole = !range || range->offset > at;
        if (what == Seek::kHole && in_hole) return at;
        if (what == Seek::kData) {
            if (!range || range->offset >= attributes.size)
                return make_error(ENXIO, "look for data past the last");
            return std::max(range->offset, at);
        }
        TS_ASSERT(range->length > 0 && range->offset + range->length > at);
        at = range->offset + range->length;
        // Behind the end everything is a hole.
        if (at >= attributes.size) return attributes.size;
    }
}

Result<std::string> ViewTree::target(ObjectId symlink) {
    if (is_above(symlink)) return make_error(EINVAL, "read a symlink");
    return image_.target(symlink);
}

Result<std::map<std::string, std::string>> ViewTree::xattrs(ObjectId object) {
    if (is_above(object)) return std::map<std::string, std::string>{};
    return image_.xattrs(object);
}

}  // namespace twinspool
