// SPDX-License-Identifier: Apache-2.0
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

#include "replicator/link/tcp.h"
#include "replicator/link/tcp_address.h"
#include "replicator/link/tcp_tls.h"

namespace twinspool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kBacklog = 64;
constexpr std::size_t kArrivedAtMost = 16;        // links that nobody has taken yet
constexpr std::size_t kAcceptedAtATime = 4;       // before handshakes get their turn again
constexpr std::chrono::milliseconds kPause{100};  // no descriptor is left

Result<Fd> listen_at(const SocketAddress& address) {
    Fd socket{::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    const int on = 1;
    const int off = 0;
    const auto failed = [&] {
        return last_error("listen on {}", spell_with_port(address.numeric()));
    };
    if (!socket.valid()) return failed();
    (void)::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address.family() == AF_INET6) {
        // IPv4 too if this is "any"; a name's addresses are listened on one by one.
        sockaddr_in6 v6{};
        std::memcpy(&v6, &address.storage, sizeof v6);
        const bool any = IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr);
        (void)::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, any ? &off : &on, sizeof on);
    }
    if (::bind(socket.get(), address.get(), address.size) != 0) return failed();
    if (::listen(socket.get(), kBacklog) != 0) return failed();
    return socket;
}

Result<std::uint16_t> port_of(const Fd& socket) {
    SocketAddress address;
    address.size = sizeof address.storage;
    if (::getsockname(socket.get(), address.get(), &address.size) != 0)
        return last_error("find the port listened on");
    return address.numeric().port;
}

SocketAddress any_v6(std::uint16_t port) {
    const sockaddr_in6 v6{.sin6_family = AF_INET6, .sin6_port = htons(port)};
    SocketAddress address;
    std::memcpy(&address.storage, &v6, sizeof v6);
    address.size = sizeof v6;
    return address;
}

SocketAddress any_v4(std::uint16_t port) {
    const sockaddr_in v4{.sin_family = AF_INET, .sin_port = htons(port)};
    SocketAddress address;
    std::memcpy(&address.storage, &v4, sizeof v4);
    address.size = sizeof v4;
    return address;
}

Result<std::vector<Fd>> listen_everywhere(const HostAddress& wish) {
    std::vector<Fd> sockets;
    if (wish.host.empty()) {
        auto both = listen_at(any_v6(wish.port));
        const bool no_v6 =
            !both.ok() && (both.error().code == EAFNOSUPPORT || both.error().code == EADDRNOTAVAIL);
        if (no_v6) both = listen_at(any_v4(wish.port));
        if (!both.ok()) return both.error();
        sockets.push_back(std::move(both).value());
        return sockets;
    }
    const auto lookup = Lookup::start(wish, Lookup::Use::kListen);
    TS_TRY(wait_for(lookup->ready(), POLLIN, Deadline::max(), Fd{}));
    TS_ASSIGN(const auto addresses, lookup->take());
    std::optional<Error> error;
    std::uint16_t port = wish.port;
    for (const SocketAddress& each : addresses) {
        auto socket = listen_at(each.with_port(port));
        if (!socket.ok()) {
            error = socket.error();
            continue;
        }
        TS_ASSIGN(port, port_of(*socket));
        sockets.push_back(std::move(socket).value());
    }
    if (sockets.empty()) return *error;
    return sockets;
}

}  // namespace

// One thread accepts and goes on with all handshakes, none of which can make it wait.
struct TcpListener::Parts {
    struct Guest {
        TlsHandshake handshake;
        std::string from;
        Deadline deadline;
    };

    Options options;
    std::shared_ptr<const TlsContext> context;
    std::vector<Fd> sockets;
    std::uint16_t port = 0;
    Fd stop_event = make_event();
    std::atomic<bool> stopping = false;
    std::mutex joining;  // one stop() at a time
    std::thread thread;

    std::mutex mutex;  // protects `arrived`
    std::condition_variable changed;
    std::deque<Arrived> arrived;

    // the thread's own
    std::list<Guest> guests;  // oldest first
    Deadline accept_from;

    void serve();
    void wait();
    void go_on();
    void welcome(const Fd& socket);
    void admit(Fd socket, const std::string& from);
    void arrive(Guest guest);
    void refuse(const std::string& from, const std::string& why) const {
        if (options.refused) options.refused(from, why);
    }
    std::vector<pollfd> polled;  // stop, sockets, guests
};

void TcpListener::Parts::serve() {
    while (!stopping.load()) {
        wait();
        if (stopping.load()) return;
        // Those who are here first: newcomers in any number do not keep them from going on.
        go_on();
        for (std::size_t i = 0; i < sockets.size(); ++i)
            if (polled[1 + i].revents != 0) welcome(sockets[i]);
    }
}

void TcpListener::Parts::wait() {
    const auto now = Clock::now();
    Deadline until = now < accept_from ? accept_from : Deadline::max();
    polled.clear();
    polled.push_back({.fd = stop_event.get(), .events = POLLIN});
    for (const Fd& each : sockets)
        polled.push_back({.fd = now < accept_from ? -1 : each.get(), .events = POLLIN});
    for (const Guest& each : guests) {
        polled.push_back({.fd = each.handshake.fd(), .events = each.handshake.wants()});
        until = std::min(until, each.deadline);
    }
    if (::poll(polled.data(), polled.size(),
               until == Deadline::max() ? -1 : milliseconds_until(until)) < 0)
        for (pollfd& each : polled) each.revents = 0;
}

void TcpListener::Parts::go_on() {
    const auto now = Clock::now();
    std::size_t index = 1 + sockets.size();
    for (auto each = guests.begin(); each != guests.end();) {
        const auto guest = each++;
        const bool ready = polled[index++].revents != 0;
        if (ready) {
            const auto over = guest->handshake.step();
            if (!over.ok()) {
                const Error& error = over.error();
                refuse(guest->from,
                       error.doing.empty() ? ::strerrordesc_np(error.code) : error.doing);
                guests.erase(guest);
                continue;
            }
            if (*over) {
                arrive(std::move(*guest));
                guests.erase(guest);
                continue;
            }
        }
        if (now >= guest->deadline) {
            refuse(guest->from, "it has not shown our secret in time");
            guests.erase(guest);
        }
    }
}

void TcpListener::Parts::welcome(const Fd& socket) {
    for (std::size_t i = 0; i < kAcceptedAtATime; ++i) {
        SocketAddress from;
        from.size = sizeof from.storage;
        Fd guest{::accept4(socket.get(), from.get(), &from.size, SOCK_CLOEXEC | SOCK_NONBLOCK)};
        if (guest.valid()) {
            admit(std::move(guest), spell_with_port(from.numeric()));
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            // The connection waits in the kernel, and would make poll() return at once.
            refuse("somebody", last_error("accept a connection").text());
            accept_from = Clock::now() + kPause;
        }
        return;
    }
}

void TcpListener::Parts::admit(Fd socket, const std::string& from) {
    tune(socket.get());
    if (guests.size() >= options.max_handshakes) {
        // The oldest has had the most time: those who say nothing do not keep a primary out.
        refuse(guests.front().from, "too many handshakes at once");
        guests.pop_front();
    }
    auto handshake = TlsHandshake::begin(context, std::move(socket));
    if (!handshake.ok()) return refuse(from, ::strerrordesc_np(handshake.error().code));
    Guest guest{std::move(handshake).value(), from, Clock::now() + options.handshake_within};
    const auto over = guest.handshake.step();
    if (over.ok() && !*over)
        guests.push_back(std::move(guest));
    else if (over.ok())
        arrive(std::move(guest));
    else
        refuse(from, over.error().doing.empty() ? ::strerrordesc_np(over.error().code)
                                                : over.error().doing);
}

void TcpListener::Parts::arrive(Guest guest) {
    {
        const std::lock_guard lock{mutex};
        if (arrived.size() < kArrivedAtMost) {
            arrived.push_back({guest.handshake.take_link(), guest.from});
            changed.notify_all();
            return;
        }
    }
    refuse(guest.from, "too many links at once");
}

Result<std::unique_ptr<TcpListener>> TcpListener::open(Options options) {
    auto parts = std::make_unique<Parts>();
    TS_ASSIGN(parts->context, TlsContext::make(options.secret, TlsSide::kAnswers));
    TS_ASSIGN(parts->sockets, listen_everywhere(options.address));
    TS_ASSIGN(parts->port, port_of(parts->sockets.front()));
    parts->options = std::move(options);
    parts->thread = std::thread{[&served = *parts] { served.serve(); }};
    return std::unique_ptr<TcpListener>{new TcpListener{std::move(parts)}};
}

TcpListener::TcpListener(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

TcpListener::~TcpListener() { stop(); }

Result<TcpListener::Arrived> TcpListener::accept() {
    std::unique_lock lock{parts_->mutex};
    parts_->changed.wait(lock, [&] { return parts_->stopping.load() || !parts_->arrived.empty(); });
    if (parts_->stopping.load()) return make_error(ECANCELED, "wait for a primary");
    Arrived next = std::move(parts_->arrived.front());
    parts_->arrived.pop_front();
    return next;
}

void TcpListener::stop() {
    const std::lock_guard joining{parts_->joining};
    {
        const std::lock_guard lock{parts_->mutex};
        parts_->stopping.store(true);
    }
    parts_->changed.notify_all();
    raise(parts_->stop_event);
    if (parts_->thread.joinable()) parts_->thread.join();
    parts_->guests.clear();
    parts_->sockets.clear();
    const std::lock_guard lock{parts_->mutex};
    parts_->arrived.clear();
}

std::uint16_t TcpListener::port() const { return parts_->port; }

}  // namespace twinspool
