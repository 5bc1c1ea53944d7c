// SPDX-License-Identifier: Apache-2.0
// The part of the sender that listens: acks, findings, coming back.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "replicator/link/sender.h"

namespace twinspool {
namespace {
// A standby that is this close behind is waited for again; the rest comes while commits wait.
constexpr std::uint64_t kCloseEnough_records = 4096;

// A name in it may hold anything but that.
bool is_text(std::string_view text) { return text.find('\0') == std::string_view::npos; }

}  // namespace

void Sender::receive() {
    Message message;
    Status status;
    while (status.ok()) {
        status = receive_message(*transport_, message);
        if (status.ok()) status = take(message);
    }
    const std::lock_guard lock{mutex_};
    streaming_ = false;
    if (heard_last_.empty() && status.error().code != ECONNRESET)
        heard_last_ = status.error().text();
    changed_.notify_all();
    work_.notify_one();
}

Status Sender::take(const Message& message) {
    switch (message.type) {
        case MessageType::kTrouble:
            // Without TLS a bit can make it of another message, which would then be believed.
            if (!is_text(message.text()))
                return make_error(EBADMSG, "understand the other side: what it says is no text");
            heard_trouble(message.text());
            return {};
        case MessageType::kSnapshots:
            return heard_snapshots(message);
        case MessageType::kFindings: {
            TS_ASSIGN(const auto findings, findings_of(message));
            if (options_.on_findings) options_.on_findings(findings);
            return {};
        }
        case MessageType::kRefuse: {
            const std::lock_guard lock{mutex_};
            refused_ = true;
            return make_error(EREMOTEIO, "keep the link: the standby says: {}", message.text());
        }
        default: {
            TS_ASSIGN(const auto ack, body_of<Ack>(message, MessageType::kAck));
            return heard(ack);
        }
    }
}

void Sender::heard_trouble(std::string_view text) {
    const std::lock_guard lock{mutex_};
    if (!text.empty() && trouble_ != text)
        spdlog::error("standby {}: cannot apply: {}", options_.target, text);
    trouble_ = text;
    cannot_apply_ = !text.empty();
    changed_.notify_all();
}

Status Sender::heard_snapshots(const Message& message) {
    TS_ASSIGN(auto told, snapshots_of(message));
    const std::lock_guard lock{mutex_};
    snapshots_ = std::move(told);
    return {};
}

Status Sender::heard(const Ack& ack) {
    Lsn durable;
    {
        const std::lock_guard lock{mutex_};
        if (!chains_.acknowledged({Lsn{ack.durable}, Chain{ack.chain}})) {
            differs_ = fmt::format("record {}: the standby's bytes differ from ours", ack.durable);
            spdlog::error("standby {}: {}", options_.target, differs_);
            work_.notify_one();
            return make_error(EBADMSG, "{}", differs_);
        }
        progressed_ |= Lsn{ack.durable} > durable_;
        durable_ = std::max(durable_, Lsn{ack.durable});
        durable = durable_;
        // Given up when the journal was full, and yet it got what it lacked.
        keep_for_it_ |= durable_ + 1 >= journal_.oldest();
        if (Lsn{ack.applied} > applied_) {
            applied_ = Lsn{ack.applied};
            changed_.notify_all();
        }
        outstanding_.durable(durable_);
        if (durable_ + 1 >= Lsn{next_})
            unanswered_since_.reset();
        else
            unanswered_since_ = Clock::now();
    }
    journal_.commit().standby_durable(options_.index, durable);
    catch_up(durable);
    if (options_.on_applied) options_.on_applied(Lsn{ack.applied});
    return {};
}

// Comes back into the count when it is close, and is in sync when it has all that was acknowledged
// without it.
void Sender::catch_up(Lsn durable) {
    std::unique_lock lock{mutex_};
    if (state_ != LinkState::kCatchingUp) return;
    const Lsn local = journal_.commit().local();
    if (!waited_for_ && options_.wait) {
        // A greeting alone does not make anybody wait: it has to take something first.
        if (local > durable && (!progressed_ || local - durable > kCloseEnough_records)) return;
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
    work_.notify_one();
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
    std::optional<double> estimate;
    if (state_ == LinkState::kCatchingUp)
        estimate = pace_.seconds(appended > durable_ ? appended - durable_ : 0, Clock::now());
    return {.state = state_,
            .target = options_.target,
            .connected = streaming_,
            .pid = options_.connector->pid(),
            .durable = durable_,
            .applied = applied_,
            .lag_records = appended > durable_ ? appended - durable_ : 0,
            .lag_bytes = outstanding_.bytes(),
            .lag_seconds = outstanding_.seconds(Clock::now()),
            .sent_records = sent_records_,
            .sent_bytes = sent_bytes_,
            .trouble = trouble_now(),
            .cannot_apply = cannot_apply_,
            .waited_for = waited_for_,
            .wait = options_.wait,
            .resyncing = resyncing_,
            .catch_up_seconds = estimate};
}

std::string Sender::trouble_now() const {
    std::string text;
    for (const std::string* each : {&differs_, &trouble_, &hold_})
        if (!each->empty()) text += (text.empty() ? "" : "; ") + *each;
    return text;
}

std::optional<ToldSnapshots> Sender::snapshots() const {
    const std::lock_guard lock{mutex_};
    return snapshots_;
}

Lsn Sender::needs_from() const {
    const std::lock_guard lock{mutex_};
    return keep_for_it_ ? durable_ + 1 : Lsn{~std::uint64_t{0}};
}

void Sender::give_up_catching_up() {
    const std::lock_guard lock{mutex_};
    if (keep_for_it_ && !std::exchange(said_given_up_, true))
        spdlog::warn(
            "standby {}: too far behind for the journal's limit; it is compared by hash when it is "
            "back",
            options_.target);
    keep_for_it_ = false;
}

}  // namespace twinspool
