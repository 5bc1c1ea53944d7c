// SPDX-License-Identifier: Apache-2.0
// TLS: the handshake of a link, and the link after it. Inside of tcp only.
//
// OpenSSL never sees the socket: it works on memory, under a lock, and the sending and the
// receiving thread wait on the socket outside of it. So neither stops the other, nothing here waits
// with the lock held, and there is no write that OpenSSL could be killed for (SIGPIPE).
#pragma once

#include <memory>

#include "journal/base/fd.h"
#include "journal/base/result.h"
#include "replicator/link/tcp.h"
#include "replicator/link/transport.h"

namespace twinspool {

enum class TlsSide : unsigned char { kCalls, kAnswers };

// The secret and the rules of one side: TLS 1.3, one suite, the secret and a fresh key exchange,
// nothing else. Any number of handshakes at once.
class TlsContext {
   public:
    static Result<std::shared_ptr<const TlsContext>> make(const LinkSecret& secret, TlsSide side);
    virtual ~TlsContext() = default;

   protected:
    TlsContext() = default;
};

// One thread. Errors: EACCES: another secret; EPERM: another volume; EPROTO: something else that is
// not a link; ECONNRESET: it hung up. `doing` says why; empty: as the code says.
class TlsHandshake {
   public:
    // A connected, non-blocking socket.
    static Result<TlsHandshake> begin(std::shared_ptr<const TlsContext> context, Fd socket);
    ~TlsHandshake();
    TlsHandshake(TlsHandshake&&) noexcept;
    TlsHandshake& operator=(TlsHandshake&&) noexcept;

    // Goes on as far as it can without waiting. True: the other side has shown that it has the
    // secret.
    Result<bool> step();
    [[nodiscard]] int fd() const;
    [[nodiscard]] short wants() const;  // for poll(), when step() has returned false
    // After true, once.
    std::shared_ptr<LinkTransport> take_link();

   private:
    struct Peer;
    explicit TlsHandshake(std::unique_ptr<Peer> peer);
    std::unique_ptr<Peer> peer_;
};

}  // namespace twinspool
