// SPDX-License-Identifier: Apache-2.0
// Catalogue: what a standby's store knows besides its plain files: where each object is (by file
// handle), the volume's directories, the position up to which the tree is applied, the newest
// complete seed, and the snapshots. replicator/store/keys.h has the keys.
//
// Invariant: what is changed counts from commit() on, together with the position; until then only
// this object shows it. So the catalogue on disk is always that of its position.
// One thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/delta/delta.h"
#include "journal/delta/tree.h"
#include "replicator/store/database.h"
#include "replicator/store/keys.h"
#include "replicator/store/records.h"

namespace twinspool {

class Catalogue : public ObjectIndex {
   public:
    // EINVAL: it is another volume's, or of a later version. The database outlives it.
    static Result<std::unique_ptr<Catalogue>> open(Database& database, std::uint64_t volume);

    Result<std::optional<IndexEntry>> find(ObjectId object) override;
    Status put(ObjectId object, const IndexEntry& entry) override;
    Status erase(ObjectId object) override;

    [[nodiscard]] Position applied() const;
    [[nodiscard]] std::uint32_t seeded() const;  // generation; 0: never
    [[nodiscard]] const Beginning& telling() const { return telling_; }
    [[nodiscard]] bool fresh() const { return fresh_; }  // made just now, and nothing committed yet

    // The end of the range that is about to be applied; outlives the process, not the power. After
    // an interrupted apply no shorter range may be applied, because the tree may have effects of
    // all of it.
    Status begin(Lsn end);
    [[nodiscard]] Lsn begun() const { return begun_; }

    // --- snapshots
    [[nodiscard]] const SnapshotRecords& snapshots() const { return snapshots_; }
    // The newest that history is kept for; 0: none.
    [[nodiscard]] Lsn newest_kept() const;
    // Takes in what the range says of the volume's directories, of marks, and of the end of a
    // telling: that ends a resync, and what was there before it is doomed.
    void take(const Delta& delta);
    // What stands at applied(), if it was told completely, becomes a snapshot until then.
    enum class Before : std::uint8_t { kKept, kLost };
    void begin_resync(const Beginning& telling, Before before);
    void begin_telling(const Beginning& telling) { telling_ = telling; }
    void doom(Lsn number);
    void destroy(Lsn number);
    void break_upto(Lsn number);  // those up to this one cannot be read from now on

    struct Commit {
        Position applied;
        std::optional<std::uint32_t> seeded;
        std::optional<std::int64_t> time;  // of the frame
    };
    // Durable when it returns, with `more`.
    Status commit(const Commit& commit, Batch more = {});
    // The same, where the position stays.
    Status commit_in_place(Batch more = {});
    void drop();  // what is not committed

   private:
    explicit Catalogue(Database& database) : database_(database) {}
    Status load(std::uint64_t volume);
    Status load_lists();
    void add_snapshot(Snapshot snapshot);
    void put_changes(Batch& batch) const;

    Database& database_;
    State state_;
    Lsn begun_;
    bool fresh_ = true;
    std::unordered_map<ObjectId, std::optional<IndexEntry>> changes_;
    std::map<std::string, ObjectId> roots_;
    std::map<std::string, ObjectId> committed_roots_;
    SnapshotRecords snapshots_;
    SnapshotRecords committed_snapshots_;
    Lsn newest_mark_;
    Beginning telling_;
    Lsn broken_upto_;
};

}  // namespace twinspool
