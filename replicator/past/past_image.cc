// SPDX-License-Identifier: Apache-2.0
#include "replicator/past/past_image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>

namespace twinspool {
namespace {

constexpr std::size_t kMaxListedEntries = 200'000;
constexpr std::size_t kMaxSizes = 4096;

}  // namespace

// A history that was given up is not looked into any more: another may stand in its place.
Status PastImage::follow() {
    const auto broken = [&] { return is_past() && number() <= source_->broken_upto(); };
    if (broken()) return gave_up();
    TS_ASSIGN(const std::uint64_t at, source_->follow());
    if (broken()) return gave_up();
    if (!is_past() || whole_at_ == at) return {};
    TS_ASSIGN(const auto text, source_->database().get(Family::kState, keys::snapshot(number())));
    if (!text) return gave_up();
    whole_at_ = at;
    return {};
}

Error PastImage::gave_up() const {
    return make_error(EIO, "read the snapshot {}, whose history was given up",
                      record_.snapshot.name);
}

Result<IndexEntry> PastImage::known(ObjectId object) const {
    TS_ASSIGN(const auto text, source_->database().get(Family::kState, keys::object(object)));
    if (text) {
        TS_ASSIGN(const IndexEntry entry, decode_index_entry(*text));
        if (has(entry)) return entry;
    }
    return make_error(ESTALE, "find object {:016x} in the image", raw(object));
}

// What stood at a name when a later snapshot was the newest may be younger than this one.
Result<bool> PastImage::has_object(ObjectId object) const {
    if (object == kNoObject) return false;
    const auto entry = known(object);
    if (!entry.ok() && entry.error().code != ESTALE) return entry.error();
    return entry.ok();
}

Result<Fd> PastImage::open(const IndexEntry& entry, int flags) const {
    return open_handle(source_->store(), entry.handle, flags | O_NOFOLLOW | O_CLOEXEC);
}

Result<std::optional<PastImage::Kept>> PastImage::kept(std::string_view key) const {
    if (!is_past()) return std::optional<Kept>{};
    auto range = source_->database().range(Family::kHistory, keys::numbered(key, number()),
                                           keys::end_of(key));
    range.first();
    if (range.valid())
        return std::optional{
            Kept{.number = keys::number_at_end(range.key()), .value = std::string{range.value()}}};
    TS_TRY(range.status());
    return std::optional<Kept>{};
}

Result<std::optional<AttributesImage>> PastImage::kept_attributes(ObjectId object) const {
    TS_ASSIGN(const auto found, kept(keys::attributes(object)));
    if (!found) return std::optional<AttributesImage>{};
    TS_ASSIGN(auto image, decode_attributes(found->value));
    return std::optional{std::move(image)};
}

Result<ImageAttributes> PastImage::attributes(ObjectId object) {
    TS_ASSIGN(const IndexEntry entry, known(object));
    TS_ASSIGN(const Fd fd, open(entry, O_PATH));
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return last_error("look at an object of the image");
    TS_TRY(follow());
    TS_ASSIGN(const auto before, kept_attributes(object));
    return before ? before->attributes : attributes_of(status, entry);
}

Result<std::map<std::string, std::string>> PastImage::xattrs(ObjectId object) {
    TS_ASSIGN(const IndexEntry entry, known(object));
    TS_ASSIGN(const Fd fd, open(entry, O_PATH));
    TS_ASSIGN(auto now, Tree::xattrs(fd.get()));
    TS_TRY(follow());
    TS_ASSIGN(auto before, kept_attributes(object));
    return before ? std::move(before->xattrs) : std::move(now);
}

Result<std::string> PastImage::target(ObjectId symlink) {
    TS_ASSIGN(const IndexEntry entry, known(symlink));
    TS_ASSIGN(const Fd fd, open(entry, O_PATH));
    std::string target(PATH_MAX, '\0');
    const ssize_t size = ::readlinkat(fd.get(), "", target.data(), target.size());
    if (size < 0) return last_error("read a symbolic link of the image");
    TS_TRY(follow());
    target.resize(static_cast<std::size_t>(size));
    return target;
}

Result<std::uint64_t> PastImage::version(ObjectId object) {
    TS_TRY(known(object));
    TS_TRY(follow());
    TS_ASSIGN(const auto before, kept(keys::attributes(object)));
    return before ? before->number.value : UINT64_MAX;
}

Result<ObjectId> PastImage::standing(int directory, const std::string& name) const {
    const Fd fd{::openat(directory, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)};
    if (!fd.valid()) {
        if (errno == ENOENT) return kNoObject;
        return last_error("look at \"{}\" in the image", name);
    }
    TS_ASSIGN(const FileHandle handle, handle_of(fd.get()));
    TS_ASSIGN(const auto identity, read_identity(fd.get(), handle));
    if (!identity) return kNoObject;
    TS_ASSIGN(const auto text,
              source_->database().get(Family::kState, keys::object(identity->object)));
    if (!text) return kNoObject;
    TS_ASSIGN(const IndexEntry entry, decode_index_entry(*text));
    return has(entry) && entry.handle == handle ? identity->object : kNoObject;
}

Result<ObjectId> PastImage::find(ObjectId directory, std::string_view name) {
    if (name.empty() || name.size() > NAME_MAX) return kNoObject;
    const std::string text{name};
    if (const auto list = remembered(directory)) {
        TS_TRY(follow());
        const auto it = std::lower_bound(
            list->begin(), list->end(), text,
            [](const ImageEntry& entry, const std::string& wanted) { return entry.name < wanted; });
        return it != list->end() && it->name == text ? it->object : kNoObject;
    }
    TS_ASSIGN(const IndexEntry entry, known(directory));
    TS_ASSIGN(const Fd fd, open(entry, O_PATH | O_DIRECTORY));
    TS_ASSIGN(const ObjectId now, standing(fd.get(), text));
    TS_TRY(follow());
    TS_ASSIGN(const auto before, kept(keys::entry(directory, name)));
    if (!before) return now;
    TS_ASSIGN(const EntryImage image, decode_entry(before->value));
    TS_ASSIGN(const bool there, has_object(image.object));
    return there ? image.object : kNoObject;
}

Result<std::vector<ImageEntry>> PastImage::list(ObjectId directory) {
    TS_ASSIGN(const auto found, entries(directory));
    return *found;
}

std::shared_ptr<const PastImage::Entries> PastImage::remembered(ObjectId directory) {
    const std::lock_guard lock{mutex_};
    const auto it = lists_.find(directory);
    return it == lists_.end() ? nullptr : it->second;
}

void PastImage::remember(ObjectId directory, const std::shared_ptr<const Entries>& list) {
    const std::lock_guard lock{mutex_};
    if (!lists_.emplace(directory, list).second) return;
    listed_.push_back(directory);
    listed_entries_ += list->size() + 1;
    while (listed_entries_ > kMaxListedEntries && listed_.size() > 1) {
        const auto it = lists_.find(listed_.front());
        listed_entries_ -= it->second->size() + 1;
        lists_.erase(it);
        listed_.pop_front();
    }
}

Result<std::shared_ptr<const PastImage::Entries>> PastImage::entries(ObjectId directory) {
    if (const auto list = remembered(directory)) {
        TS_TRY(follow());
        return list;
    }
    TS_ASSIGN(auto found, read_entries(directory));
    auto list = std::make_shared<const Entries>(std::move(found));
    if (is_past()) remember(directory, list);
    return list;
}

Result<PastImage::Entries> PastImage::read_entries(ObjectId directory) {
    TS_ASSIGN(const IndexEntry entry, known(directory));
    TS_ASSIGN(const Fd fd, open(entry, O_PATH | O_DIRECTORY));
    TS_ASSIGN(const auto names, Tree::list(fd.get()));
    std::map<std::string, ObjectId> found;
    for (const auto& name : names) {
        TS_ASSIGN(const ObjectId object, standing(fd.get(), name));
        if (object != kNoObject) found.emplace(name, object);
    }
    TS_TRY(follow());
    TS_TRY(overlay_entries(directory, found));
    Entries list;
    list.reserve(found.size());
    for (const auto& [name, object] : found) list.push_back({.name = name, .object = object});
    return list;
}

Status PastImage::overlay_entries(ObjectId directory,
                                  std::map<std::string, ObjectId>& found) const {
    if (!is_past()) return {};
    const std::string prefix = keys::entries(directory);
    auto range = source_->database().range(Family::kHistory, prefix, keys::end_of(prefix));
    std::string decided;
    for (range.first(); range.valid(); range.next()) {
        const std::string_view name = keys::name_of_entry(range.key());
        if (keys::number_at_end(range.key()) < number() || name == decided) continue;
        decided = name;
        TS_ASSIGN(const EntryImage image, decode_entry(range.value()));
        TS_ASSIGN(const bool there, has_object(image.object));
        if (there)
            found[decided] = image.object;
        else
            found.erase(decided);
    }
    return range.status();
}

Result<std::uint64_t> PastImage::size_of(ObjectId file) {
    if (is_past()) {
        const std::lock_guard lock{mutex_};
        const auto it = sizes_.find(file);
        if (it != sizes_.end()) return it->second;
    }
    TS_ASSIGN(const ImageAttributes its, attributes(file));
    if (is_past()) {
        const std::lock_guard lock{mutex_};
        if (sizes_.size() >= kMaxSizes) sizes_.clear();
        sizes_[file] = its.size;
    }
    return its.size;
}

Result<std::size_t> PastImage::read(ObjectId file, std::uint64_t offset,
                                    std::span<std::byte> into) {
    TS_ASSIGN(const std::uint64_t size, size_of(file));
    if (offset >= size) return std::size_t{0};
    into = into.first(std::min<std::uint64_t>(into.size(), size - offset));
    TS_ASSIGN(const IndexEntry entry, known(file));
    TS_ASSIGN(const Fd fd, open(entry, O_RDONLY));
    std::size_t done = 0;
    while (done < into.size()) {
        const ssize_t got = ::pread(fd.get(), into.data() + done, into.size() - done,
                                    static_cast<off_t>(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return last_error("read a file of the image");
        if (got == 0) break;  // it is shorter now, and what was cut off is kept
        done += static_cast<std::size_t>(got);
    }
    std::fill(into.begin() + static_cast<std::ptrdiff_t>(done), into.end(), std::byte{});
    TS_TRY(follow());
    TS_TRY(overlay_blocks(file, offset, into));
    return into.size();
}

Status PastImage::overlay_blocks(ObjectId file, std::uint64_t offset,
                                 std::span<std::byte> into) const {
    if (!is_past() || into.empty()) return {};
    const std::uint64_t stop = offset + into.size();
    auto range =
        source_->database().range(Family::kHistory, keys::block(file, offset / kHistoryBlockBytes),
                                  keys::block(file, (stop - 1) / kHistoryBlockBytes + 1));
    std::uint64_t decided = UINT64_MAX;
    for (range.first(); range.valid(); range.next()) {
        const std::uint64_t block = keys::block_of(range.key());
        if (keys::number_at_end(range.key()) < number() || block == decided) continue;
        decided = block;
        TS_ASSIGN(const BlockImage image, decode_block(range.value()));
        const std::string_view bytes = image.bytes;
        const std::uint64_t begin = block * kHistoryBlockBytes;
        const std::uint64_t from = std::max(begin, offset);
        const std::uint64_t end = std::min(begin + kHistoryBlockBytes, stop);
        const auto target = into.subspan(from - offset, end - from);
        std::fill(target.begin(), target.end(), std::byte{});
        if (from - begin >= bytes.size()) continue;
        const std::string_view part = bytes.substr(from - begin, end - from);
        std::memcpy(target.data(), part.data(), part.size());
    }
    return range.status();
}

// The first data at or after `offset`, which is in this block.
std::optional<ImageRange> PastImage::data_in_block(const KeptBlock& kept, std::uint64_t offset,
                                                   std::uint64_t size) {
    const std::uint64_t begin = kept.block * kHistoryBlockBytes;
    constexpr std::uint64_t kParts = kHistoryBlockBytes / kHolePartBytes;
    const auto is_hole = [&](std::uint64_t part) { return (kept.holes >> part & 1U) != 0; };
    std::uint64_t part = (offset - begin) / kHolePartBytes;
    while (part < kParts && is_hole(part)) ++part;
    const std::uint64_t from = std::max(offset, begin + part * kHolePartBytes);
    while (part < kParts && !is_hole(part)) ++part;
    const std::uint64_t end = std::min(begin + part * kHolePartBytes, size);
    if (from >= end) return std::nullopt;
    return ImageRange{.offset = from, .length = end - from};
}

Result<std::optional<ImageRange>> PastImage::next_data(ObjectId file, std::uint64_t offset) {
    TS_ASSIGN(const std::uint64_t size, size_of(file));
    TS_ASSIGN(const IndexEntry entry, known(file));
    TS_ASSIGN(const Fd fd, open(entry, O_RDONLY));
    while (offset < size) {
        const off_t data = ::lseek(fd.get(), static_cast<off_t>(offset), SEEK_DATA);
        const off_t hole = data < 0 ? data : ::lseek(fd.get(), data, SEEK_HOLE);
        TS_TRY(follow());
        const bool has_data = data >= 0 && hole > data;
        const ImageRange on_disk =
            has_data
                ? ImageRange{static_cast<std::uint64_t>(data),
                             static_cast<std::uint64_t>(hole) - static_cast<std::uint64_t>(data)}
                : ImageRange{size, 0};
        TS_ASSIGN(const DataSought sought, data_of_kept_blocks(file, offset, size, on_disk));
        if (sought.found) return sought.found;
        offset = sought.upto;
    }
    return std::optional<ImageRange>{};
}

// One pass over the kept blocks from `offset` on; between them the disk holds. It ends early,
// without a find, where `on_disk`, the disk's first data at or after `offset`, says nothing any
// more.
Result<PastImage::DataSought> PastImage::data_of_kept_blocks(ObjectId file, std::uint64_t offset,
                                                             std::uint64_t size,
                                                             ImageRange on_disk) const {
    const std::uint64_t disk_end = on_disk.offset + on_disk.length;
    const auto between = [&](std::uint64_t begin, std::uint64_t end) -> std::optional<ImageRange> {
        begin = std::max(begin, on_disk.offset);
        end = std::min(end, disk_end);
        if (begin >= end) return std::nullopt;
        return ImageRange{begin, end - begin};
    };
    if (!is_past()) return DataSought{.found = between(offset, size), .upto = size};
    auto range =
        source_->database().range(Family::kHistory, keys::block(file, offset / kHistoryBlockBytes),
                                  keys::end_of(keys::blocks(file)));
    for (range.first(); range.valid(); range.next()) {
        if (keys::number_at_end(range.key()) < number()) continue;
        const std::uint64_t block = keys::block_of(range.key());
        const std::uint64_t begin = block * kHistoryBlockBytes;
        if (begin >= size) break;
        if (begin + kHistoryBlockBytes <= offset) continue;  // a later image of a block decided
        if (begin > offset) {
            if (const auto found = between(offset, begin)) return DataSought{.found = found};
            if (offset >= disk_end && on_disk.length > 0) return DataSought{.upto = offset};
            offset = begin;
        }
        TS_ASSIGN(const BlockImage image, decode_block(range.value()));
        const auto found = data_in_block({.block = block, .holes = image.holes}, offset, size);
        if (found) return DataSought{.found = found};
        offset = begin + kHistoryBlockBytes;
    }
    TS_TRY(range.status());
    if (offset < size) {
        if (const auto found = between(offset, size)) return DataSought{.found = found};
        if (offset >= disk_end && on_disk.length > 0) return DataSought{.upto = offset};
    }
    return DataSought{.upto = size};
}

}  // namespace twinspool
