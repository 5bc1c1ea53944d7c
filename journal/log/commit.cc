// SPDX-License-Identifier: Apache-2.0
#include "journal/log/commit.h"

#include <algorithm>
#include <condition_variable>
#include <optional>

#include "journal/base/fault.h"

namespace twinspool {
namespace {

// A thread that blocks for an Lsn, instead of a request that is answered.
class BlockedThread final : public CommitWaiter {
   public:
    void answered(int error) override {
        const std::lock_guard lock{mutex_};
        error_ = error;
        done_ = true;
        wake_.notify_all();
    }
    bool wait_for(Nanoseconds timeout) {
        std::unique_lock lock{mutex_};
        return wake_.wait_for(lock, timeout, [this] { return done_; });
    }
    [[nodiscard]] int error() const { return error_; }

   private:
    std::mutex mutex_;
    std::condition_variable wake_;
    bool done_ = false;
    int error_ = 0;
};

}  // namespace

Commit::Commit(CommitMode mode, std::uint32_t standby_count, Lsn local, Lsn committed, AckRule rule)
    : mode_(mode),
      rule_(rule),
      standbys_(standby_count),
      local_(local.value),
      committed_(committed.value),
      wanted_(0) {
    // All standbys count until they have been heard, or been given up.
    for (auto& standby : standbys_) standby.waited_for = mode != CommitMode::kAsync;
    if (standbys_.empty() || mode == CommitMode::kAsync) committed_ = local.value;
}

void Commit::wait(CommitWaiter& waiter, Lsn lsn) {
    std::unique_lock lock{mutex_};
    const int error = failure();
    if (error != 0 || committed() >= lsn) {
        lock.unlock();
        waiter.answered(error);
        return;
    }
    waiter.lsn_ = lsn;
    CommitWaiter* before = tail_;
    while (before != nullptr && before->lsn_ > lsn) before = before->previous_;
    waiter.previous_ = before;
    waiter.next_ = before == nullptr ? head_ : before->next_;
    (waiter.next_ == nullptr ? tail_ : waiter.next_->previous_) = &waiter;
    (before == nullptr ? head_ : before->next_) = &waiter;
    if (!raise_wanted(lsn)) return;
    lock.unlock();
    tell_sealer();
}

Status Commit::wait_local(Lsn lsn) {
    std::unique_lock lock{mutex_};
    if (raise_wanted(lsn)) {
        lock.unlock();
        tell_sealer();
        lock.lock();
    }
    local_rose_.wait(lock, [this, lsn] { return local() >= lsn || failure() != 0; });
    if (failure() != 0) return make_error(failure(), "write the journal");
    return {};
}

// Sequentially consistent: the sealer looks at it after it has said that it is no longer busy.
bool Commit::raise_wanted(Lsn lsn) {
    if (wanted_.load(std::memory_order_relaxed) >= lsn.value) return false;
    wanted_.store(lsn.value);
    return true;
}

void Commit::tell_sealer() {
    if (Sealer* const sealer = sealer_) sealer->wanted_rose();
}

Result<bool> Commit::wait_committed(Lsn lsn, Nanoseconds timeout) {
    BlockedThread thread;
    wait(thread, lsn);
    if (!thread.wait_for(timeout)) {
        {
            const std::lock_guard lock{mutex_};
            for (CommitWaiter* each = head_; each != nullptr; each = each->next_) {
                if (each != &thread) continue;
                remove(*each);
                return false;
            }
        }
        // No longer queued: it is being answered this moment.
        (void)thread.wait_for(std::chrono::hours{1});
    }
    if (thread.error() != 0) return make_error(thread.error(), "write the journal");
    return true;
}

void Commit::remove(CommitWaiter& waiter) {
    (waiter.previous_ == nullptr ? head_ : waiter.previous_->next_) = waiter.next_;
    (waiter.next_ == nullptr ? tail_ : waiter.next_->previous_) = waiter.previous_;
}

void Commit::local_durable(Lsn lsn) {
    std::unique_lock lock{mutex_};
    TS_ASSERT(lsn >= local());
    local_.store(lsn.value, std::memory_order_release);
    local_rose_.notify_all();
    for (Observer* observer : observers_) observer->local_rose();
    advance(std::move(lock));
}

void Commit::standby_durable(std::uint32_t standby, Lsn lsn) {
    std::unique_lock lock{mutex_};
    standbys_[standby].durable = lsn;
    advance(std::move(lock));
}

void Commit::set_waited_for(std::uint32_t standby, bool waited_for) {
    std::unique_lock lock{mutex_};
    standbys_[standby].waited_for = waited_for && mode_ != CommitMode::kAsync;
    advance(std::move(lock));
}

bool Commit::waited_for(std::uint32_t standby) const {
    const std::lock_guard lock{mutex_};
    return standbys_[standby].waited_for;
}

Lsn Commit::standby(std::uint32_t standby) const {
    const std::lock_guard lock{mutex_};
    return standbys_[standby].durable;
}

void Commit::fail(int error) {
    CommitWaiter* all = nullptr;
    {
        const std::lock_guard lock{mutex_};
        if (failure() != 0) return;
        failure_.store(error, std::memory_order_release);
        all = std::exchange(head_, nullptr);
        tail_ = nullptr;
        local_rose_.notify_all();
    }
    answer(all, error);
}

Lsn Commit::reached() const {
    std::optional<Lsn> there;
    for (const Watermark& standby : standbys_) {
        if (!standby.waited_for) continue;
        if (!there)
            there = standby.durable;
        else
            there = rule_ == AckRule::kAny ? std::max(*there, standby.durable)
                                           : std::min(*there, standby.durable);
    }
    return there ? std::min(local(), *there) : local();
}

void Commit::advance(std::unique_lock<std::mutex> lock) {
    const Lsn now = reached();
    if (now <= committed() || failure() != 0) return;
    committed_.store(now.value, std::memory_order_release);
    CommitWaiter* list = take_answered();
    for (Observer* observer : observers_) observer->committed_rose();
    lock.unlock();
    TS_FAULT(commit_advanced);
    answer(list, 0);
}

CommitWaiter* Commit::take_answered() {
    CommitWaiter* const list = head_;
    CommitWaiter* last = nullptr;
    while (head_ != nullptr && head_->lsn_ <= committed()) {
        last = head_;
        head_ = head_->next_;
    }
    if (last == nullptr) return nullptr;
    last->next_ = nullptr;
    (head_ == nullptr ? tail_ : head_->previous_) = nullptr;
    return list;
}

void Commit::answer(CommitWaiter* list, int error) {
    while (list != nullptr) {
        CommitWaiter* const next = list->next_;  // answered() may free it
        list->answered(error);
        list = next;
    }
}

void Commit::observe(Observer& observer) {
    const std::lock_guard lock{mutex_};
    observers_.push_back(&observer);
}

void Commit::unobserve(Observer& observer) {
    const std::lock_guard lock{mutex_};
    std::erase(observers_, &observer);
}

}  // namespace twinspool
