// SPDX-License-Identifier: Apache-2.0
// Applier: moves a standby's tree along its journal, never past what is committed. Reads frames,
// works out their delta, changes the tree, syncs it, and commits the new position with the
// catalogue. What fails in between is done again, from the committed position, by a later attempt.
// Before the tree is changed, history (replicator/store/history.h) keeps what the newest snapshot
// needs; a range ends at a mark.
//
// Invariants: applied() never falls; it is durable, with the tree, when it is announced.
// A range waits a little (`delay`, longer after long work) so that what is short-lived in it costs
// nothing; hurry() takes the waiting away. Memory is bounded by batch_bytes and batch_records.
// Threads: one of its own, at low priority, from start() to finish(). committed(), hurry(),
// applied(), error(), seeded_generation() from any thread. Locks: work_mutex_ (the tree, the
// catalogue, the cursor) before mutex_ (what is wanted, and the last error).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/delta/apply.h"
#include "journal/format/finding.h"
#include "journal/log/cursor.h"
#include "replicator/store/catalogue.h"
#include "replicator/store/database.h"
#include "replicator/store/history.h"

namespace twinspool {

struct ApplierOptions {
    std::string store;
    std::uint64_t volume = 0;
    // After each step forward, and when error() changed; no lock is held.
    std::function<void(Lsn)> on_applied;
    // Checks that were not met, or could not be made, of the range that is announced next: called
    // before applied() covers them. On the applier's thread (or that of run_until()), with its work
    // lock held: it may not call the applier. None are lost but by a process that ends.
    std::function<void(const std::vector<Finding>&)> on_findings;
    Nanoseconds delay{std::chrono::milliseconds{200}};
    std::uint64_t batch_bytes = std::uint64_t{64} << 20;
    std::uint64_t batch_records = 200'000;
    std::uint64_t batch_check_bytes = std::uint64_t{256}
                                      << 20;  // of content, to be read for checks
    // Which snapshots may go when the disk is full, before history is given up.
    std::function<std::vector<Lsn>(const std::vector<Snapshot>&)> superfluous;
    std::function<Status()> on_step;  // see Tree::Options; for tests
};

// Where a telling begins: the records behind `position` are applied to what is there.
struct ResyncStart {
    Position position;               // the journal's records begin behind it, or earlier
    std::uint32_t generation = 0;    // that is told
    std::uint32_t epoch_number = 0;  // of the record at `position`
    std::uint64_t epoch_id = 0;
};

// What the store is, for the primary. Durable.
struct StoreState {
    Position applied;          // the chain is 0 if it is not at the end of a frame
    std::uint32_t seeded = 0;  // generation whose telling has been applied completely; 0: none
    std::uint32_t told = 0;    // generation that the store was begun, or resynced, in; 0: unknown
    bool resyncing = false;    // the tree is a mixture until `told` has been applied completely
    std::uint32_t epoch_number = 0;  // of the record that the store begins behind; 0: unknown
    std::uint64_t epoch_id = 0;
    Lsn before_resync;  // while resyncing: the internal snapshot of what was there; 0: none
};

class Applier {
   public:
    // Finishes a reset that was interrupted. ENOTEMPTY: there is a tree, and no catalogue of it.
    static Result<std::unique_ptr<Applier>> open(ApplierOptions options);
    ~Applier();
    Applier(const Applier&) = delete;
    Applier& operator=(const Applier&) = delete;

    // The store is about to be emptied.
    Status abandon_snapshots();
    // An empty store stands here: its journal begins after this position.
    Status begin_at(Position position);
    // The same, and which generation is told from there on: state() knows it.
    Status begin_seed(const ResyncStart& start);

    // The store has a tree that is older than what the primary's journal begins with. Keeps the
    // tree and its snapshots; from now on the position is that of `start`, and the tree counts as a
    // mixture until that generation is told (or a later one). What was there, if it was consistent,
    // is the snapshot `before-resync-<applied>` until then. The caller has applied all that is
    // committed of its old journal, and removes that journal only afterwards: killed before this
    // returns, all is as it was; killed after it, applied() is behind that journal's end. Before
    // start(), or while nothing is to be applied. EINVAL: the position is before applied().
    Status begin_resync(const ResyncStart& start);
    // As of the last commit.
    [[nodiscard]] StoreState state() const;
    [[nodiscard]] bool resyncing() const { return state().resyncing; }

    void start();
    // What may be applied; the highest counts.
    void committed(Lsn limit);
    // Somebody waits for this Lsn, or wants a failed attempt to be made again.
    void hurry(Lsn wanted);
    // Applies what is committed and ends the thread.
    void finish();

    // In the caller's thread: applies all whole frames up to `limit`.
    Status run_until(Lsn limit);

    // The end of the range that was last begun: see Catalogue::begin(). Before start() only.
    [[nodiscard]] Lsn begun() const { return catalogue_->begun(); }
    [[nodiscard]] Lsn applied() const { return Lsn{applied_.load(std::memory_order_acquire)}; }
    [[nodiscard]] std::uint32_t seeded_generation() const {
        return seeded_.load(std::memory_order_acquire);
    }
    // Of the last attempt.
    [[nodiscard]] Status error() const;
    // As of the last commit, oldest first; and a counter that rises when more of the list has
    // changed than the space.
    [[nodiscard]] std::vector<Snapshot> snapshots() const;
    [[nodiscard]] std::uint64_t snapshots_version() const;
    // In the caller's thread: removes all that no snapshot needs, as far as nobody reads it.
    Status tidy_up();

   private:
    explicit Applier(ApplierOptions options);
    void run();
    void stop_thread();
    [[nodiscard]] bool something_to_do() const;  // mutex_ held
    void attempt(std::unique_lock<std::mutex>& lock);
    Result<bool> apply_batch(Lsn limit);
    // Where a range ends, and when the primary sealed the frame there.
    struct RangeEnd {
        Position position;
        std::int64_t time = 0;
    };
    Status read_batch(Delta& delta, RangeEnd& end, Lsn limit);
    Status keep_and_apply(const Delta& delta, const RangeEnd& end);
    Status apply_delta(const Delta& delta, const RangeEnd& end);
    void make_checks(const Delta& delta);
    [[nodiscard]] bool stops() const;
    Status stand_at(Position position);
    void publish_state();
    [[nodiscard]] bool disk_is_nearly_full(std::uint64_t coming) const;
    Status make_room();
    void publish_snapshots();
    // What is to be done when nothing is to be applied. False: nothing is left for now.
    bool tidy_up_some();
    void idle(std::unique_lock<std::mutex>& lock);

    const ApplierOptions options_;
    std::mutex work_mutex_;
    std::unique_ptr<Tree> tree_;
    std::optional<Progress> progress_;
    std::unique_ptr<Database> database_;
    std::unique_ptr<Catalogue> catalogue_;
    std::unique_ptr<History> history_;
    std::optional<Cursor> cursor_;

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    Lsn limit_;
    Lsn tried_;  // all whole frames up to here are applied
    Lsn hurried_;
    std::uint64_t hurries_ = 0;
    Nanoseconds rest_;  // before the next attempt, unless somebody is in a hurry
    enum class Stop { kNo, kAfterApplying, kNow } stop_ = Stop::kNo;
    std::optional<Error> error_;
    StoreState state_;
    std::vector<Snapshot> snapshots_;
    std::uint64_t snapshots_version_ = 0;
    bool untidy_ = true;  // there may be something that no snapshot needs

    std::atomic<std::uint64_t> applied_{0};
    std::atomic<std::uint32_t> seeded_{0};
    std::thread thread_;
};

// Empties the tree and the catalogue of a store whose applier is closed: before it is seeded from
// scratch. The journal there is the receiver's. Interrupted, it is finished by Applier::open().
Status reset_store(const std::string& store);

}  // namespace twinspool
