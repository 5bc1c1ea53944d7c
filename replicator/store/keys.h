// SPDX-License-Identifier: Apache-2.0
// Keys: every key and value of the database, as bytes. Numbers in keys are big-endian, so that what
// belongs together stands together and snapshots ascend; in values they are little-endian.
//
//   state    "state"                                → State
//            "begun"                                → Lsn
//            'o' object                             → IndexEntry
//            'r' path                               → object: a directory of the volume
//            's' number                             → SnapshotRecord
//   history  'a' object number                      → after, attributes, xattrs
//            'b' object block number                → after, holes, bytes
//            'e' directory name 0 number            → after, object (0: no such name)
//            'n' upto after key                     → nothing: the entries above, by their span
//            't' upto after                         → Totals of that span
//
// `number` is that of the snapshot that was the newest when the entry was made, `after` the newest
// one for which it does not hold. So an entry belongs to the living snapshots in (after, number],
// its Span, and is garbage when there are none. Pure functions; any thread. Source of truth for
// replicator/README.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/delta/image.h"
#include "journal/delta/tree.h"
#include "replicator/link/snapshot.h"

namespace twinspool {

inline constexpr std::string_view kStateKey = "state";
inline constexpr std::string_view kBegunKey = "begun";
inline constexpr std::uint64_t kHistoryBlockBytes = 8192;
// A hole ends between parts: no file system has smaller blocks. A bit for each part.
inline constexpr std::uint64_t kHolePartBytes = 1024;
static_assert(kHistoryBlockBytes == 8 * kHolePartBytes);

// The snapshots that something was kept for.
struct Span {
    Lsn after;
    Lsn upto;
    friend auto operator<=>(const Span&, const Span&) = default;
    [[nodiscard]] bool holds(Lsn number) const { return after < number && number <= upto; }
};

struct Totals {
    std::uint64_t entry_bytes = 0;  // keys and values
    std::uint64_t kept_bytes = 0;   // space of kept files
};

// The newest telling that the store was begun, or resynced, in.
struct Beginning {
    std::uint64_t epoch_id = 0;       // 0  of the record that it begins behind
    std::uint64_t before_resync = 0;  // 8  snapshot of what was there; 0: none
    std::uint32_t epoch_number = 0;   // 16
    std::uint32_t generation = 0;     // 20 0: unknown
    std::uint32_t resyncing = 0;      // 24 1: not all has been told yet, and the tree is a mixture
    std::uint32_t reserved = 0;       // 28
    friend bool operator==(const Beginning&, const Beginning&) = default;
};

// The value of kStateKey.
struct State {
    std::uint64_t volume = 0;       // 0
    std::uint32_t version = 0;      // 8
    std::uint32_t seeded = 0;       // 12
    std::uint64_t lsn = 0;          // 16
    std::uint64_t chain = 0;        // 24
    std::uint64_t newest_mark = 0;  // 32
    std::int64_t time = 0;          // 40  of the frame that `lsn` is in, by the primary's clock
    Beginning telling;              // 48
};
static_assert(sizeof(State) == 80);

struct SnapshotRecord {
    Snapshot snapshot;    // without `used`
    bool doomed = false;  // to be destroyed as soon as nobody reads it
    std::vector<ImageRoot> roots;
};

// What an object was like.
struct AttributesImage {
    Lsn after;
    ImageAttributes attributes;
    std::map<std::string, std::string> xattrs;
};

struct EntryImage {
    Lsn after;
    ObjectId object{};
};

// What an object of the tree is like now. `status` is lstat's; the times of directories are the
// index's, because an apply changes those on disk.
ImageAttributes attributes_of(const struct stat& status, const IndexEntry& entry);

namespace keys {

// The first key that does not begin with `prefix`.
std::string end_of(std::string_view prefix);
Lsn number_at_end(std::string_view key);

std::string object(ObjectId id);
std::string root(std::string_view path);
std::string snapshot(Lsn number);

// Without the number, for all of them; add it with numbered().
std::string attributes(ObjectId id);
std::string block(ObjectId id, std::uint64_t block);
std::string entry(ObjectId directory, std::string_view name);
std::string numbered(std::string_view key, Lsn number);
// Of all names of a directory; and back to the name.
std::string entries(ObjectId directory);
std::string_view name_of_entry(std::string_view key);
// Of all blocks; and back to the block.
std::string blocks(ObjectId id);
std::uint64_t block_of(std::string_view key);

std::string in_span(const Span& span, std::string_view key);
std::string_view key_in_span(std::string_view key);
std::string totals(const Span& span);
Span span_of_totals(std::string_view key);

}  // namespace keys

std::string encode(const IndexEntry& entry);
Result<IndexEntry> decode_index_entry(std::string_view text);
Result<ObjectId> decode_root(std::string_view text);
std::string encode(const State& state);
Result<State> decode_state(std::string_view text);
std::string encode(const SnapshotRecord& record);
Result<SnapshotRecord> decode_snapshot(std::string_view text);
std::string encode(const AttributesImage& image);
Result<AttributesImage> decode_attributes(std::string_view text);
std::string encode(const EntryImage& image);
Result<EntryImage> decode_entry(std::string_view text);
// A block as it was; bytes beyond those that there are were zeros, or beyond the end of the file.
struct BlockImage {
    Lsn after;
    std::uint8_t holes = 0;  // bit i: part i is a hole
    std::string_view bytes;  // borrowed
};
std::string encode(const BlockImage& image);
Result<BlockImage> decode_block(std::string_view text);
std::string encode(const Totals& totals);
Result<Totals> decode_totals(std::string_view text);

}  // namespace twinspool
