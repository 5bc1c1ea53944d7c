// SPDX-License-Identifier: Apache-2.0
#include "replicator/link/tcp_address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <thread>

namespace twinspool {
namespace {

constexpr int kIdleBeforeProbe_s = 30;
constexpr int kBetweenProbes_s = 10;
constexpr int kProbes = 3;

int resolve(const HostAddress& address, int flags, std::vector<SocketAddress>& found) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags | AI_NUMERICSERV;
    addrinfo* list = nullptr;
    const std::string port = std::to_string(address.port);
    const int error = ::getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(),
                                    port.c_str(), &hints, &list);
    if (error != 0) return error;
    for (const addrinfo* each = list; each != nullptr; each = each->ai_next) {
        SocketAddress next;
        if (each->ai_addrlen > sizeof next.storage) continue;
        std::memcpy(&next.storage, each->ai_addr, each->ai_addrlen);
        next.size = each->ai_addrlen;
        found.push_back(next);
    }
    ::freeaddrinfo(list);
    return found.empty() ? EAI_NONAME : 0;
}

bool is_v6(const std::string& host) { return host.find(':') != std::string::npos; }

}  // namespace

HostAddress SocketAddress::numeric() const {
    SocketAddress plain = *this;
    if (family() == AF_INET6) {
        sockaddr_in6 v6{};
        std::memcpy(&v6, &storage, sizeof v6);
        if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
            sockaddr_in v4{.sin_family = AF_INET, .sin_port = v6.sin6_port};
            std::memcpy(&v4.sin_addr, &v6.sin6_addr.s6_addr[12], sizeof v4.sin_addr);
            plain = SocketAddress{};
            std::memcpy(&plain.storage, &v4, sizeof v4);
            plain.size = sizeof v4;
        }
    }
    char host[NI_MAXHOST] = "?";
    char port[NI_MAXSERV] = "0";
    (void)::getnameinfo(plain.get(), plain.size, host, sizeof host, port, sizeof port,
                        NI_NUMERICHOST | NI_NUMERICSERV);
    return {host, static_cast<std::uint16_t>(std::strtoul(port, nullptr, 10))};
}

SocketAddress SocketAddress::with_port(std::uint16_t port) const {
    // The port stands at the same place in both families.
    static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
    SocketAddress changed = *this;
    const in_port_t raw = htons(port);
    std::memcpy(reinterpret_cast<char*>(&changed.storage) + offsetof(sockaddr_in, sin_port), &raw,
                sizeof raw);
    return changed;
}

std::string spell(const HostAddress& address) {
    if (address.port != kDefaultPort) return spell_with_port(address);
    if (address.host.empty()) return "*";
    return is_v6(address.host) ? fmt::format("[{}]", address.host) : address.host;
}

std::string spell_with_port(const HostAddress& address) {
    if (address.host.empty()) return fmt::format("*:{}", address.port);
    if (is_v6(address.host)) return fmt::format("[{}]:{}", address.host, address.port);
    return fmt::format("{}:{}", address.host, address.port);
}

// --- Lookup

struct Lookup::Outcome {
    Fd ready = make_event();
    std::atomic<bool> done = false;  // what follows is written before, and read after
    std::optional<Error> error;
    std::vector<SocketAddress> found;

    void finish(const HostAddress& address, int code) {
        if (code != 0)
            error = code == EAI_SYSTEM
                        ? last_error("look up {}", address.host)
                        : make_error(ENXIO, "look up {} ({})", address.host, ::gai_strerror(code));
        done.store(true);
        raise(ready);
    }
};

std::unique_ptr<Lookup> Lookup::start(const HostAddress& address, Use use) {
    auto outcome = std::make_shared<Outcome>();
    const int flags = use == Use::kListen ? AI_PASSIVE : 0;
    const int numeric = resolve(address, flags | AI_NUMERICHOST, outcome->found);
    if (numeric == 0) {
        outcome->finish(address, 0);
    } else {
        std::thread{[outcome, address, flags] {
            outcome->finish(address, resolve(address, flags, outcome->found));
        }}.detach();
    }
    return std::unique_ptr<Lookup>{new Lookup{std::move(outcome)}};
}

int Lookup::ready() const { return outcome_->ready.get(); }

Result<std::vector<SocketAddress>> Lookup::take() const {
    TS_ASSERT(outcome_->done.load());
    if (outcome_->error) return *outcome_->error;
    return outcome_->found;
}

// --- waiting

Fd make_event() {
    Fd event{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    TS_ASSERT(event.valid());
    return event;
}

void raise(const Fd& event) {
    const std::uint64_t one = 1;
    (void)!::write(event.get(), &one, sizeof one);
}

int milliseconds_until(Deadline deadline) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    return static_cast<int>(
        std::clamp<std::int64_t>(left.count(), 0, std::numeric_limits<int>::max()));
}

Status wait_for(int fd, short events, Deadline deadline, const Fd& cancel) {
    for (;;) {
        pollfd waits[2] = {{.fd = cancel.get(), .events = POLLIN}, {.fd = fd, .events = events}};
        const int left = milliseconds_until(deadline);
        if (::poll(waits, 2, left) < 0 && errno != EINTR) return last_error("wait");
        if (waits[0].revents != 0) return Error{ECANCELED, ""};
        if (waits[1].revents != 0) return {};
        if (left == 0) return Error{ETIMEDOUT, ""};
    }
}

void tune(int socket) {
    // SO_SNDBUF and SO_RCVBUF stay as they are: given a size, the kernel stops fitting them to the
    // link, and net.core.*mem_max allows less than it takes by itself.
    const int on = 1;
    (void)::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &kIdleBeforeProbe_s,
                       sizeof kIdleBeforeProbe_s);
    (void)::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &kBetweenProbes_s,
                       sizeof kBetweenProbes_s);
    (void)::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &kProbes, sizeof kProbes);
}

}  // namespace twinspool
