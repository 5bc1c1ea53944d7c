// SPDX-License-Identifier: Apache-2.0
// The half of the sender that listens and keeps the time: acks, loss, going alone, coming back.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "journal/fault.h"
#include "replicator/sender.h"

namespace twinspool {
namespace {
constexpr std::chrono::milliseconds kWatchEvery{20};
constexpr Nanoseconds kLoadsWithin = std::chrono::minutes{10};
// A standby that is this close behind is waited for again; the rest comes while commits wait.
constexpr std::uint64_t kCloseEnough_records = 4096;
}  // namespace

void Sender::receive() {
    Message message;
    for (;;) {
        if (!receive_message(*transport_, message).ok()) break;
        if (message.type == MessageType::kTrouble) {
            heard_trouble(message.text());
        } else if (const auto ack = body_of<Ack>(message, MessageType::kAck); ack.ok()) {
            heard(*ack);
        } else {
            break;
        }
    }
    const std::lock_guard lock{mutex_};
    streaming_ = false;
    changed_.notify_all();
}

void Sender::heard_trouble(std::string_view text) {
    const std::lock_guard lock{mutex_};
    if (!text.empty() && trouble_ != text)
        spdlog::error("standby {}: cannot apply: {}", options_.target, text);
    trouble_ = text;
    cannot_apply_ = !text.empty();
    changed_.notify_all();
}

void Sender::heard(const Ack& ack) {
    {
        const std::lock_guard lock{mutex_};
        durable_ = std::max(durable_, Lsn{ack.durable});
        applied_ = std::max(applied_, Lsn{ack.applied});
        outstanding_.durable(durable_);
        if (durable_ + 1 >= Lsn{next_})
            unanswered_since_.reset();
        else
            unanswered_since_ = Clock::now();
        changed_.notify_all();
    }
    journal_.commit().standby_durable(options_.index, Lsn{ack.durable});
    catch_up(Lsn{ack.durable});
}

// Comes back into the count when it is close, and is in sync when it has all that was acknowledged
// without it.
void Sender::catch_up(Lsn durable) {
    std::unique_lock lock{mutex_};
    if (state_ != LinkState::kCatchingUp) return;
    const Lsn local = journal_.commit().local();
    if (!waited_for_) {
        if (local > durable && local - durable > kCloseEnough_records) return;
        waited_for_ = true;
        lock.unlock();
        count_it_or_not();
        if (journal_.take_credit(max_encoded_size(0)))
            journal_.append(
                StandbyOp{.standby = options_.index, .waited_for = 1, .since = durable});
        lock.lock();
        in_sync_from_ = journal_.commit().local();
    }
    if (durable >= in_sync_from_ && state_ == LinkState::kCatchingUp) move_to(LinkState::kInSync);
}

void Sender::disconnected(const Error& why) {
    const std::lock_guard lock{mutex_};
    if (stopping_) return;
    if (!cannot_apply_) trouble_ = why.text();
    spdlog::warn("standby {}: {}", options_.target, why.text());
    if (state_ == LinkState::kInSync || state_ == LinkState::kCatchingUp) {
        lost_since_ = unanswered_since_.value_or(Clock::now());
        move_to(waited_for_ ? LinkState::kConnecting : LinkState::kAlone);
    }
    unanswered_since_.reset();
}

void Sender::watch() {
    std::unique_lock lock{mutex_};
    while (!stopping_) {
        changed_.wait_for(lock, kWatchEvery, [this] { return stopping_; });
        const auto now = Clock::now();
        // Before it greets it reads its whole journal, which nobody waits for here.
        const Nanoseconds limit =
            greeted_ ? options_.standby_timeout : std::max(options_.standby_timeout, kLoadsWithin);
        if (unanswered_since_ && now - *unanswered_since_ >= limit && process_) {
            spdlog::warn(
                "standby {}: no answer for {} ms", options_.target,
                std::chrono::duration_cast<std::chrono::milliseconds>(now - *unanswered_since_)
                    .count());
            // It may be stopped, or hang on its disk: the link is given up, and it is killed.
            if (transport_) transport_->shutdown();
        }
        if (state_ == LinkState::kConnecting && waited_for_ &&
            now - lost_since_ >= options_.standby_timeout && !stopping_) {
            lock.unlock();
            go_alone();
            lock.lock();
        }
    }
}

void Sender::go_alone() {
    if (!journal_.take_credit(max_encoded_size(0))) return;  // the journal itself has failed
    const Lsn since = journal_.commit().standby(options_.index);
    const Lsn record =
        journal_.append(StandbyOp{.standby = options_.index, .waited_for = 0, .since = since});
    if (!journal_.make_durable(record).ok()) return;
    TS_FAULT(alone_durable);
    {
        const std::lock_guard lock{mutex_};
        // Back meanwhile: then the record is a true statement about a moment, no more.
        if (state_ != LinkState::kConnecting) return;
        waited_for_ = false;
        move_to(LinkState::kAlone);
    }
    count_it_or_not();
    spdlog::warn("standby {}: going on alone since record {}", options_.target, since.value);
}

// Going alone and coming back may overlap: whoever is last tells the commit how it is now.
void Sender::count_it_or_not() {
    const std::lock_guard count{count_mutex_};
    bool waited_for = false;
    {
        const std::lock_guard lock{mutex_};
        waited_for = waited_for_;
    }
    journal_.commit().set_waited_for(options_.index, waited_for);
}

bool Sender::wait_reached(Nanoseconds timeout) {
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, timeout, [this] { return reached_ || stopping_; }) && reached_;
}

Result<bool> Sender::wait_applied(Lsn lsn, Nanoseconds timeout) {
    std::unique_lock lock{mutex_};
    hurry_ = std::max(hurry_, lsn);
    changed_.notify_all();
    changed_.wait_for(lock, timeout,
                      [this, lsn] { return applied_ >= lsn || cannot_apply_ || stopping_; });
    if (applied_ >= lsn) return true;
    if (cannot_apply_)
        return make_error(EIO, "apply on the standby {}: {}", options_.target, trouble_);
    return false;
}

StandbyStatus Sender::status() const {
    const Lsn appended = journal_.appended();
    const std::lock_guard lock{mutex_};
    return {.state = state_,
            .target = options_.target,
            .connected = streaming_,
            .pid = process_ ? process_->pid() : 0,
            .durable = durable_,
            .applied = applied_,
            .lag_records = appended > durable_ ? appended - durable_ : 0,
            .lag_bytes = outstanding_.bytes(),
            .lag_seconds = outstanding_.seconds(Clock::now()),
            .sent_records = sent_records_,
            .sent_bytes = sent_bytes_,
            .trouble = trouble_,
            .cannot_apply = cannot_apply_,
            .waited_for = waited_for_};
}

Lsn Sender::needs_from() const {
    const std::lock_guard lock{mutex_};
    return keep_for_it_ ? durable_ + 1 : Lsn{~std::uint64_t{0}};
}

void Sender::give_up_catching_up() {
    const std::lock_guard lock{mutex_};
    if (keep_for_it_)
        spdlog::warn("standby {}: too far behind for the journal's limit; it will be seeded again",
                     options_.target);
    keep_for_it_ = false;
}

}  // namespace twinspool
