// SPDX-License-Identifier: Apache-2.0
// Tcp: links over the network. TLS 1.3 with the volume's shared secret as an external pre-shared
// key: both sides are authenticated by it, and nothing is sent in the clear. The one file that
// knows OpenSSL, addresses and TCP.
//
// The PSK identity is "twinspool-" and the volume's id in hexadecimal. Cost of a stranger: one
// descriptor and one thread for at most kHandshakeWithin, and no more than kMaxHandshakes of them
// at a time; further ones are closed at once.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "journal/result.h"
#include "journal/units.h"
#include "replicator/connector.h"
#include "replicator/transport.h"

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
// "HOST", "HOST:PORT", "[V6]:PORT", as people write it.
std::string spell(const HostAddress& address);

// Tries all addresses of the host, IPv6 and IPv4; each connect() ends within `within`.
// EACCES: the other side has another secret. EPERM: it serves another volume.
std::unique_ptr<Connector> tcp_connector(const HostAddress& address, const LinkSecret& secret,
                                         Nanoseconds within);

class TcpListener {
   public:
    struct Options {
        HostAddress address;  // where to listen; port 0: any (tests)
        LinkSecret secret;
        // A connection that did not become a link: from where, and why. From any thread.
        std::function<void(const std::string& from, const std::string& why)> refused;
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
