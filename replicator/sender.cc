// SPDX-License-Identifier: Apache-2.0
#include "replicator/sender.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "journal/fault.h"
#include "journal/frame.h"
#include "journal/segment.h"

namespace twinspool {
namespace {
constexpr std::chrono::milliseconds kFirstBackoff{20};
constexpr std::chrono::milliseconds kLongestBackoff{2000};
constexpr std::chrono::milliseconds kHeartbeatEvery{1000};
constexpr std::chrono::milliseconds kAnnounceAfter{2};
constexpr std::chrono::seconds kFinishWithin{60};
}  // namespace

Sender::Sender(SenderOptions options, Journal& journal)
    : options_(std::move(options)), journal_(journal), lost_since_(Clock::now()) {}

Sender::~Sender() { stop(); }

void Sender::start() {
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
    changed_.notify_all();
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
    transition(state_, state);
    changed_.notify_all();
}

// --- from the journal

void Sender::offer(const std::shared_ptr<const SealedFrame>& frame) {
    const std::lock_guard lock{mutex_};
    outstanding_.sealed(frame->last, frame->bytes.size(), Clock::now());
    if (queueing_ && queue_.size() < kQueuedFrames) {
        queue_.push_back(frame);
    } else {
        queueing_ = false;
        queue_.clear();
    }
    changed_.notify_all();
}

void Sender::local_rose() {
    if (journal_.commit().local().value < next_.load()) return;
    const std::lock_guard lock{mutex_};
    changed_.notify_all();
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
        changed_.wait_for(lock, backoff, [this] { return stopping_; });
        if (stopping_) return;
        backoff = std::min<std::chrono::milliseconds>(2 * backoff, kLongestBackoff);
    }
}

Status Sender::session() {
    Status status = connect();
    if (status.ok()) status = handshake();
    std::thread receiver;
    if (status.ok()) {
        receiver = std::thread{[this] { receive(); }};
        status = stream();
    }
    std::unique_lock lock{mutex_};
    if (transport_) transport_->shutdown();
    streaming_ = false;
    queue_.clear();
    const bool orderly = stopping_;
    lock.unlock();
    if (receiver.joinable()) receiver.join();
    // Before the process is waited for, which may hang on its disk as long as it likes.
    disconnected(status.ok() ? make_error(ECONNRESET, "keep the link") : status.error());
    if (process_) {
        if (orderly)
            process_->finish(kFinishWithin);
        else
            process_->kill();
    }
    lock.lock();
    process_.reset();
    transport_.reset();
    cursor_.reset();
    return status;
}

Status Sender::connect() {
    StandbyProcess::Command command = options_.command;
    // A fault point that ends the standby does so once, not at each restart.
    command.inherit_fault = attempts_++ == 0;
    Fd ours;
    auto process = StandbyProcess::spawn(command, ours);
    if (!process.ok()) return process.error();
    const std::lock_guard lock{mutex_};
    process_ = *process;
    transport_ = socket_transport(std::move(ours));
    if (stopping_) return make_error(ESHUTDOWN, "reach the standby");
    greeted_ = false;
    unanswered_since_ = Clock::now();
    return {};
}

Status Sender::handshake() {
    const Epoch epoch = journal_.epoch();
    TS_TRY(send_body(*transport_, MessageType::kGreeting,
                     Greeting{.volume = options_.volume,
                              .epoch_id = epoch.id,
                              .epoch_number = epoch.number,
                              .silence_ms = 0}));
    Message message;
    TS_TRY(receive_message(*transport_, message));
    if (message.type == MessageType::kRefuse)
        return make_error(EREMOTEIO, "reach the standby: it says: {}", message.text());
    TS_ASSIGN(const Hello hello, body_of<Hello>(message, MessageType::kHello));
    if (hello.volume != options_.volume) {
        (void)send_text(*transport_, MessageType::kRefuse, "you are of another volume");
        return make_error(EPERM, "reach the standby: it is of another volume ({:016x})",
                          hello.volume);
    }
    TS_ASSIGN(const Lsn start, agree(hello));
    const std::lock_guard lock{mutex_};
    next_ = start.value;
    announced_ = Lsn{};
    durable_ = start - 1;
    applied_ = Lsn{hello.applied_lsn};
    keep_for_it_ = true;
    outstanding_.durable(durable_);
    unanswered_since_.reset();
    greeted_ = reached_ = true;
    trouble_.clear();
    cannot_apply_ = false;
    hurried_ = Lsn{};
    in_sync_from_ = journal_.commit().local();
    streaming_ = true;
    queueing_ = false;  // the segments first
    move_to(LinkState::kCatchingUp);
    return {};
}

// Whether a frame here ends with this record and this chain.
Result<bool> Sender::holds(const Position& position) {
    if (position.lsn == Lsn{}) return journal_.oldest() == Lsn{1};
    if (position.lsn + 1 < journal_.oldest() || position.lsn > journal_.appended()) return false;
    if (position.lsn > journal_.commit().local()) TS_TRY(journal_.make_durable(position.lsn));
    if (position.lsn < journal_.oldest()) {
        // The last record before the oldest segment: its header has the chain.
        TS_ASSIGN(const Cursor cursor,
                  Cursor::open(options_.journal_directory, options_.volume, position.lsn + 1));
        return cursor.previous() == position.chain;
    }
    TS_ASSIGN(Cursor cursor,
              Cursor::open(options_.journal_directory, options_.volume, position.lsn));
    TS_ASSIGN(const auto frame, cursor.next(journal_.commit().local()));
    return frame && frame->last() == position.lsn &&
           Chain{frame->header.checksum} == position.chain;
}

// First record of the segment that holds this one: a store that starts over begins with a segment.
Result<Lsn> Sender::segment_start(Lsn lsn) const {
    TS_ASSIGN(const auto segments, list_segments(options_.journal_directory));
    for (auto each = segments.rbegin(); each != segments.rend(); ++each) {
        TS_ASSIGN(const Segment segment, open_segment(each->path, options_.volume, O_RDONLY));
        if (Lsn{segment.header.first_lsn} <= lsn) return Lsn{segment.header.first_lsn};
    }
    return make_error(ENOENT, "find record {} in the journal", lsn.value);
}

// Where the stream begins: behind what the standby has, if that is part of our history.
Result<Lsn> Sender::agree(const Hello& hello) {
    const Position has{Lsn{hello.end_lsn}, Chain{hello.end_chain}};
    TS_ASSIGN(const bool continues, holds(has));
    Lsn start = has.lsn + 1;
    Lsn told_from = start;
    if (!continues) {
        if (hello.end_lsn != 0)
            spdlog::warn(
                "standby {}: has records up to {} that do not lead to ours; it starts over",
                options_.target, hello.end_lsn);
        journal_.commit().standby_durable(options_.index, Lsn{});
        told_from = options_.start_over();
        if (told_from == Lsn{}) return make_error(ESHUTDOWN, "seed the standby");
        TS_ASSIGN(start, segment_start(told_from));
    }
    TS_ASSIGN(cursor_, Cursor::open(options_.journal_directory, options_.volume, start));
    const Welcome welcome{.volume = options_.volume,
                          .start_lsn = start.value,
                          .previous = raw(cursor_->previous()),
                          .segment = raw(cursor_->segment()),
                          .kind = static_cast<std::uint32_t>(continues ? WelcomeKind::kContinue
                                                                       : WelcomeKind::kStartOver),
                          .generation = 0,
                          .segment_bytes = options_.segment_bytes,
                          .told_from = told_from.value,
                          .epoch_id = 0,
                          .epoch_number = 0,
                          .reserved = 0};
    TS_TRY(send_body(*transport_, MessageType::kWelcome, welcome));
    return start;
}

// Called with mutex_ held.
bool Sender::something_to_send() const {
    const Lsn next{next_};
    return !queue_.empty() || journal_.commit().local() >= next || !queueing_ || hurry_ > hurried_;
}

Status Sender::stream() {
    heard({.received = 0, .durable = durable_.value, .applied = applied_.value, .chain = 0});
    for (;;) {
        std::unique_lock lock{mutex_};
        // What has been sent will soon be committed, and the standby must hear of it.
        const bool expecting = announced_ + 1 < Lsn{next_};
        changed_.wait_for(lock, expecting ? kAnnounceAfter : kHeartbeatEvery,
                          [this] { return stopping_ || !streaming_ || something_to_send(); });
        if (stopping_) return {};
        if (!streaming_) return make_error(ECONNRESET, "hear from the standby");
        const Lsn next{next_};
        const Lsn local = journal_.commit().local();
        if (!queue_.empty() && queue_.front()->first <= next) {
            TS_TRY(send_queued(lock));
        } else if (local >= next) {
            const Lsn until = queue_.empty() ? local : std::min(local, queue_.front()->first - 1);
            lock.unlock();
            TS_TRY(send_from_segments(until));
        } else if (!queueing_) {
            queueing_ = true;  // a frame in flight now is read when it is durable
        } else {
            const Lsn hurry = hurry_;
            lock.unlock();
            TS_TRY(send_small(hurry));
        }
    }
}

Status Sender::send_queued(std::unique_lock<std::mutex>& lock) {
    const auto frame = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    if (frame->last < Lsn{next_}) return {};
    return send_frame(frame->bytes);
}

Status Sender::send_from_segments(Lsn until) {
    // Behind what was sent from the queue: begin anew where that ended.
    if (!cursor_ || cursor_->position() != Lsn{next_}) {
        TS_ASSIGN(cursor_, Cursor::open(options_.journal_directory, options_.volume, Lsn{next_}));
    }
    TS_ASSIGN(const auto frame, cursor_->next(until));
    if (!frame) return make_error(EBADMSG, "read record {} from the journal", next_.load());
    return send_frame(frame->stored);
}

Status Sender::send_frame(Bytes bytes) {
    const FrameHeader header = header_of(bytes);
    {
        const std::lock_guard lock{mutex_};
        if (!unanswered_since_) unanswered_since_ = Clock::now();
        last_sent_ = Clock::now();
    }
    TS_TRY(send_message(*transport_, MessageType::kFrame, bytes));
    next_ = header.first_lsn + header.record_count;
    announced_ = std::max(announced_, Lsn{header.committed});
    const std::lock_guard lock{mutex_};
    sent_records_ += header.record_count;
    sent_bytes_ += bytes.size();
    return {};
}

// What is due when no frame is: committed, hurry, a heartbeat.
Status Sender::send_small(Lsn hurry) {
    const Lsn committed = std::min(journal_.commit().committed(), Lsn{next_} - 1);
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
    if (Clock::now() - last_sent_ < kHeartbeatEvery) return {};
    last_sent_ = Clock::now();
    if (!unanswered_since_) unanswered_since_ = last_sent_;
    lock.unlock();
    return send_message(*transport_, MessageType::kHeartbeat, {});
}

}  // namespace twinspool
