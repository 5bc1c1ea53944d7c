// SPDX-License-Identifier: Apache-2.0
// StandbyHost: the store that primaries reach over the network.
//
// Each call that has passed the listener's handshake has a thread until it is refused or its link
// ends; kMaxCalls bounds them. It says its greeting before anything of the connected primary is
// touched, and has kGreetWithin for that.
#include <spdlog/spdlog.h>

#include <atomic>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>
#include <utility>

#include "journal/base/clock.h"
#include "replicator/standby/standby.h"

namespace twinspool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kLogRefusalsEvery{1};
constexpr std::size_t kMaxCalls = 8;
constexpr std::chrono::seconds kGreetWithin{5};
constexpr std::chrono::milliseconds kWatchEvery{50};
// How long the link that is to go may take to do so: it may be writing to a disk.
constexpr std::chrono::seconds kGoesWithin{10};
constexpr std::size_t kPieceBytes = std::size_t{64} << 10;
// Nobody is called silent before that.
constexpr std::chrono::milliseconds kLeastSilence{200};

// A transport that knows when something came, and since when it is waited for: what a slow line
// brings in pieces counts, and what we do with it ourselves is not the other side's silence.
class HeardTransport final : public LinkTransport {
   public:
    explicit HeardTransport(std::shared_ptr<LinkTransport> inner) : inner_(std::move(inner)) {}
    Status send(Bytes head, Bytes body) override { return inner_->send(head, body); }
    Status receive(std::span<std::byte> out) override {
        stamp();
        waiting_ = true;
        Status status;
        while (status.ok() && !out.empty()) {
            const auto piece = out.first(std::min(out.size(), kPieceBytes));
            status = inner_->receive(piece);
            stamp();
            out = out.subspan(piece.size());
        }
        waiting_ = false;
        return status;
    }
    void shutdown() override { inner_->shutdown(); }

    [[nodiscard]] Clock::duration silent_for() const {
        return waiting_ ? heard_for() : Clock::duration{};
    }
    [[nodiscard]] Clock::duration heard_for() const {
        return Clock::now().time_since_epoch() - Clock::duration{at_.load()};
    }

   private:
    void stamp() { at_ = Clock::now().time_since_epoch().count(); }
    const std::shared_ptr<LinkTransport> inner_;
    std::atomic<Clock::rep> at_{Clock::now().time_since_epoch().count()};
    std::atomic<bool> waiting_{false};
};

struct Call {
    std::string from;
    std::shared_ptr<HeardTransport> transport;
    std::thread thread;
    // Under the host's mutex.
    std::optional<Greeting> greeting;
    Clock::time_point arrived = Clock::now();
    bool done = false;
    [[nodiscard]] Clock::duration may_be_silent() const {
        return std::max<Clock::duration>(std::chrono::milliseconds{greeting->silence_ms},
                                         kLeastSilence);
    }
    [[nodiscard]] bool is_silent() const {
        return greeting->silence_ms != 0 && transport->silent_for() >= may_be_silent();
    }
};

}  // namespace

struct StandbyHost::Parts {
    Parts(StandbyHostOptions from, std::unique_ptr<Receiver> opened)
        : options(std::move(from)), receiver(std::move(opened)) {}

    void accept();
    void watch();
    void answer(Call& call);
    Result<void> admit(std::unique_lock<std::mutex>& lock, Call& call);
    void refused(const std::string& from, const std::string& why);
    void reap(std::unique_lock<std::mutex>& lock);

    const StandbyHostOptions options;
    const std::unique_ptr<Receiver> receiver;
    std::unique_ptr<TcpListener> listener;

    mutable std::mutex mutex;  // protects what follows
    std::condition_variable changed;
    std::list<Call> calls;
    Call* serving = nullptr;  // it alone uses the receiver
    Call* next = nullptr;     // takes its place
    bool stopping = false;
    std::optional<Error> ended;
    std::uint64_t refusals = 0;
    Clock::time_point log_refusals_from{};
    std::string last_refused;
    WallTime last_refused_at{};
    Clock::time_point heard_last = Clock::now();  // of the primary that is gone

    std::thread acceptor;
    std::thread watcher;
};

void StandbyHost::Parts::refused(const std::string& from, const std::string& why) {
    const std::lock_guard lock{mutex};
    ++refusals;
    last_refused = from + ": " + why;
    last_refused_at = wall_time();
    // A flood of strangers is not to fill the disk with what is said of them.
    const auto now = Clock::now();
    if (now < log_refusals_from) return;
    log_refusals_from = now + kLogRefusalsEvery;
    spdlog::warn("standby {}: refused {}: {} ({} refusals so far)", options.store.path, from, why,
                 refusals);
}

void StandbyHost::Parts::accept() {
    for (;;) {
        auto arrived = listener->accept();
        std::unique_lock lock{mutex};
        if (stopping) return;
        if (!arrived.ok()) {
            ended = arrived.error();
            return;
        }
        reap(lock);
        if (calls.size() >= kMaxCalls) {
            arrived->transport->shutdown();
            lock.unlock();
            refused(arrived->from, "there are too many links already");
            continue;
        }
        Call& call = calls.emplace_back();
        call.from = arrived->from;
        call.transport = std::make_shared<HeardTransport>(arrived->transport);
        call.thread = std::thread{[this, &call] { answer(call); }};
    }
}

void StandbyHost::Parts::reap(std::unique_lock<std::mutex>& /*lock*/) {
    for (auto each = calls.begin(); each != calls.end();) {
        if (!each->done) {
            ++each;
            continue;
        }
        each->thread.join();  // it has left the mutex for the last time
        each = calls.erase(each);
    }
}

void StandbyHost::Parts::answer(Call& call) {
    const auto greeting = receive_greeting(*call.transport, options.store.volume);
    std::string why;
    if (!greeting.ok()) {
        why = greeting.error().doing;
    } else {
        std::unique_lock lock{mutex};
        call.greeting = *greeting;
        const auto admitted = admit(lock, call);
        lock.unlock();
        if (!admitted.ok()) {
            refused(call.from, admitted.error().doing);
            (void)send_text(*call.transport, MessageType::kRefuse, admitted.error().doing);
        } else {
            spdlog::info("standby {}: primary {}, epoch {}", options.store.path, call.from,
                         greeting->epoch_number);
            const Status served = receiver->serve(*call.transport, *greeting);
            if (!served.ok()) why = served.error().text();
            spdlog::info("standby {}: primary {} is gone", options.store.path, call.from);
        }
    }
    call.transport->shutdown();
    if (!why.empty()) refused(call.from, why);
    const std::lock_guard lock{mutex};
    if (serving == &call) {
        serving = nullptr;
        heard_last = Clock::now() - call.transport->heard_for();
    }
    if (next == &call) next = nullptr;
    call.done = true;
    changed.notify_all();
}

// EBUSY: another primary is connected. ECANCELED: a later call of the same one came.
Result<void> StandbyHost::Parts::admit(std::unique_lock<std::mutex>& lock, Call& call) {
    if (stopping) return make_error(ESHUTDOWN, "this standby is going down");
    for (const Call* other : {next, serving}) {
        if (other == nullptr) continue;
        const bool same = other->greeting->epoch_id == call.greeting->epoch_id;
        if (!same && !other->is_silent())
            return make_error(EBUSY,
                              "another primary ({}, epoch {}) is connected to this standby, and "
                              "this one (epoch {}) is not the same reign",
                              other->from, other->greeting->epoch_number,
                              call.greeting->epoch_number);
    }
    next = &call;  // whoever waited for its turn sees that it has lost it
    changed.notify_all();
    if (serving != nullptr) serving->transport->shutdown();
    const bool gone = changed.wait_for(
        lock, kGoesWithin, [&] { return stopping || next != &call || serving == nullptr; });
    if (next != &call) return make_error(ECANCELED, "a later call has taken its place");
    next = nullptr;
    if (stopping) return make_error(ESHUTDOWN, "this standby is going down");
    if (!gone) return make_error(EBUSY, "the link before is still being ended");
    serving = &call;
    return {};
}

void StandbyHost::Parts::watch() {
    std::unique_lock lock{mutex};
    while (!stopping) {
        changed.wait_for(lock, kWatchEvery, [this] { return stopping; });
        for (Call& call : calls) {
            if (call.done) continue;
            if (!call.greeting && Clock::now() - call.arrived > kGreetWithin)
                call.transport->shutdown();
            if (&call == serving && call.is_silent()) {
                spdlog::warn("standby {}: nothing from {} for {} ms: its link is closed",
                             options.store.path, call.from, call.greeting->silence_ms);
                call.transport->shutdown();
            }
        }
        reap(lock);
    }
}

StandbyHost::StandbyHost(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
StandbyHost::~StandbyHost() { stop(); }

Result<std::unique_ptr<StandbyHost>> StandbyHost::start(const StandbyHostOptions& options) {
    TS_ASSIGN(auto receiver, Receiver::open(options.store));
    auto parts = std::make_unique<Parts>(options, std::move(receiver));
    Parts* const raw = parts.get();
    TS_ASSIGN(parts->listener,
              TcpListener::open({.address = options.listen,
                                 .secret = options.secret,
                                 .refused = [raw](const std::string& from, const std::string& why) {
                                     raw->refused(from, why);
                                 }}));
    parts->receiver->start();
    parts->acceptor = std::thread{[raw] { raw->accept(); }};
    parts->watcher = std::thread{[raw] { raw->watch(); }};
    return std::unique_ptr<StandbyHost>{new StandbyHost{std::move(parts)}};
}

void StandbyHost::stop() {
    Parts& parts = *parts_;
    if (!parts.acceptor.joinable()) return;
    {
        const std::lock_guard lock{parts.mutex};
        parts.stopping = true;
        for (Call& call : parts.calls) call.transport->shutdown();
        parts.changed.notify_all();
    }
    parts.listener->stop();
    parts.acceptor.join();
    parts.watcher.join();
    for (Call& call : parts.calls) call.thread.join();
    parts.calls.clear();
    parts.receiver->finish();
}

StandbyHostStatus StandbyHost::status() const {
    const ReceiverStatus receiver = parts_->receiver->status();
    StandbyHostStatus status{.epoch = receiver.epoch,
                             .received = receiver.durable,
                             .durable = receiver.durable,
                             .applied = receiver.applied,
                             .committed = receiver.committed,
                             .received_records = receiver.received_records,
                             .received_bytes = receiver.received_bytes,
                             .applied_records = receiver.applied_records,
                             .trouble = receiver.trouble};
    const std::lock_guard lock{parts_->mutex};
    const Call* serving = parts_->serving;
    if (serving != nullptr) status.from = serving->from;
    status.heard_seconds =
        std::chrono::duration<double>(serving != nullptr ? serving->transport->heard_for()
                                                         : Clock::now() - parts_->heard_last)
            .count();
    status.refused = parts_->refusals;
    status.last_refused = parts_->last_refused;
    status.last_refused_at = parts_->last_refused_at;
    const bool connected = serving != nullptr && receiver.connected;
    if (receiver.durable == Lsn{} && receiver.applied == Lsn{})
        status.state = StandbyState::kEmpty;
    else if (receiver.resyncing)
        status.state = StandbyState::kResyncing;
    else if (receiver.seeded == 0)
        status.state = StandbyState::kSeeding;
    else
        status.state = connected && receiver.durable >= receiver.committed ? StandbyState::kInSync
                                                                           : StandbyState::kBehind;
    return status;
}

std::vector<Snapshot> StandbyHost::snapshots() const { return parts_->receiver->snapshots(); }
std::uint16_t StandbyHost::port() const { return parts_->listener->port(); }

std::optional<Error> StandbyHost::ended() const {
    const std::lock_guard lock{parts_->mutex};
    return parts_->ended;
}

}  // namespace twinspool
