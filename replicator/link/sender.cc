// SPDX-License-Identifier: Apache-2.0
#include "replicator/link/sender.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "journal/base/fault.h"
#include "journal/format/frame.h"
#include "journal/log/segment.h"

namespace twinspool {
namespace {
constexpr std::chrono::milliseconds kFirstBackoff{20};
constexpr std::chrono::milliseconds kLongestBackoff{2000};
constexpr std::chrono::milliseconds kHeartbeatEvery{1000};
// A standby that is to be lost within less time than that must be asked more often.
constexpr int kHeartbeatsInTime = 4;
constexpr std::chrono::milliseconds kLastWords{200};
constexpr std::chrono::milliseconds kAnnounceAfter{2};
// Beyond that the writer does better to look after its disk.
constexpr std::size_t kSentAtOnce_bytes = std::size_t{64} << 10;
}  // namespace

Sender::Sender(SenderOptions options, Journal& journal)
    : options_(std::move(options)),
      heartbeat_every_(std::min<Nanoseconds>(
          kHeartbeatEvery,
          std::max<Nanoseconds>(options_.standby_timeout / kHeartbeatsInTime, kAnnounceAfter))),
      journal_(journal),
      lost_since_(Clock::now()),
      waited_for_(options_.wait) {}

Sender::~Sender() { stop(); }

void Sender::start() {
    journal_.commit().set_waited_for(options_.index, options_.wait);
    journal_.commit().observe(*this);
    journal_.attach(*this);
    runner_ = std::thread{[this] { run(); }};
    watcher_ = std::thread{[this] { watch(); }};
}

void Sender::stop() {
    if (!runner_.joinable()) return;
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
        if (transport_) transport_->shutdown();
    }
    options_.connector->cancel();
    changed_.notify_all();
    work_.notify_one();
    runner_.join();
    watcher_.join();
    journal_.detach(*this);
    journal_.commit().unobserve(*this);
    const std::lock_guard lock{mutex_};
    move_to(LinkState::kStopped);
    queue_.clear();
}

void Sender::move_to(LinkState state) {
    if (state_ == state) return;
    spdlog::info("standby {}: {} -> {}", options_.target, name_of(state_), name_of(state));
    if (state == LinkState::kInSync) progressed_ = true;
    transition(state_, state);
    changed_.notify_all();
}

// --- from the journal

void Sender::offer(const std::shared_ptr<const SealedFrame>& frame) {
    std::unique_lock lock{mutex_};
    outstanding_.sealed(frame->last, frame->bytes.size(), Clock::now());
    if (may_send_at_once(*frame)) {
        send_at_once(lock, *frame);
        return;
    }
    if (queueing_ && queue_.size() < kQueuedFrames) {
        queue_.push_back(frame);
    } else {
        queueing_ = false;
        queue_.clear();
    }
    work_.notify_one();
}

bool Sender::may_send_at_once(const SealedFrame& frame) const {
    return streaming_ && queueing_ && queue_.empty() && sends_ == Sends::kNobody && !stopping_ &&
           differs_.empty() && Lsn{next_} == frame.first &&
           frame.bytes.size() <= kSentAtOnce_bytes && transport_->has_room(frame.bytes.size());
}

void Sender::send_at_once(std::unique_lock<std::mutex>& lock, const SealedFrame& frame) {
    sends_ = Sends::kSealer;
    lock.unlock();
    const Status sent = send_frame(frame.bytes);
    lock.lock();
    sends_ = Sends::kNobody;
    if (!sent.ok()) streaming_ = false;  // the runner ends the session
    // It rests no longer: that this is committed will have to be announced soon.
    if (std::exchange(resting_, false) || stopping_ || !streaming_ || something_to_send())
        work_.notify_one();
}

void Sender::local_rose() {
    if (journal_.commit().local().value < next_.load()) return;
    const std::lock_guard lock{mutex_};
    work_.notify_one();
}

// --- the runner

void Sender::run() {
    auto backoff = kFirstBackoff;
    for (;;) {
        const auto began = Clock::now();
        const Status ended = session();
        std::unique_lock lock{mutex_};
        if (stopping_) return;
        if (Clock::now() - began > kLongestBackoff) backoff = kFirstBackoff;
        if (refused_) backoff = kLongestBackoff;
        changed_.wait_for(lock, backoff, [this] { return stopping_; });
        if (stopping_) return;
        backoff = std::min<std::chrono::milliseconds>(2 * backoff, kLongestBackoff);
    }
}

Status Sender::session() {
    Status status = connect();
    const bool connected = status.ok();
    if (status.ok()) status = handshake();
    std::thread receiver;
    if (status.ok()) {
        receiver = std::thread{[this] { receive(); }};
        status = stream();
    }
    std::unique_lock lock{mutex_};
    // What cannot be sent to any more may have said why before it went.
    if (receiver.joinable() && !stopping_)
        changed_.wait_for(lock, kLastWords, [this] { return stopping_ || !streaming_; });
    if (transport_) transport_->shutdown();
    streaming_ = false;
    queue_.clear();
    if (sends_ == Sends::kRunner) sends_ = Sends::kNobody;
    work_.wait(lock, [this] { return sends_ == Sends::kNobody; });  // not long: it is shut down
    const bool orderly = stopping_;
    lock.unlock();
    if (receiver.joinable()) receiver.join();
    // Before the process is waited for, which may hang on its disk as long as it likes.
    disconnected(status.ok() ? make_error(ECONNRESET, "keep the link") : status.error());
    if (connected) options_.connector->ended(orderly ? LinkEnd::kOrderly : LinkEnd::kLost);
    lock.lock();
    transport_.reset();
    cursor_.reset();
    return status;
}

Status Sender::connect() {
    {
        const std::lock_guard lock{mutex_};
        refused_ = greeted_ = silent_ = false;
        heard_last_.clear();
    }
    TS_ASSIGN(auto transport, options_.connector->connect());
    const std::lock_guard lock{mutex_};
    transport_ = std::move(transport);
    if (stopping_) transport_->shutdown();
    unanswered_since_ = Clock::now();
    return {};
}

// Called with mutex_ held.
bool Sender::something_to_send() const {
    const Lsn next{next_};
    return !queue_.empty() || journal_.commit().local() >= next || !queueing_ ||
           hurry_ > hurried_ || !differs_.empty();
}

Status Sender::stream() {
    // How far everything is, so that it knows how far behind it is.
    const Lsn committed = journal_.commit().committed();
    TS_TRY(send_body(*transport_, MessageType::kCommitted, LsnMessage{committed.value}));
    announced_ = committed;
    for (;;) {
        std::unique_lock lock{mutex_};
        if (sends_ == Sends::kRunner) sends_ = Sends::kNobody;
        // What has been sent will soon be committed, and the standby must hear of it.
        const bool expecting =
            announced_ < journal_.commit().committed() || announced_ + 1 < Lsn{next_};
        resting_ = !expecting;
        // What differs is said to the standby, which may have to read its disk anew.
        const auto over = [this] { return stopping_ || (!streaming_ && differs_.empty()); };
        work_.wait_for(lock, expecting ? Nanoseconds{kAnnounceAfter} : heartbeat_every_, [&] {
            return over() ||
                   (sends_ == Sends::kNobody && (something_to_send() || (!expecting && !resting_)));
        });
        resting_ = false;
        if (stopping_) return {};
        if (over()) return make_error(ECONNRESET, "hear from the standby");
        if (sends_ != Sends::kNobody) continue;
        sends_ = Sends::kRunner;
        lock.unlock();
        TS_TRY(send_something());
    }
}

Status Sender::send_something() {
    std::unique_lock lock{mutex_};
    if (!differs_.empty()) {
        const std::string why = differs_;
        lock.unlock();
        return refuse(why);
    }
    const Lsn next{next_};
    const Lsn local = journal_.commit().local();
    if (!queue_.empty() && queue_.front()->first <= next) {
        lock.unlock();
        return send_queued();
    }
    if (local >= next) {
        const Lsn until = queue_.empty() ? local : std::min(local, queue_.front()->first - 1);
        lock.unlock();
        return send_from_segments(until);
    }
    if (!queueing_) {
        queueing_ = true;  // a frame in flight now is read when it is durable
        return {};
    }
    const Lsn hurry = hurry_;
    lock.unlock();
    return send_small(hurry);
}

Status Sender::send_queued() {
    // Copied, so that no standby that takes its time holds a slot of the tail, which the writer may
    // be waiting for: what is pinned by all senders together is among the newest few frames.
    std::unique_lock lock{mutex_};
    auto frame = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    if (frame->last < Lsn{next_}) return {};
    sending_.assign(frame->bytes.begin(), frame->bytes.end());
    frame.reset();
    return send_frame(sending_);
}

Status Sender::send_from_segments(Lsn until) {
    // Behind what was sent from the queue: begin anew where that ended.
    if (!cursor_ || cursor_->position() != Lsn{next_}) {
        TS_ASSIGN(cursor_, Cursor::open(options_.journal_directory, options_.volume, Lsn{next_}));
    }
    const auto frame = cursor_->next(until);
    // Recycled while it was read: what was read may be anything, and is not damage.
    if (journal_.oldest() > Lsn{next_})
        return make_error(ENODATA, "send record {}: journal_limit has let it go", next_.load());
    if (!frame.ok()) return frame.error();
    if (!*frame) return make_error(EBADMSG, "read record {} from the journal", next_.load());
    return send_frame((*frame)->stored);
}

Status Sender::send_frame(Bytes bytes) {
    const FrameHeader header = header_of(bytes);
    {
        const std::lock_guard lock{mutex_};
        if (!unanswered_since_) unanswered_since_ = Clock::now();
        last_sent_ = Clock::now();
        chains_.sent({Lsn{header.first_lsn + header.record_count - 1}, Chain{header.checksum}});
    }
    TS_TRY(send_message(*transport_, MessageType::kFrame, bytes));
    const std::lock_guard lock{mutex_};
    next_ = header.first_lsn + header.record_count;
    announced_ = std::max(announced_, Lsn{header.committed});
    sent_records_ += header.record_count;
    sent_bytes_ += bytes.size();
    return {};
}

// What is due when no frame is: committed, hurry, a heartbeat.
Status Sender::send_small(Lsn hurry) {
    const Lsn committed = journal_.commit().committed();
    if (committed > announced_) {
        TS_TRY(send_body(*transport_, MessageType::kCommitted, LsnMessage{committed.value}));
        announced_ = committed;
    }
    if (hurry > hurried_) {
        TS_TRY(send_body(*transport_, MessageType::kHurry, LsnMessage{hurry.value}));
        const std::lock_guard lock{mutex_};
        hurried_ = hurry;
    }
    std::unique_lock lock{mutex_};
    if (Clock::now() - last_sent_ < heartbeat_every_) return {};
    last_sent_ = Clock::now();
    if (!unanswered_since_) unanswered_since_ = last_sent_;
    lock.unlock();
    return send_message(*transport_, MessageType::kHeartbeat, {});
}

}  // namespace twinspool
