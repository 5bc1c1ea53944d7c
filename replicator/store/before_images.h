// SPDX-License-Identifier: Apache-2.0
// BeforeImages: the entries, attributes and blocks that a delta is going to change, as they are
// now, for the newest living snapshot: one pass over the delta, before the tree is touched.
//
// Saved is only what that snapshot has: objects that it has (born before it), names that led to
// such an object or are going to, blocks within the size that the file had. Something counts as
// saved if an entry of it has a number at least that of the snapshot. Written in portions, so that
// memory does not grow with what is saved; not synced. Used by History only; one thread, one use.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "journal/delta/delta.h"
#include "replicator/store/history.h"

namespace twinspool {

class BeforeImages {
   public:
    BeforeImages(History& history, const Delta& delta, Lsn newest)
        : history_(history), delta_(delta), newest_(newest) {}
    Status save();
    [[nodiscard]] bool saved_any() const { return saved_any_; }

   private:
    struct Known {
        ObjectId id{};
        IndexEntry entry;
    };
    struct Found {
        bool saved = false;
        std::string value;  // of the entry that counts, if saved
        Lsn before;         // number of the newest entry otherwise; 0: none
    };
    // Space that is only reserved keeps what is there, but a hole is none any more: it may show as
    // data from then on.
    enum class Blocks : std::uint8_t { kChanged, kReserved };
    // What of a file is going to change, in blocks: first → end. Disjoint, ascending.
    using BlockRanges = std::map<std::uint64_t, std::uint64_t>;

    // The object, if the snapshot has it.
    Result<std::optional<Known>> in_snapshot(ObjectId id);
    Result<std::optional<Known>> standing_in_snapshot(const Standing& standing);
    Result<Found> look_up(std::string_view key);

    Status save_object(const ObjectChange& change);
    Status save_directory(const ObjectChange& change, const Known& directory, int fd);
    Status save_unlisted(const ObjectChange& change, const Known& directory, int fd);
    Status save_old_place(const ObjectChange& change, const Known& directory, int fd);
    // Everything below a directory that goes with all that is in it.
    Status save_subtree(const Known& directory, int fd);
    Status save_removed(int fd, std::string_view name, ObjectId next);
    Status save_parked();
    Status save_displaced_roots(const ObjectChange& root);
    Status save_name(const Known& directory, int fd, std::string_view name, ObjectId next);
    // Its size at the snapshot.
    Result<std::uint64_t> save_attributes(const Known& object, int fd);
    Status save_content(const ObjectChange& change, const Known& file, std::uint64_t size);
    static BlockRanges blocks_of(const ContentChange& content, std::uint64_t size, Blocks which);
    Status save_blocks(const Known& file, int fd, std::uint64_t first, std::uint64_t end,
                       std::uint64_t size, Blocks which);
    Status put(std::string_view key, Lsn after, std::string_view value);
    Status write_portion();

    History& history_;
    const Delta& delta_;
    const Lsn newest_;
    Batch batch_;
    std::map<Span, std::uint64_t> bytes_;  // of the portion
    std::set<std::string> names_;          // saved in this pass
    bool saved_any_ = false;
};

}  // namespace twinspool
