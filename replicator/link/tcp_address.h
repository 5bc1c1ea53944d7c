// SPDX-License-Identifier: Apache-2.0
// Addresses: names looked up, socket addresses as text, sockets as links want them. Inside of tcp
// only.
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "journal/base/fd.h"
#include "journal/base/result.h"
#include "replicator/link/tcp.h"

namespace twinspool {

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t size = 0;
    [[nodiscard]] int family() const { return storage.ss_family; }
    [[nodiscard]] const sockaddr* get() const {
        return reinterpret_cast<const sockaddr*>(&storage);
    }
    [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
    [[nodiscard]] SocketAddress with_port(std::uint16_t port) const;
    [[nodiscard]] HostAddress numeric() const;  // an IPv4 address inside of IPv6 as IPv4
};

// With the port, always.
std::string spell_with_port(const HostAddress& address);

// All addresses of a host. getaddrinfo() cannot be cancelled: it has a thread of its own, which
// outlives the Lookup if need be, and poll() on ready() waits for it. A numeric address is there at
// once, without a thread.
class Lookup {
   public:
    enum class Use : unsigned char { kConnect, kListen };
    static std::unique_ptr<Lookup> start(const HostAddress& address, Use use);
    [[nodiscard]] int ready() const;
    // Once ready() can be read. Not empty.
    [[nodiscard]] Result<std::vector<SocketAddress>> take() const;

   private:
    struct Outcome;
    explicit Lookup(std::shared_ptr<Outcome> outcome) : outcome_(std::move(outcome)) {}
    std::shared_ptr<Outcome> outcome_;
};

// A descriptor that can be read from raise() on.
Fd make_event();
void raise(const Fd& event);

using Deadline = std::chrono::steady_clock::time_point;
// For poll(): what is left, rounded up; 0 when it is over.
int milliseconds_until(Deadline deadline);
// ETIMEDOUT after the deadline, ECANCELED if `cancel` can be read.
Status wait_for(int fd, short events, Deadline deadline, const Fd& cancel);

// A new socket of a link: sends at once, notices in the end that nobody is there.
void tune(int socket);

}  // namespace twinspool
