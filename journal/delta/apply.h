// SPDX-License-Identifier: Apache-2.0
// Apply: moves a tree to the state that a delta says, whatever part of it is so already.
//
// The tree must be in the state of the index (where the delta's range begins), or in any state that
// an interrupted apply of a delta from the same beginning, of the same or a shorter range, left.
// The index is changed, not committed; after an error its changes must be dropped. Nothing is
// synced. Order: entries are placed (what stands in the way is set aside, not destroyed, if it is
// wanted elsewhere), then names are removed, then contents, then attributes; the mtimes of
// directories last, because all the rest changes them. One thread. Called by
// replicator/standby/applier; made so that recovery of the primary can call it too.
#pragma once

#include <cstdint>

#include "journal/base/result.h"
#include "journal/delta/delta.h"
#include "journal/delta/tree.h"

namespace twinspool {

struct ApplyCounters {
    std::uint64_t made = 0;     // objects
    std::uint64_t placed = 0;   // entries of objects that were there, linked or moved
    std::uint64_t removed = 0;  // entries
    std::uint64_t parked = 0;   // objects without a name, that may be told of later
    std::uint64_t written = 0;  // files whose content changed
    std::uint64_t elided = 0;   // objects made and gone within the range
};

// Who wants objects that lose their last name, because a snapshot has them.
class Keeper {
   public:
    virtual ~Keeper() = default;
    struct Place {
        int folder = -1;  // where it is kept, on the tree's file system; -1: nobody wants it
        Lsn kept;         // for snapshots up to this one
    };
    virtual Result<Place> place_for(const IndexEntry& object) = 0;
    // The name by which it may be kept is taken away: it is told of again, or goes for good.
    virtual Result<int> folder_of(const IndexEntry& kept) = 0;
    // One more is kept.
    virtual void keeps(const IndexEntry& object, std::uint64_t bytes) = 0;
};

struct ApplyOptions {
    // While the first seed goes on, a name may be given to an object that has not been told of yet.
    enum class Tree : std::uint8_t { kComplete, kBeingSeeded } tree = Tree::kComplete;
    Keeper* keeper = nullptr;  // borrowed; none: what loses its last name goes
};

// EUCLEAN: the delta and the tree do not belong together: says which object, operation and Lsn.
Result<ApplyCounters> apply(const Delta& delta, Tree& tree, ObjectIndex& index,
                            const ApplyOptions& options);

}  // namespace twinspool
