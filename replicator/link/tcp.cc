// SPDX-License-Identifier: Apache-2.0
#include "replicator/link/tcp.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "replicator/link/tcp_address.h"
#include "replicator/link/tcp_tls.h"

namespace twinspool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::hours kLongest{24};  // "for ever" would not fit into a point of time

class TcpConnector final : public Connector {
   public:
    TcpConnector(HostAddress address, const LinkSecret& secret, Nanoseconds within)
        : address_(std::move(address)), secret_(secret), within_(within) {}

    Result<std::shared_ptr<LinkTransport>> connect() override;
    void cancel() override {
        cancelled_.store(true);
        raise(cancel_);
    }
    void ended(LinkEnd /*how*/) override {}
    [[nodiscard]] pid_t pid() const override { return 0; }

   private:
    Result<std::vector<SocketAddress>> addresses(Deadline deadline);
    Result<std::shared_ptr<LinkTransport>> connect_to(const SocketAddress& to, Deadline deadline);
    Result<std::shared_ptr<LinkTransport>> greet(Fd socket, Deadline deadline);

    const HostAddress address_;
    const LinkSecret secret_;
    const Nanoseconds within_;
    const Fd cancel_ = make_event();
    std::atomic<bool> cancelled_ = false;
    std::shared_ptr<const TlsContext> context_;
    std::unique_ptr<Lookup> lookup_;  // under way still, from an earlier connect()
};

Result<std::shared_ptr<LinkTransport>> TcpConnector::connect() {
    const std::string name = spell_with_port(address_);
    const Deadline deadline = Clock::now() + std::min<Nanoseconds>(within_, kLongest);
    if (cancelled_.load()) return make_error(ECANCELED, "reach {}", name);
    if (!context_) {
        TS_ASSIGN(context_, TlsContext::make(secret_, TlsSide::kCalls));
    }
    const auto all = addresses(deadline);
    if (!all.ok()) {
        const Error& error = all.error();
        return make_error(error.code, "reach {}{}{}", name, error.doing.empty() ? "" : ": ",
                          error.doing);
    }
    std::string tried;
    for (std::size_t i = 0; i < all->size(); ++i) {
        // An address that does not answer leaves time for the others.
        const auto now = Clock::now();
        const auto share = (deadline - now) / static_cast<std::int64_t>(all->size() - i);
        auto link = connect_to((*all)[i], now + std::max(share, Clock::duration::zero()));
        if (link.ok()) return link;
        const Error& error = link.error();
        const bool of_the_other_side = !error.doing.empty();  // otherwise the network says it
        if (of_the_other_side &&
            (error.code == EACCES || error.code == EPERM || error.code == EPROTO))
            return make_error(error.code, "reach {}: {}", name, error.doing);
        tried += (tried.empty() ? "" : ", ") + (*all)[i].numeric().host;
        if (!error.doing.empty()) tried += fmt::format(" ({})", error.doing);
        // A filter of our own forbids it: not what EACCES and EPERM mean to our caller.
        const bool filtered = error.code == EACCES || error.code == EPERM;
        if (error.code == ECANCELED || i + 1 == all->size())
            return make_error(filtered ? EHOSTUNREACH : error.code, "reach {} at {}", name, tried);
        if (!of_the_other_side) tried += fmt::format(" ({})", ::strerrordesc_np(error.code));
    }
    return make_error(ENXIO, "reach {}", name);
}

Result<std::vector<SocketAddress>> TcpConnector::addresses(Deadline deadline) {
    if (!lookup_) lookup_ = Lookup::start(address_, Lookup::Use::kConnect);
    TS_TRY(wait_for(lookup_->ready(), POLLIN, deadline, cancel_));
    return std::exchange(lookup_, nullptr)->take();
}

Result<std::shared_ptr<LinkTransport>> TcpConnector::connect_to(const SocketAddress& to,
                                                                Deadline deadline) {
    Fd socket{::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!socket.valid()) return last_error("");
    tune(socket.get());
    if (::connect(socket.get(), to.get(), to.size) != 0) {
        if (errno != EINPROGRESS && errno != EINTR) return last_error("");
        TS_TRY(wait_for(socket.get(), POLLOUT, deadline, cancel_));
        int error = 0;
        socklen_t size = sizeof error;
        if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0)
            return last_error("");
        if (error != 0) return Error{error, ""};
    }
    return greet(std::move(socket), deadline);
}

Result<std::shared_ptr<LinkTransport>> TcpConnector::greet(Fd socket, Deadline deadline) {
    TS_ASSIGN(TlsHandshake handshake, TlsHandshake::begin(context_, std::move(socket)));
    for (;;) {
        TS_ASSIGN(const bool over, handshake.step());
        if (over) return handshake.take_link();
        TS_TRY(wait_for(handshake.fd(), handshake.wants(), deadline, cancel_));
    }
}

}  // namespace

std::unique_ptr<Connector> tcp_connector(const HostAddress& address, const LinkSecret& secret,
                                         Nanoseconds within) {
    return std::make_unique<TcpConnector>(address, secret, within);
}

}  // namespace twinspool
