// SPDX-License-Identifier: Apache-2.0
// Transport: an ordered, reliable stream of bytes between a primary and one standby. Two models: a
// socketpair to a local process (local.h), and TCP with TLS (tcp.h). One thread receives at a time,
// and one sends; shutdown() may be called by any and makes both return.
#pragma once

#include <span>

#include "journal/base/result.h"
#include "journal/format/op.h"

namespace twinspool {

class LinkTransport {
   public:
    virtual ~LinkTransport() = default;
    // All of the two pieces, one after the other. EPIPE: the other side is gone.
    virtual Status send(Bytes head, Bytes body) = 0;
    // Whether so many bytes can be sent now without waiting for the other side to take any. "No" is
    // always right.
    [[nodiscard]] virtual bool has_room(std::size_t /*bytes*/) const { return false; }
    // Fills `out`. ECONNRESET: the other side is gone; ETIMEDOUT never (see shutdown()).
    virtual Status receive(std::span<std::byte> out) = 0;
    virtual void shutdown() = 0;
};

// The same of a stream socket.
[[nodiscard]] bool socket_has_room(int socket, std::size_t bytes);

}  // namespace twinspool
