// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/keys.h"

#include <sys/stat.h>

#include <cstring>
#include <type_traits>

namespace twinspool {
namespace {

constexpr std::uint32_t kHasLife = std::uint32_t{1} << 31;  // in `type`: born and kept follow
constexpr std::uint32_t kIncomplete = 1;
constexpr std::uint32_t kBroken = 2;
constexpr std::uint32_t kDoomed = 4;

void add_number(std::string& key, std::uint64_t value) {
    for (int shift = 56; shift >= 0; shift -= 8) key += static_cast<char>(value >> shift);
}

std::uint64_t number_at(std::string_view key, std::size_t at) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < 8; ++i)
        value = value << 8 | static_cast<unsigned char>(key[at + i]);
    return value;
}

std::string prefixed(char kind, ObjectId id) {
    std::string key{kind};
    add_number(key, raw(id));
    return key;
}

template <typename T>
void append(std::string& text, const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    text.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_text(std::string& text, std::string_view value) {
    append(text, static_cast<std::uint32_t>(value.size()));
    text += value;
}

// Takes values from the front of a text; what is missing makes it bad.
class Taker {
   public:
    explicit Taker(std::string_view text) : rest_(text) {}
    template <typename T>
    T take() {
        T value{};
        if (rest_.size() < sizeof value) {
            ok_ = false;
            return value;
        }
        std::memcpy(&value, rest_.data(), sizeof value);
        rest_.remove_prefix(sizeof value);
        return value;
    }
    std::string take_text() {
        const auto size = take<std::uint32_t>();
        if (!ok_ || rest_.size() < size) {
            ok_ = false;
            return {};
        }
        std::string value{rest_.substr(0, size)};
        rest_.remove_prefix(size);
        return value;
    }
    [[nodiscard]] std::string_view rest() const { return rest_; }
    [[nodiscard]] bool ok() const { return ok_; }

   private:
    std::string_view rest_;
    bool ok_ = true;
};

Error damaged(const char* what) { return make_error(EBADMSG, "read {} of the catalogue", what); }

}  // namespace

ImageAttributes attributes_of(const struct stat& status, const IndexEntry& entry) {
    ImageAttributes attributes{
        .mode = status.st_mode,
        .uid = status.st_uid,
        .gid = status.st_gid,
        .mtime = {.seconds = status.st_mtim.tv_sec,
                  .nanoseconds = static_cast<std::uint32_t>(status.st_mtim.tv_nsec)},
        .size = static_cast<std::uint64_t>(status.st_size),
        .links = static_cast<std::uint32_t>(status.st_nlink),
        .device = status.st_rdev};
    if (entry.type == S_IFDIR) attributes.mtime = entry.mtime;
    return attributes;
}

namespace keys {

std::string end_of(std::string_view prefix) {
    std::string end{prefix};
    while (!end.empty() && end.back() == '\xff') end.pop_back();
    if (!end.empty()) ++end.back();
    return end;
}

Lsn number_at_end(std::string_view key) { return Lsn{number_at(key, key.size() - 8)}; }

std::string object(ObjectId id) { return prefixed('o', id); }
std::string root(std::string_view path) { return std::string{'r'}.append(path); }
std::string snapshot(Lsn number) { return numbered("s", number); }

std::string attributes(ObjectId id) { return prefixed('a', id); }
std::string blocks(ObjectId id) { return prefixed('b', id); }
std::string entries(ObjectId directory) { return prefixed('e', directory); }

std::string block(ObjectId id, std::uint64_t block) {
    std::string key = blocks(id);
    add_number(key, block);
    return key;
}

std::uint64_t block_of(std::string_view key) { return number_at(key, 9); }

// No name has a zero in it, so those of one name stand together.
std::string entry(ObjectId directory, std::string_view name) {
    return entries(directory).append(name).append(1, '\0');
}

std::string_view name_of_entry(std::string_view key) { return key.substr(9, key.size() - 18); }

std::string numbered(std::string_view key, Lsn number) {
    std::string whole{key};
    add_number(whole, number.value);
    return whole;
}

std::string in_span(const Span& span, std::string_view key) {
    return numbered(numbered("n", span.upto), span.after).append(key);
}

std::string_view key_in_span(std::string_view key) { return key.substr(17); }

std::string totals(const Span& span) { return numbered(numbered("t", span.upto), span.after); }

Span span_of_totals(std::string_view key) {
    return {.after = Lsn{number_at(key, 9)}, .upto = Lsn{number_at(key, 1)}};
}

}  // namespace keys

std::string encode(const IndexEntry& entry) {
    std::string text;
    append(text, entry.type | kHasLife);
    append(text, entry.handle.type);
    append(text, entry.born.value);
    append(text, entry.kept.value);
    if (entry.type == S_IFDIR) {
        append(text, raw(entry.parent));
        append(text, entry.mtime.seconds);
        append(text, std::uint64_t{entry.mtime.nanoseconds});
    }
    text.append(reinterpret_cast<const char*>(entry.handle.bytes.data()), entry.handle.size);
    return text;
}

Result<IndexEntry> decode_index_entry(std::string_view text) {
    Taker taker{text};
    IndexEntry entry;
    const auto type = taker.take<std::uint32_t>();
    entry.type = type & ~kHasLife;
    entry.handle.type = taker.take<std::int32_t>();
    if ((type & kHasLife) != 0) {
        entry.born = Lsn{taker.take<std::uint64_t>()};
        entry.kept = Lsn{taker.take<std::uint64_t>()};
    }
    if (entry.type == S_IFDIR) {
        entry.parent = ObjectId{taker.take<std::uint64_t>()};
        entry.mtime.seconds = taker.take<std::int64_t>();
        entry.mtime.nanoseconds = static_cast<std::uint32_t>(taker.take<std::uint64_t>());
    }
    const auto handle = taker.rest();
    if (!taker.ok() || handle.size() > kMaxHandleBytes) return damaged("an object");
    entry.handle.size = static_cast<std::uint32_t>(handle.size());
    std::memcpy(entry.handle.bytes.data(), handle.data(), handle.size());
    return entry;
}

Result<ObjectId> decode_root(std::string_view text) {
    Taker taker{text};
    const ObjectId object{taker.take<std::uint64_t>()};
    if (!taker.ok()) return damaged("a directory");
    return object;
}

std::string encode(const State& state) {
    std::string text;
    append(text, state);
    return text;
}

// Version 1 had no marks, version 2 no resync.
Result<State> decode_state(std::string_view text) {
    Taker taker{text};
    State state;
    state.volume = taker.take<std::uint64_t>();
    state.version = taker.take<std::uint32_t>();
    state.seeded = taker.take<std::uint32_t>();
    state.lsn = taker.take<std::uint64_t>();
    state.chain = taker.take<std::uint64_t>();
    if (state.version > 1) state.newest_mark = taker.take<std::uint64_t>();
    if (state.version > 2) {
        state.time = taker.take<std::int64_t>();
        state.telling = taker.take<Beginning>();
    }
    if (!taker.ok()) return damaged("the state");
    return state;
}

std::string encode(const SnapshotRecord& record) {
    const Snapshot& snapshot = record.snapshot;
    std::string text;
    append(text, raw(snapshot.time));
    append(text, (snapshot.incomplete ? kIncomplete : 0) | (snapshot.broken ? kBroken : 0) |
                     (record.doomed ? kDoomed : 0));
    append_text(text, snapshot.name);
    for (const ImageRoot& root : record.roots) {
        append(text, raw(root.object));
        append_text(text, root.path);
    }
    return text;
}

Result<SnapshotRecord> decode_snapshot(std::string_view text) {
    Taker taker{text};
    SnapshotRecord record;
    record.snapshot.time = WallTime{taker.take<std::int64_t>()};
    const auto flags = taker.take<std::uint32_t>();
    record.snapshot.incomplete = (flags & kIncomplete) != 0;
    record.snapshot.broken = (flags & kBroken) != 0;
    record.doomed = (flags & kDoomed) != 0;
    record.snapshot.name = taker.take_text();
    while (taker.ok() && !taker.rest().empty()) {
        const ObjectId object{taker.take<std::uint64_t>()};
        record.roots.push_back({.path = taker.take_text(), .object = object});
    }
    if (!taker.ok()) return damaged("a snapshot");
    return record;
}

std::string encode(const AttributesImage& image) {
    const ImageAttributes& from = image.attributes;
    std::string text;
    append(text, image.after.value);
    append(text, from.mode);
    append(text, from.uid);
    append(text, from.gid);
    append(text, from.mtime.seconds);
    append(text, from.mtime.nanoseconds);
    append(text, from.size);
    append(text, from.links);
    append(text, from.device);
    for (const auto& [name, value] : image.xattrs)
        append_text(text, name), append_text(text, value);
    return text;
}

Result<AttributesImage> decode_attributes(std::string_view text) {
    Taker taker{text};
    AttributesImage image;
    ImageAttributes& into = image.attributes;
    image.after = Lsn{taker.take<std::uint64_t>()};
    into.mode = taker.take<std::uint32_t>();
    into.uid = taker.take<std::uint32_t>();
    into.gid = taker.take<std::uint32_t>();
    into.mtime.seconds = taker.take<std::int64_t>();
    into.mtime.nanoseconds = taker.take<std::uint32_t>();
    into.size = taker.take<std::uint64_t>();
    into.links = taker.take<std::uint32_t>();
    into.device = taker.take<std::uint64_t>();
    while (taker.ok() && !taker.rest().empty()) {
        std::string name = taker.take_text();
        image.xattrs[std::move(name)] = taker.take_text();
    }
    if (!taker.ok()) return damaged("attributes");
    return image;
}

std::string encode(const EntryImage& image) {
    std::string text;
    append(text, image.after.value);
    append(text, raw(image.object));
    return text;
}

Result<EntryImage> decode_entry(std::string_view text) {
    Taker taker{text};
    EntryImage image;
    image.after = Lsn{taker.take<std::uint64_t>()};
    image.object = ObjectId{taker.take<std::uint64_t>()};
    if (!taker.ok()) return damaged("an entry");
    return image;
}

std::string encode(const BlockImage& image) {
    std::string text;
    append(text, image.after.value);
    append(text, image.holes);
    return text.append(image.bytes);
}

Result<BlockImage> decode_block(std::string_view text) {
    Taker taker{text};
    BlockImage image;
    image.after = Lsn{taker.take<std::uint64_t>()};
    image.holes = taker.take<std::uint8_t>();
    image.bytes = taker.rest();
    if (!taker.ok() || image.bytes.size() > kHistoryBlockBytes) return damaged("a block");
    return image;
}

std::string encode(const Totals& totals) {
    std::string text;
    append(text, totals);
    return text;
}

Result<Totals> decode_totals(std::string_view text) {
    Taker taker{text};
    Totals totals;
    totals.entry_bytes = taker.take<std::uint64_t>();
    totals.kept_bytes = taker.take<std::uint64_t>();
    if (!taker.ok()) return damaged("totals");
    return totals;
}

}  // namespace twinspool
