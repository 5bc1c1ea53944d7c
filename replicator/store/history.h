// SPDX-License-Identifier: Apache-2.0
// History: what a standby keeps so that its snapshots can be read: before-images in the database,
// and the files that lost their last name in STORE/kept/<upto>-<after>/.
//
// Everything that is kept belongs to a Span (replicator/store/keys.h). A span that no living
// snapshot is in is garbage, and purged by and by. So destroying a snapshot rewrites nothing: what
// it shares with others stays where it is.
//
// Order, which readers rely on: keep() makes before-images durable and lets the progress counter
// rise; only then the tree may be changed. Interrupted anywhere, the same is done again: what has
// been kept for the newest snapshot is not kept again.
// One thread (the applier's).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "journal/delta/apply.h"
#include "journal/delta/delta.h"
#include "journal/delta/tree.h"
#include "replicator/store/catalogue.h"
#include "replicator/store/database.h"
#include "replicator/store/progress.h"

namespace twinspool {

class History final : public Keeper {
   public:
    struct Parts {
        std::string store;
        Progress& progress;
        Database& database;
        Catalogue& catalogue;
        Tree& tree;
    };
    // Before anything of the store is opened: gives the ballast up if there is hardly any other
    // space. It is what the catalogue needs to begin, and then to give the history up.
    static void drop_ballast_if_full(const std::string& store);
    static Result<std::unique_ptr<History>> open(const Parts& parts);

    // The before-images, for the newest snapshot, of all that the delta is going to change.
    // Durable.
    Status keep(const Delta& delta);

    Result<Place> place_for(const IndexEntry& object) override;
    Result<int> folder_of(const IndexEntry& kept) override;
    void keeps(const IndexEntry& object, std::uint64_t bytes) override;

    // What the next commit of the catalogue must write too; then committed(), or dropped().
    [[nodiscard]] Batch totals_to_commit() const;
    void committed();
    void dropped();

    // Destroys those doomed that nobody reads, and removes some of what nobody needs any more.
    // False: nothing is left to do, except for what others hold (see waits_for_readers()).
    Result<bool> tidy_up();
    [[nodiscard]] bool waits_for_readers() const { return waits_; }
    // Everything kept goes, at once; the snapshots that live are broken from now on.
    Status give_up();
    // The store is about to be emptied: nobody reads from it any more.
    Status abandon() { return parts_.progress.break_upto(parts_.catalogue.newest_kept()); }

    // With the space that destroying each would free. Those doomed are left out.
    [[nodiscard]] std::vector<Snapshot> snapshots() const;

   private:
    friend class BeforeImages;
    explicit History(const Parts& parts) : parts_(parts) {}
    Status load();
    Result<Fd> open_folder(const Span& span);
    Result<bool> destroy_doomed();
    [[nodiscard]] bool is_garbage(const Span& span) const;
    Result<bool> purge_some(const Span& span);
    Result<bool> purge_entries(const Span& span, Batch& batch);
    Result<bool> purge_files(const Span& span);
    Status remove_kept(int folder, const std::string& name);
    void keep_ballast() const;

    const Parts parts_;
    Fd kept_;  // STORE/kept
    std::map<Span, Totals> totals_;
    std::map<Span, std::uint64_t> kept_now_;  // bytes of files, since the last commit
    std::map<Span, Fd> folders_;              // open ones
    bool waits_ = false;
    // Sizes of objects at the newest snapshot whose attributes are kept for it.
    Lsn sizes_of_;
    std::unordered_map<ObjectId, std::uint64_t> sizes_;
};

}  // namespace twinspool
