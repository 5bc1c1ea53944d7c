// SPDX-License-Identifier: Apache-2.0
// Commit: the one place where durability is decided. Watermarks (local, one per standby),
// and one queue of waiters ordered by Lsn. They only rise, but for that of a standby that is told
// anew.
//
// Invariants: committed() never falls; it never passes local(); it never passes the watermarks of
// the standbys that are waited for (kAll: of any of them; kAny: of all of them). A waiter is
// answered exactly once, from the thread that moved the watermark (or from wait() itself), with no
// lock held. Threads: any. Lock: `mutex_`, protects everything here; only observers' own are taken
// under it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"

namespace twinspool {

enum class CommitMode : std::uint8_t { kFsync, kEvery, kAsync };
// Where several standbys are waited for: all of them, or any one.
enum class AckRule : std::uint8_t { kAll, kAny };

// Owned by who waits; must live until answered() is called, which may free it.
class CommitWaiter {
   public:
    virtual ~CommitWaiter() = default;
    // error: 0, or the errno for which the wait is given up.
    virtual void answered(int error) = 0;

   private:
    friend class Commit;
    Lsn lsn_;
    CommitWaiter* previous_ = nullptr;
    CommitWaiter* next_ = nullptr;
};

class Commit {
   public:
    // `local`, `committed`: what recovery found.
    Commit(CommitMode mode, std::uint32_t standby_count, Lsn local, Lsn committed,
           AckRule rule = AckRule::kAll);

    // Answers when committed() has reached lsn; who seals (the writer) hears that it is wanted.
    void wait(CommitWaiter& waiter, Lsn lsn);
    // The same for the local watermark only (used for records about the standbys themselves).
    Status wait_local(Lsn lsn);
    // Blocks the calling thread; false on time-out.
    Result<bool> wait_committed(Lsn lsn, Nanoseconds timeout);

    void local_durable(Lsn lsn);
    void standby_durable(std::uint32_t standby, Lsn lsn);
    // From now on this standby counts, or does not.
    void set_waited_for(std::uint32_t standby, bool waited_for);
    [[nodiscard]] bool waited_for(std::uint32_t standby) const;
    void fail(int error);

    [[nodiscard]] Lsn local() const { return Lsn{local_.load(std::memory_order_acquire)}; }
    [[nodiscard]] Lsn committed() const { return Lsn{committed_.load(std::memory_order_acquire)}; }
    [[nodiscard]] Lsn standby(std::uint32_t standby) const;
    // The highest Lsn that somebody waits for.
    [[nodiscard]] Lsn wanted() const { return Lsn{wanted_.load()}; }
    [[nodiscard]] int failure() const { return failure_.load(std::memory_order_acquire); }
    [[nodiscard]] CommitMode mode() const { return mode_; }

    // Called under `mutex_` when one of them rises: wake somebody, no more.
    class Observer {
       public:
        virtual ~Observer() = default;
        virtual void local_rose() {}
        virtual void committed_rose() {}
    };
    void observe(Observer& observer);
    void unobserve(Observer& observer);

    // Called when wanted() has risen, on the thread that wants it and with no lock held, so that it
    // may do itself what has to be done first. Lives as long as anybody may wait.
    class Sealer {
       public:
        virtual ~Sealer() = default;
        virtual void wanted_rose() = 0;
    };
    void seal_by(Sealer& sealer) { sealer_ = &sealer; }

   private:
    struct Watermark {
        Lsn durable;
        bool waited_for = false;
    };
    bool raise_wanted(Lsn lsn);  // mutex_ held
    void tell_sealer();
    void remove(CommitWaiter& waiter);
    CommitWaiter* take_answered();  // the answered prefix of the queue; mutex_ held
    static void answer(CommitWaiter* list, int error);
    [[nodiscard]] Lsn reached() const;  // by all that counts now; mutex_ held
    void advance(std::unique_lock<std::mutex> lock);

    const CommitMode mode_;
    const AckRule rule_;
    mutable std::mutex mutex_;
    std::condition_variable local_rose_;
    std::vector<Watermark> standbys_;
    CommitWaiter* head_ = nullptr;
    CommitWaiter* tail_ = nullptr;
    std::vector<Observer*> observers_;
    std::atomic<Sealer*> sealer_{nullptr};
    std::atomic<std::uint64_t> local_;
    std::atomic<std::uint64_t> committed_;
    std::atomic<std::uint64_t> wanted_;
    std::atomic<int> failure_{0};
};

}  // namespace twinspool
