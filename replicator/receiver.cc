// SPDX-License-Identifier: Apache-2.0
#include "replicator/receiver.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "journal/clock.h"
#include "journal/fault.h"
#include "journal/frame.h"

namespace twinspool {
namespace {

// A predecessor that lost its primary applies what is committed before it ends.
constexpr std::chrono::seconds kWaitForPredecessor{30};

Result<Fd> lock_store(const std::string& path) {
    const std::string name = path + "/lock";
    Fd fd{::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    if (!fd.valid()) return last_error("open {}", name);
    const auto until = std::chrono::steady_clock::now() + kWaitForPredecessor;
    while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK || std::chrono::steady_clock::now() > until)
            return make_error(EBUSY, "lock {}: another process serves this standby", name);
        std::this_thread::sleep_for(std::chrono::milliseconds{10});
    }
    return fd;
}

}  // namespace

Receiver::Receiver(const StandbyStore& store, Fd lock) : store_(store), lock_(std::move(lock)) {}
Receiver::~Receiver() = default;

Result<std::unique_ptr<Receiver>> Receiver::open(const StandbyStore& store) {
    TS_ASSIGN(Fd lock, lock_store(store.path));
    std::unique_ptr<Receiver> receiver{new Receiver{store, std::move(lock)}};
    TS_TRY(receiver->load());
    return receiver;
}

Status Receiver::load() {
    std::error_code code;
    std::filesystem::create_directories(store_.journal(), code);
    if (code) return make_error(code.value(), "make the folder {}", store_.journal());
    TS_ASSIGN(end_, find_end(store_.journal(), store_.volume));
    durable_ = end_.end.lsn.value;
    return open_applier();
}

Status Receiver::open_applier() {
    // The snapshots before the ack: who has waited for a mark to be applied finds it in the list.
    const auto tell = [this](Lsn) {
        (void)say_snapshots();
        (void)ack();
        (void)say_trouble();
    };
    const auto may_go = [keep = store_.keep](const std::vector<Snapshot>& snapshots) {
        std::vector<Lsn> numbers;
        if (keep)
            for (const Snapshot& each : superfluous(snapshots, *keep, wall_time()))
                numbers.push_back(each.number);
        return numbers;
    };
    TS_ASSIGN(applier_, Applier::open({.store = store_.path,
                                       .volume = store_.volume,
                                       .on_applied = tell,
                                       .superfluous = may_go}));
    return {};
}

// At load: the newest frame's header may know of less than an apply that was interrupted.
Lsn Receiver::applicable() const {
    return std::min(std::max(end_.committed, applier_->begun()), end_.end.lsn);
}

Result<Lsn> Receiver::apply_once(OnceOptions options) {
    const Lsn limit = options.tail ? end_.end.lsn : applicable();
    if (limit > applier_->applied()) TS_TRY(applier_->run_until(limit));
    return applier_->applied();
}

Status Receiver::serve(LinkTransport& transport) {
    TS_TRY(greet(transport));
    TS_TRY(say_snapshots());
    applier_->start();
    applier_->committed(applicable());
    Status status;
    Message message;
    while (status.ok()) {
        status = receive_message(transport, message);
        if (status.ok()) status = take(message);
    }
    {
        const std::lock_guard lock{send_mutex_};
        transport_ = nullptr;
    }
    applier_->finish();
    return status.error().code == ECONNRESET ? Status{} : status;
}

Status Receiver::greet(LinkTransport& transport) {
    Message message;
    TS_TRY(receive_message(transport, message));
    TS_ASSIGN(const Greeting greeting, body_of<Greeting>(message, MessageType::kGreeting));
    if (greeting.volume != store_.volume)
        return make_error(EPERM, "serve the primary: it is of another volume (0x{:016x})",
                          greeting.volume);
    const Hello hello{.volume = store_.volume,
                      .end_lsn = end_.end.lsn.value,
                      .end_chain = raw(end_.end.chain),
                      .epoch_id = end_.epoch.id,
                      .epoch_number = end_.epoch.number,
                      .flags = 0,
                      .applied_lsn = applier_->applied().value,
                      .committed = end_.committed.value,
                      .seeded = applier_->seeded_generation(),
                      .told = 0};
    TS_TRY(send_body(transport, MessageType::kHello, hello));
    TS_TRY(receive_message(transport, message));
    if (message.type == MessageType::kRefuse)
        return make_error(EREMOTEIO, "serve the primary: it says: {}", message.text());
    TS_ASSIGN(const Welcome welcome, body_of<Welcome>(message, MessageType::kWelcome));
    if (static_cast<WelcomeKind>(welcome.kind) == WelcomeKind::kStartOver)
        TS_TRY(start_over(welcome));
    else if (welcome.start_lsn != end_.end.lsn.value + 1)
        return make_error(EBADMSG, "serve the primary: it goes on at record {}, not {}",
                          welcome.start_lsn, end_.end.lsn.value + 1);
    folder_ = std::make_unique<SegmentFolder>(store_.journal(), welcome.segment_bytes);
    TS_TRY(folder_->start());
    appender_ = std::make_unique<DirectAppender>(*folder_, store_.volume, end_);
    const std::lock_guard lock{send_mutex_};
    transport_ = &transport;
    return {};
}

// The segments first: a store without segments is told to start over again (or is given all from
// record 1), so dying anywhere in here leaves nothing that could be taken for a good copy.
Status Receiver::start_over(const Welcome& welcome) {
    spdlog::info("standby {}: starting over at record {}", store_.path, welcome.start_lsn);
    if (const auto snapshots = applier_->snapshots(); !snapshots.empty())
        spdlog::error("standby {}: its {} snapshots are lost, from {} to {}", store_.path,
                      snapshots.size(), snapshots.front().name, snapshots.back().name);
    TS_TRY(applier_->abandon_snapshots());
    applier_.reset();
    TS_ASSIGN(const auto segments, list_segments(store_.journal()));
    for (const SegmentName& segment : segments)
        if (::unlink(segment.path.c_str()) != 0) return last_error("remove {}", segment.path);
    TS_TRY(reset_store(store_.path));
    end_ = JournalEnd{};
    end_.end = Position{Lsn{welcome.start_lsn} - 1, Chain{welcome.previous}};
    end_.next = FramePlace{SegmentNumber{welcome.segment - 1}, 0};
    durable_ = end_.end.lsn.value;
    TS_TRY(open_applier());
    // What stands before `told_from` in the first segment is about objects that are not told yet.
    const bool whole = welcome.told_from == welcome.start_lsn;
    return applier_->begin_at(
        {Lsn{welcome.told_from} - 1, whole ? Chain{welcome.previous} : Chain{}});
}

Status Receiver::take(const Message& message) {
    switch (message.type) {
        case MessageType::kFrame:
            return take_frame(message.body);
        case MessageType::kCommitted: {
            TS_ASSIGN(const auto body, body_of<LsnMessage>(message, MessageType::kCommitted));
            applier_->committed(std::min(Lsn{body.lsn}, end_.end.lsn));
            return {};
        }
        case MessageType::kHurry: {
            TS_ASSIGN(const auto body, body_of<LsnMessage>(message, MessageType::kHurry));
            applier_->hurry(Lsn{body.lsn});
            return say_trouble();
        }
        case MessageType::kHeartbeat:
            return ack();
        case MessageType::kRefuse:
            return make_error(EREMOTEIO, "serve the primary: it says: {}", message.text());
        default:
            return make_error(EBADMSG, "serve the primary: message {} is not for a standby",
                              static_cast<int>(message.type));
    }
}

Status Receiver::take_frame(Bytes bytes) {
    if (bytes.size() < sizeof(FrameHeader)) return make_error(EBADMSG, "take a frame: cut off");
    const FrameHeader header = header_of(bytes);
    const FramePlace place{SegmentNumber{header.segment}, header.block};
    if (auto checked = check_frame(bytes, store_.volume, place); !checked.ok())
        return checked.error();
    const SegmentNumber before = end_.next.segment;
    TS_TRY(appender_->append_placed(bytes));
    durable_ = end_.end.lsn.value;
    TS_FAULT(receiver_written);
    TS_TRY(ack());
    TS_FAULT(receiver_acked);
    applier_->committed(std::min(Lsn{header.committed}, end_.end.lsn));
    if (end_.next.segment != before) TS_TRY(retire_applied());
    return {};
}

Status Receiver::ack() {
    const std::lock_guard lock{send_mutex_};
    if (transport_ == nullptr) return {};
    const std::uint64_t durable = durable_;
    return send_body(*transport_, MessageType::kAck,
                     Ack{.received = durable,
                         .durable = durable,
                         .applied = applier_->applied().value,
                         .chain = 0});
}

Status Receiver::say_trouble() {
    const Status error = applier_->error();
    const std::string text = error.ok() ? std::string{} : error.error().text();
    const std::lock_guard lock{send_mutex_};
    if (transport_ == nullptr || text == said_trouble_) return {};
    said_trouble_ = text;
    return send_text(*transport_, MessageType::kTrouble, text);
}

Status Receiver::say_snapshots() {
    const std::uint64_t version = applier_->snapshots_version();  // of the list, or older
    {
        const std::lock_guard lock{send_mutex_};
        if (transport_ == nullptr || said_snapshots_ == version) return {};
    }
    const auto snapshots = applier_->snapshots();
    const std::lock_guard lock{send_mutex_};
    if (transport_ == nullptr) return {};
    said_snapshots_ = version;
    return send_snapshots(*transport_, snapshots);
}

// What is applied is not read again: the segments below go back to the spares.
Status Receiver::retire_applied() {
    TS_ASSIGN(const auto segments, list_segments(store_.journal()));
    const Lsn applied = applier_->applied();
    for (std::size_t i = 0; i + 1 < segments.size(); ++i) {
        TS_ASSIGN(const Segment following,
                  open_segment(segments[i + 1].path, store_.volume, O_RDONLY));
        if (Lsn{following.header.first_lsn} > applied + 1) break;
        TS_TRY(folder_->retire(segments[i].number));
    }
    return {};
}

}  // namespace twinspool
