// SPDX-License-Identifier: Apache-2.0
// Tcp: links over the network. TLS 1.3 with the volume's shared secret as an external pre-shared
// key: both sides are authenticated by it, and nothing but the volume's id is sent in the clear.
// The tcp files are the only ones that know OpenSSL, addresses and TCP.
//
// The PSK identity is "twinspool-" and the volume's id in hexadecimal. Cost of a stranger: one
// descriptor for at most kHandshakeWithin, and no more than kMaxHandshakes of them at a time; when
// there are more, the oldest is closed, so that strangers who say nothing do not keep a primary
// out.
//
// The end of a link that we close may overtake nothing that was sent before, but with bytes unread
// on our side the kernel ends it with a reset: the other side's send() then fails before its
// receive() has told what was said last.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "replicator/link/connector.h"
#include "replicator/link/transport.h"

namespace twinspool {

inline constexpr std::uint16_t kDefaultPort = 4471;
inline constexpr std::chrono::seconds kHandshakeWithin{5};
inline constexpr std::size_t kMaxHandshakes = 16;

struct LinkSecret {
    std::uint64_t volume = 0;
    std::array<std::byte, 32> key{};
};

struct HostAddress {
    std::string host;  // a name or an address (IPv6 without brackets); empty: any
    std::uint16_t port = kDefaultPort;
    friend bool operator==(const HostAddress&, const HostAddress&) = default;
};
// "HOST", "HOST:PORT", "[V6]:PORT", as people write it: without the port if it is kDefaultPort;
// any host is "*".
std::string spell(const HostAddress& address);

// Tries all addresses of the host, IPv6 and IPv4; each connect() ends within `within`, name lookup
// included, though that goes on by itself (getaddrinfo() cannot be cancelled).
// EACCES: the other side has another secret. EPERM: it serves another volume. EPROTO: what is there
// is no Twinspool. ECANCELED: after cancel(). Otherwise what the network says.
std::unique_ptr<Connector> tcp_connector(const HostAddress& address, const LinkSecret& secret,
                                         Nanoseconds within);

class TcpListener {
   public:
    struct Options {
        HostAddress address;  // where to listen; port 0: any (tests)
        LinkSecret secret;
        // A connection that did not become a link: from where, and why. From any thread.
        // It holds up the handshakes of others, and must not call stop().
        std::function<void(const std::string& from, const std::string& why)> refused;
        Nanoseconds handshake_within = kHandshakeWithin;
        std::size_t max_handshakes = kMaxHandshakes;
    };
    static Result<std::unique_ptr<TcpListener>> open(Options options);
    ~TcpListener();
    TcpListener(const TcpListener&) = delete;
    TcpListener& operator=(const TcpListener&) = delete;

    struct Arrived {
        std::shared_ptr<LinkTransport> transport;
        std::string from;  // address and port
    };
    // The next link whose handshake has succeeded. ECANCELED after stop().
    Result<Arrived> accept();
    void stop();  // any thread
    [[nodiscard]] std::uint16_t port() const;

   private:
    struct Parts;
    explicit TcpListener(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

}  // namespace twinspool
