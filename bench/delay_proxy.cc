// SPDX-License-Identifier: Apache-2.0
// A longer way to the standby: passes TCP connections on, each byte half a round trip later in each
// direction. Bandwidth is not limited.
//
// bench_delay_proxy LISTEN_PORT TARGET_PORT ROUND_TRIP_US      (both on 127.0.0.1)
// One connection at a time, as a standby has one primary.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <optional>
#include <vector>

#include "journal/base/fd.h"

namespace {

using twinspool::Fd;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kChunkBytes = std::size_t{64} << 10;
constexpr std::size_t kMaxQueuedBytes = std::size_t{64} << 20;

[[noreturn]] void give_up(const char* doing) {
    fmt::print(stderr, "bench_delay_proxy: {}: {}\n", doing, std::strerror(errno));
    std::exit(1);
}

sockaddr_in loopback(const char* port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(std::strtoul(port, nullptr, 10)));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

void make_prompt(int socket) {
    const int on = 1;
    (void)::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// One direction: what has come in waits until it is due.
class Way {
   public:
    Way(int from, int to, std::chrono::nanoseconds delay) : from_(from), to_(to), delay_(delay) {}

    [[nodiscard]] bool wants_input() const { return queued_ < kMaxQueuedBytes; }
    [[nodiscard]] std::optional<Clock::time_point> due() const {
        return pieces_.empty() ? std::nullopt : std::optional{pieces_.front().due};
    }
    // False: the other side has closed.
    bool take() {
        std::vector<char> bytes(kChunkBytes);
        const ssize_t got = ::recv(from_, bytes.data(), bytes.size(), MSG_DONTWAIT);
        if (got < 0) return errno == EAGAIN || errno == EINTR;
        if (got == 0) return false;
        bytes.resize(static_cast<std::size_t>(got));
        queued_ += bytes.size();
        pieces_.push_back({Clock::now() + delay_, std::move(bytes)});
        return true;
    }
    bool give(Clock::time_point now) {
        while (!pieces_.empty() && pieces_.front().due <= now) {
            const auto& bytes = pieces_.front().bytes;
            for (std::size_t at = 0; at < bytes.size();) {
                const ssize_t sent =
                    ::send(to_, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
                if (sent < 0 && errno != EINTR) return false;
                if (sent > 0) at += static_cast<std::size_t>(sent);
            }
            queued_ -= bytes.size();
            pieces_.pop_front();
        }
        return true;
    }

   private:
    struct Piece {
        Clock::time_point due;
        std::vector<char> bytes;
    };
    int from_;
    int to_;
    std::chrono::nanoseconds delay_;
    std::deque<Piece> pieces_;
    std::size_t queued_ = 0;
};

void serve(const Fd& near, const Fd& far, std::chrono::nanoseconds delay) {
    Way ways[2] = {{near.get(), far.get(), delay}, {far.get(), near.get(), delay}};
    for (;;) {
        auto next = Clock::now() + std::chrono::hours{1};
        for (const Way& way : ways)
            if (const auto due = way.due()) next = std::min(next, *due);
        const auto left = std::max(next - Clock::now(), Clock::duration::zero());
        const timespec patience{
            .tv_sec = std::chrono::duration_cast<std::chrono::seconds>(left).count(),
            .tv_nsec = (left % std::chrono::seconds{1}).count()};
        pollfd ends[2] = {{near.get(), static_cast<short>(ways[0].wants_input() ? POLLIN : 0), 0},
                          {far.get(), static_cast<short>(ways[1].wants_input() ? POLLIN : 0), 0}};
        if (::ppoll(ends, 2, &patience, nullptr) < 0 && errno != EINTR) return;
        for (int i = 0; i < 2; ++i)
            if (ends[i].revents != 0 && !ways[i].take()) return;
        for (Way& way : ways)
            if (!way.give(Clock::now())) return;
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        fmt::print(stderr, "usage: bench_delay_proxy LISTEN_PORT TARGET_PORT ROUND_TRIP_US\n");
        return 2;
    }
    const std::chrono::nanoseconds delay{std::strtoll(argv[3], nullptr, 10) * 500};
    // So that half of 0.2 ms is that, and not 0.15.
    struct sched_param parameters {};
    parameters.sched_priority = 1;
    (void)::sched_setscheduler(0, SCHED_RR, &parameters);
    const Fd listener{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const int on = 1;
    (void)::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const sockaddr_in here = loopback(argv[1]);
    const sockaddr_in there = loopback(argv[2]);
    if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&here), sizeof here) != 0 ||
        ::listen(listener.get(), 8) != 0)
        give_up("listen");
    for (;;) {
        const Fd near{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)};
        if (!near.valid()) continue;
        const Fd far{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        if (::connect(far.get(), reinterpret_cast<const sockaddr*>(&there), sizeof there) != 0)
            continue;
        make_prompt(near.get());
        make_prompt(far.get());
        serve(near, far, delay);
    }
}
