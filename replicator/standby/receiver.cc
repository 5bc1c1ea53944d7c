// SPDX-License-Identifier: Apache-2.0
#include "replicator/standby/receiver.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "journal/base/clock.h"
#include "journal/base/fault.h"
#include "journal/format/frame.h"
#include "replicator/store/begun.h"

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

#ifdef TWINSPOOL_FAULTS
// TWINSPOOL_FLIP=lsn: the frame with that record is written with a bit that is not what came.
void flip_for_test(std::span<std::byte> bytes, const FrameHeader& header) {
    static const char* const chosen =
        std::getenv("TWINSPOOL_FLIP");  // NOLINT(concurrency-mt-unsafe)
    if (chosen == nullptr) return;
    static std::atomic<bool> done{false};
    const std::uint64_t lsn = std::strtoull(chosen, nullptr, 10);
    if (lsn < header.first_lsn || lsn >= header.first_lsn + header.record_count) return;
    if (!done.exchange(true)) bytes.back() ^= std::byte{1};
}
#else
void flip_for_test(std::span<std::byte> /*bytes*/, const FrameHeader& /*header*/) {}
#endif

}  // namespace

Receiver::Receiver(const StandbyStore& store, Fd lock) : store_(store), lock_(std::move(lock)) {}
Receiver::~Receiver() = default;

Result<Greeting> receive_greeting(LinkTransport& transport, std::uint64_t volume) {
    const auto refuse = [&](Error why) {
        (void)send_text(transport, MessageType::kRefuse, why.doing);
        return why;
    };
    Message message;
    if (const auto received = receive_message(transport, message); !received.ok())
        return received.error().code == EPROTONOSUPPORT || received.error().code == EBADMSG
                   ? refuse(received.error())
                   : received.error();
    if (message.type == MessageType::kRefuse)
        return make_error(EREMOTEIO, "serve the primary: it says: {}", message.text());
    auto greeting = body_of<Greeting>(message, MessageType::kGreeting);
    if (!greeting.ok()) return refuse(greeting.error());
    if (greeting->volume != volume)
        return refuse(make_error(
            EPERM, "the primary is of another volume ({:016x}), and this standby of {:016x}",
            greeting->volume, volume));
    return greeting;
}

Result<std::unique_ptr<Receiver>> Receiver::open(const StandbyStore& store) {
    TS_ASSIGN(Fd lock, lock_store(store.path));
    std::unique_ptr<Receiver> receiver{new Receiver{store, std::move(lock)}};
    TS_TRY(receiver->load());
    return receiver;
}

// The catalogue first: it says what counts of the journal.
Status Receiver::load() {
    std::error_code code;
    std::filesystem::create_directories(store_.journal(), code);
    if (code) return make_error(code.value(), "make the folder {}", store_.journal());
    TS_TRY(open_applier());
    TS_ASSIGN(end_, standby_end(store_.journal(), store_.volume, applier_->applied()));
    // The newest frame's header may know of less than an apply that was interrupted.
    committed_ = std::max({end_.committed.value, applier_->begun().value, committed_.load()});
    begun_ = true;
    epoch_ = end_.epoch.number;
    counted_to_ = applier_->applied().value;
    shown_durable_ = end_.end.lsn.value;
    const std::lock_guard lock{send_mutex_};
    durable_ = end_.end;
    return {};
}

// What this process thinks of the store is forgotten. If it cannot be read there is no applier.
Status Receiver::reload() {
    close_applier();
    appender_.reset();
    folder_.reset();
    const Status loaded = load();
    if (!loaded.ok()) close_applier();
    suspect_ = !loaded.ok();
    const std::lock_guard lock{applier_mutex_};
    load_error_ = loaded.ok() ? std::string{} : loaded.error().text();
    return loaded;
}

Status Receiver::open_applier() {
    // The snapshots before the ack: who has waited for a mark to be applied finds it in the list.
    const auto tell = [this](Lsn lsn) {
        count_applied(lsn);
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
    TS_ASSIGN(auto opened, Applier::open({.store = store_.path,
                                          .volume = store_.volume,
                                          .on_applied = tell,
                                          .on_findings = [this](const auto& f) { say_findings(f); },
                                          .superfluous = may_go}));
    const std::lock_guard lock{applier_mutex_};
    applier_ = std::move(opened);
    return {};
}

void Receiver::close_applier() {
    finish();
    const std::lock_guard lock{applier_mutex_};
    applier_.reset();
}

Lsn Receiver::applicable() const { return std::min(Lsn{committed_.load()}, end_.end.lsn); }

void Receiver::start() {
    if (running_ || !applier_) return;
    running_ = true;
    applier_->start();
    applier_->committed(applicable());
}

void Receiver::finish() {
    if (running_) applier_->finish();
    running_ = false;
}

Result<Lsn> Receiver::apply_once(OnceOptions options) {
    const Lsn limit = options.tail ? end_.end.lsn : applicable();
    if (limit > applier_->applied()) TS_TRY(applier_->run_until(limit));
    return applier_->applied();
}

Status Receiver::serve(LinkTransport& transport, const Greeting& greeting) {
    Status status = greet(transport, greeting);
    start();
    if (status.ok()) status = stream(transport);
    connected_ = false;
    {
        const std::lock_guard lock{send_mutex_};
        transport_ = nullptr;
    }
    const int code = status.error().code;
    if (code == ECONNRESET || code == EPIPE) return {};
    const std::string why = status.error().text();
    spdlog::error("standby {}: the link ends: {}", store_.path, why);
    // The other side's own words are not said to it again.
    if (code != EREMOTEIO) (void)send_text(transport, MessageType::kRefuse, why);
    return status;
}

Status Receiver::stream(LinkTransport& transport) {
    Message message;
    Status status = say_snapshots();
    if (status.ok()) status = say_trouble();
    while (status.ok()) {
        status = receive_message(transport, message);
        if (!status.ok()) break;
        status = message.type == MessageType::kFrame ? take_frame(message.body) : take(message);
        // A disk that fails, bytes that are not what they should be, ours or theirs.
        if (!status.ok() && status.error().code != ECONNRESET && status.error().code != EPIPE)
            suspect_ = true;
    }
    return status;
}

Status Receiver::take(const Message& message) {
    switch (message.type) {
        case MessageType::kCommitted: {
            TS_ASSIGN(const auto body, body_of<LsnMessage>(message, MessageType::kCommitted));
            heard_committed(Lsn{body.lsn});
            return {};
        }
        case MessageType::kHurry: {
            TS_ASSIGN(const auto body, body_of<LsnMessage>(message, MessageType::kHurry));
            TS_TRY(make_room());
            applier_->hurry(Lsn{body.lsn});
            return say_trouble();
        }
        case MessageType::kHeartbeat:
            TS_TRY(make_room());
            return ack();
        case MessageType::kRefuse:
            return make_error(EREMOTEIO, "serve the primary: it says: {}", message.text());
        default:
            return make_error(EBADMSG, "serve the primary: message {} is not for a standby",
                              static_cast<int>(message.type));
    }
}

// It may be of records that are not here yet: they are committed when they come.
void Receiver::heard_committed(Lsn lsn) {
    committed_ = std::max(committed_.load(), lsn.value);
    connected_ = true;  // how far behind we are is known from here on
    applier_->committed(applicable());
}

Status Receiver::take_frame(std::span<std::byte> bytes) {
    if (bytes.size() < sizeof(FrameHeader)) return make_error(EBADMSG, "take a frame: cut off");
    const FrameHeader header = header_of(bytes);
    const FramePlace place{SegmentNumber{header.segment}, header.block};
    if (auto checked = check_frame(bytes, store_.volume, place); !checked.ok())
        return checked.error();
    flip_for_test(bytes, header);
    const SegmentNumber before = end_.next.segment;
    TS_TRY(appender_->append_placed(bytes));
    if (std::exchange(begun_, false)) TS_TRY(forget_begun(store_.journal()));
    shown_durable_ = end_.end.lsn.value;
    received_records_ += header.record_count;
    received_bytes_ += bytes.size();
    epoch_ = header.epoch_number;
    {
        // Of the bytes that were written, not of what their header says of them.
        const Chain written = chain_of(bytes);
        suspect_ |= written != Chain{header.checksum};
        const std::lock_guard lock{send_mutex_};
        durable_ = {end_.end.lsn,
                    written == Chain{header.checksum} ? written : Chain{~header.checksum}};
    }
    TS_FAULT(receiver_written);
    TS_TRY(ack());
    TS_FAULT(receiver_acked);
    heard_committed(Lsn{header.committed});
    if (end_.next.segment != before) TS_TRY(retire_applied());
    return {};
}

Status Receiver::make_room() {
    const Status error = applier_->error();
    if (error.ok() || error.error().code != ENOSPC) return {};
    TS_TRY(retire_applied());
    folder_->give_back();
    return {};
}

Status Receiver::ack() {
    const std::lock_guard lock{send_mutex_};
    if (transport_ == nullptr) return {};
    return send_body(*transport_, MessageType::kAck,
                     Ack{.received = durable_.lsn.value,
                         .durable = durable_.lsn.value,
                         .applied = applier_->applied().value,
                         .chain = raw(durable_.chain)});
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

// Without a primary they are lost: it asks again in its next session.
void Receiver::say_findings(const std::vector<Finding>& findings) {
    const std::lock_guard lock{send_mutex_};
    if (transport_ != nullptr) (void)send_findings(*transport_, findings);
}

void Receiver::count_applied(Lsn lsn) {
    const std::uint64_t before = counted_to_.exchange(lsn.value);
    if (lsn.value > before) applied_records_ += lsn.value - before;
}

ReceiverStatus Receiver::status() const {
    const std::lock_guard lock{applier_mutex_};
    ReceiverStatus status{.connected = connected_,
                          .epoch = epoch_,
                          .durable = Lsn{shown_durable_},
                          .applied = {},
                          .committed = Lsn{committed_},
                          .seeded = 0,
                          .resyncing = false,
                          .received_records = received_records_,
                          .received_bytes = received_bytes_,
                          .applied_records = applied_records_,
                          .trouble = load_error_};
    if (!applier_) return status;
    const StoreState state = applier_->state();
    status.applied = applier_->applied();
    status.seeded = state.seeded;
    status.resyncing = state.resyncing;
    if (const Status error = applier_->error(); !error.ok()) status.trouble = error.error().text();
    return status;
}

std::vector<Snapshot> Receiver::snapshots() const {
    const std::lock_guard lock{applier_mutex_};
    return applier_ ? applier_->snapshots() : std::vector<Snapshot>{};
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
