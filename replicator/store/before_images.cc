// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/before_images.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

namespace twinspool {
namespace {

constexpr std::size_t kPortionBytes = std::size_t{4} << 20;
constexpr std::uint64_t kBlocksAtOnce = 1024;
constexpr std::size_t kMaxSizes = 65536;

// The descriptor of an object of the tree; nothing if it is gone, which only an apply that was
// interrupted, and had no need to keep it, can have brought about.
Result<std::optional<Fd>> open_known(const Tree& tree, const IndexEntry& entry, int flags) {
    auto fd = tree.open_object(entry.handle, flags);
    if (!fd.ok() && fd.error().code == ESTALE) return std::optional<Fd>{};
    if (!fd.ok()) return fd.error();
    return std::optional{std::move(*fd)};
}

// Where a file has data; remembers what it found last.
class DataFinder {
   public:
    explicit DataFinder(int fd) : fd_(fd) {}
    // Asked in ascending order.
    bool is_hole(std::uint64_t begin, std::uint64_t end) {
        if (begin >= hole_) {
            data_ = find(begin, SEEK_DATA);
            hole_ = data_ == UINT64_MAX ? UINT64_MAX : find(data_, SEEK_HOLE);
        }
        return end <= data_;
    }

   private:
    [[nodiscard]] std::uint64_t find(std::uint64_t from, int what) const {
        const off_t found = ::lseek(fd_, static_cast<off_t>(from), what);
        return found < 0 ? UINT64_MAX : static_cast<std::uint64_t>(found);
    }
    int fd_;
    std::uint64_t data_ = 0;
    std::uint64_t hole_ = 0;
};

// What of a block is holes; `length`: of it that is in the file.
std::uint8_t holes_in(DataFinder& finder, std::uint64_t offset, std::uint64_t length) {
    unsigned holes = 0;
    for (unsigned part = 0; part < kHistoryBlockBytes / kHolePartBytes; ++part) {
        const std::uint64_t begin = part * kHolePartBytes;
        const std::uint64_t end = std::min(begin + kHolePartBytes, length);
        if (begin >= length || finder.is_hole(offset + begin, offset + end)) holes |= 1U << part;
    }
    return static_cast<std::uint8_t>(holes);
}

}  // namespace

Result<std::optional<BeforeImages::Known>> BeforeImages::in_snapshot(ObjectId id) {
    if (id == kNoObject) return std::optional<Known>{};
    TS_ASSIGN(const auto entry, history_.parts_.catalogue.find(id));
    if (!entry || entry->born >= newest_) return std::optional<Known>{};
    return std::optional{Known{.id = id, .entry = *entry}};
}

Result<std::optional<BeforeImages::Known>> BeforeImages::standing_in_snapshot(
    const Standing& standing) {
    TS_ASSIGN(auto known, in_snapshot(standing.object));
    if (known && known->entry.handle != standing.handle) known.reset();
    return known;
}

Result<BeforeImages::Found> BeforeImages::look_up(std::string_view key) {
    auto range = history_.parts_.database.range(Family::kHistory, key, keys::end_of(key));
    range.seek(keys::numbered(key, newest_));
    if (range.valid()) return Found{.saved = true, .value = std::string{range.value()}};
    TS_TRY(range.status());
    range.last();
    if (range.valid()) return Found{.before = keys::number_at_end(range.key())};
    TS_TRY(range.status());
    return Found{};
}

Status BeforeImages::put(std::string_view key, Lsn after, std::string_view value) {
    const Span span{.after = after, .upto = newest_};
    const std::string numbered = keys::numbered(key, newest_);
    batch_.put(Family::kHistory, numbered, value);
    batch_.put(Family::kHistory, keys::in_span(span, numbered), {});
    bytes_[span] += 2 * numbered.size() + value.size();
    saved_any_ = true;
    return batch_.bytes() < kPortionBytes ? Status{} : write_portion();
}

// The totals go with the entries; a span that is not in them would never be purged.
Status BeforeImages::write_portion() {
    if (batch_.empty()) return {};
    for (const auto& [span, bytes] : bytes_) {
        Totals totals = history_.totals_[span];
        totals.entry_bytes += bytes;
        batch_.put(Family::kHistory, keys::totals(span), encode(totals));
    }
    TS_TRY(history_.parts_.database.write(batch_, Database::Durability::kWritten));
    for (const auto& [span, bytes] : bytes_) history_.totals_[span].entry_bytes += bytes;
    batch_ = {};
    bytes_.clear();
    return {};
}

Status BeforeImages::save() {
    for (const ObjectChange& change : delta_.objects())
        TS_TRY(change.id == kRootObject ? save_displaced_roots(change) : save_object(change));
    if (delta_.all_told()) TS_TRY(save_parked());
    return write_portion();
}

Status BeforeImages::save_object(const ObjectChange& change) {
    TS_ASSIGN(const auto known, in_snapshot(change.id));
    if (!known) return {};
    const Tree& tree = history_.parts_.tree;
    TS_ASSIGN(const auto fd, open_known(tree, known->entry, O_PATH));
    if (!fd) return {};
    TS_ASSIGN(const std::uint64_t size, save_attributes(*known, fd->get()));
    if (known->entry.type == S_IFREG && !change.content.empty())
        TS_TRY(save_content(change, *known, size));
    if (known->entry.type != S_IFDIR) return {};
    TS_TRY(save_old_place(change, *known, fd->get()));
    return save_directory(change, *known, fd->get());
}

Status BeforeImages::save_directory(const ObjectChange& change, const Known& directory, int fd) {
    if (change.directory) {
        for (const auto& [name, entry] : change.directory->entries) {
            TS_TRY(save_name(directory, fd, name, entry.object));
            TS_TRY(save_removed(fd, name, entry.object));
        }
        if (!change.directory->statements.empty()) TS_TRY(save_unlisted(change, directory, fd));
    }
    return change.gone() ? save_subtree(directory, fd) : Status{};
}

Status BeforeImages::save_unlisted(const ObjectChange& change, const Known& directory, int fd) {
    const DirectoryChange& its = *change.directory;
    TS_ASSIGN(const auto names, history_.parts_.tree.list(fd));
    for (const auto& name : names) {
        const bool removed = std::any_of(its.statements.begin(), its.statements.end(),
                                         [&](const auto& each) { return each.removes(name); });
        if (!removed || its.entries.contains(name)) continue;
        TS_TRY(save_name(directory, fd, name, kNoObject));
        TS_TRY(save_removed(fd, name, kNoObject));
    }
    return {};
}

// A directory that loses its name by a statement goes with all that is in it, once all is told.
Status BeforeImages::save_removed(int fd, std::string_view name, ObjectId next) {
    if (!delta_.all_told()) return {};
    const EntryName text{name};
    TS_ASSIGN(const auto standing, history_.parts_.tree.at(fd, text.c_str()));
    if (!standing || !standing->is_directory() || standing->object == next) return {};
    TS_ASSIGN(const auto known, standing_in_snapshot(*standing));
    return known ? save_subtree(*known, standing->fd.get()) : Status{};
}

// A directory that is told of elsewhere leaves its place, whether or not the delta says so.
Status BeforeImages::save_old_place(const ObjectChange& change, const Known& directory, int fd) {
    if (change.links.empty() || directory.entry.kept != Lsn{}) return {};
    TS_ASSIGN(const auto parent, in_snapshot(directory.entry.parent));
    if (!parent) return {};
    TS_ASSIGN(const auto place, Tree::place_of(fd));
    TS_ASSIGN(const FileHandle handle, handle_of(place.parent.get()));
    if (handle != parent->entry.handle) return {};  // a folder of the store, or moved already
    for (const Link& link : change.links)
        if (link.parent == parent->id && link.name == place.name) return {};
    return save_name(*parent, place.parent.get(), place.name, kNoObject);
}

Status BeforeImages::save_subtree(const Known& directory, int fd) {
    const Tree& tree = history_.parts_.tree;
    TS_TRY(save_attributes(directory, fd));
    TS_ASSIGN(const auto names, tree.list(fd));
    for (const auto& name : names) {
        TS_TRY(save_name(directory, fd, name, kNoObject));
        TS_ASSIGN(const auto standing, tree.at(fd, name.c_str()));
        if (!standing || !standing->is_directory()) continue;
        TS_ASSIGN(const auto known, standing_in_snapshot(*standing));
        if (known) TS_TRY(save_subtree(*known, standing->fd.get()));
    }
    return {};
}

// What is parked, or is going to be, goes at the end of a range in which all was told.
Status BeforeImages::save_parked() {
    const Tree& tree = history_.parts_.tree;
    TS_ASSIGN(const auto names, tree.list(tree.parked()));
    for (const auto& name : names) {
        TS_ASSIGN(const auto standing, tree.at(tree.parked(), name.c_str()));
        if (!standing) continue;
        TS_ASSIGN(const auto known, standing_in_snapshot(*standing));
        if (!known) continue;
        if (standing->is_directory())
            TS_TRY(save_subtree(*known, standing->fd.get()));
        else
            TS_TRY(save_attributes(*known, standing->fd.get()));
    }
    return {};
}

Status BeforeImages::save_displaced_roots(const ObjectChange& root) {
    if (!root.directory) return {};
    for (const auto& [path, entry] : root.directory->entries) {
        TS_ASSIGN(const Fd folder, history_.parts_.tree.open_parent_of_root(path));
        TS_TRY(save_removed(folder.get(), path.substr(path.rfind('/') + 1), entry.object));
    }
    return {};
}

Status BeforeImages::save_name(const Known& directory, int fd, std::string_view name,
                               ObjectId next) {
    const EntryName text{name};
    const Tree& tree = history_.parts_.tree;
    TS_ASSIGN(const auto standing, tree.at(fd, text.c_str()));
    std::optional<Known> old;
    if (standing) {
        TS_ASSIGN(old, standing_in_snapshot(*standing));
    }
    if (old) TS_TRY(save_attributes(*old, standing->fd.get()));  // how many names it has
    if (!old) {
        // Neither was there for the snapshot: new mail costs nothing.
        TS_ASSIGN(const auto coming, in_snapshot(next));
        if (!coming) return {};
    }
    const std::string key = keys::entry(directory.id, name);
    if (names_.contains(key)) return {};
    TS_ASSIGN(const Found found, look_up(key));
    if (found.saved) return {};
    names_.insert(key);
    const Lsn after = std::max(found.before, directory.entry.born);
    return put(key, after, encode(EntryImage{.after = after, .object = old ? old->id : kNoObject}));
}

Result<std::uint64_t> BeforeImages::save_attributes(const Known& object, int fd) {
    auto& sizes = history_.sizes_;
    if (const auto it = sizes.find(object.id); it != sizes.end()) return it->second;
    const std::string key = keys::attributes(object.id);
    TS_ASSIGN(const Found found, look_up(key));
    AttributesImage image;
    if (found.saved) {
        TS_ASSIGN(image, decode_attributes(found.value));
    } else {
        struct stat status {};
        if (::fstat(fd, &status) != 0) return last_error("look at an object");
        image.after = std::max(found.before, object.entry.born);
        image.attributes = attributes_of(status, object.entry);
        TS_ASSIGN(image.xattrs, Tree::xattrs(fd));
        TS_TRY(put(key, image.after, encode(image)));
    }
    if (sizes.size() >= kMaxSizes) sizes.clear();
    return sizes[object.id] = image.attributes.size;
}

// Only content within the size that the file had counts; what was cut off has been saved then.
Status BeforeImages::save_content(const ObjectChange& change, const Known& file,
                                  std::uint64_t size) {
    TS_ASSIGN(const auto fd, open_known(history_.parts_.tree, file.entry, O_RDONLY));
    struct stat status {};
    if (!fd) return {};
    if (::fstat(fd->get(), &status) != 0) return last_error("look at a file");
    size = std::min(size, static_cast<std::uint64_t>(status.st_size));
    const auto changed = blocks_of(change.content, size, Blocks::kChanged);
    const auto save = [&](std::uint64_t first, std::uint64_t end, Blocks which) -> Status {
        for (; first < end; first += kBlocksAtOnce)
            TS_TRY(save_blocks(file, fd->get(), first, std::min(end, first + kBlocksAtOnce), size,
                               which));
        return {};
    };
    for (const auto& [first, end] : changed) TS_TRY(save(first, end, Blocks::kChanged));
    for (const auto& [begin, end] : blocks_of(change.content, size, Blocks::kReserved)) {
        std::uint64_t first = begin;
        // A block is saved once: not those that were changed, too.
        for (const auto& [next, after] : changed) {
            if (after <= first || next >= end) continue;
            TS_TRY(save(first, next, Blocks::kReserved));
            first = after;
        }
        TS_TRY(save(first, end, Blocks::kReserved));
    }
    return {};
}

BeforeImages::BlockRanges BeforeImages::blocks_of(const ContentChange& content, std::uint64_t size,
                                                  Blocks which) {
    BlockRanges ranges;
    const auto add = [&](std::uint64_t begin, std::uint64_t end) {
        end = std::min(end, size);
        if (begin >= end) return;
        const std::uint64_t first = begin / kHistoryBlockBytes;
        const std::uint64_t last = (end + kHistoryBlockBytes - 1) / kHistoryBlockBytes;
        if (!ranges.empty() && ranges.rbegin()->second >= first)
            ranges.rbegin()->second = std::max(ranges.rbegin()->second, last);
        else
            ranges.emplace(first, last);
    };
    const std::uint64_t cut = content.cut().value_or(UINT64_MAX);
    for (const auto& [offset, extent] : content.extents()) {
        if (offset >= cut) break;
        const bool reserved = extent.kind == ExtentKind::kAllocated;
        if (reserved == (which == Blocks::kReserved)) add(offset, offset + extent.length);
    }
    if (which == Blocks::kChanged) add(cut, UINT64_MAX);
    return ranges;
}

Status BeforeImages::save_blocks(const Known& file, int fd, std::uint64_t first, std::uint64_t end,
                                 std::uint64_t size, Blocks which) {
    std::map<std::uint64_t, Lsn> newest;
    auto range = history_.parts_.database.range(Family::kHistory, keys::block(file.id, first),
                                                keys::block(file.id, end));
    for (range.first(); range.valid(); range.next())
        newest[keys::block_of(range.key())] = keys::number_at_end(range.key());
    TS_TRY(range.status());
    DataFinder finder{fd};
    std::array<char, kHistoryBlockBytes> bytes;
    for (std::uint64_t block = first; block < end; ++block) {
        const auto before = newest.find(block);
        if (before != newest.end() && before->second >= newest_) continue;
        const std::uint64_t offset = block * kHistoryBlockBytes;
        const std::uint64_t length = std::min(kHistoryBlockBytes, size - offset);
        BlockImage image{.after = file.entry.born, .holes = holes_in(finder, offset, length)};
        if (which == Blocks::kReserved && image.holes == 0) continue;
        if (before != newest.end()) image.after = std::max(image.after, before->second);
        if (image.holes != 0xff) {
            const ssize_t got = ::pread(fd, bytes.data(), length, static_cast<off_t>(offset));
            if (got < 0) return last_error("read {} bytes at {}", length, offset);
            image.bytes = {bytes.data(), static_cast<std::size_t>(got)};
        }
        TS_TRY(put(keys::block(file.id, block), image.after, encode(image)));
    }
    return {};
}

}  // namespace twinspool
