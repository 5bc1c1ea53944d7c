// SPDX-License-Identifier: Apache-2.0
#include "replicator/link/tcp_tls.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "replicator/link/local.h"

namespace twinspool {
namespace {

// AES-128 takes ten rounds where AES-256 takes fourteen; the secret has 256 bits either way.
constexpr const char* kSuite = "TLS_AES_128_GCM_SHA256";
constexpr unsigned char kSuiteCode[2] = {0x13, 0x01};
constexpr const char* kGroups = "X25519";
constexpr std::string_view kIdentityPrefix = "twinspool-";
constexpr std::size_t kVolumeDigits = 16;

constexpr std::size_t kRecordBytes = SSL3_RT_MAX_PLAIN_LENGTH;
constexpr std::size_t kChunkBytes = 4 * kRecordBytes;  // encrypted under one lock, sent by one call
// AES-GCM is good for 2^24.5 records with one key (RFC 8446, 5.5); a new one costs next to nothing.
constexpr std::uint64_t kRecordsWithOneKey = 1U << 16U;
constexpr std::size_t kHandshakeBytes = 64 << 10;  // a real one needs less than one

struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
    void operator()(SSL* ssl) const { SSL_free(ssl); }
    void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
};
using SslPointer = std::unique_ptr<SSL, Free>;

std::string identity_of(std::uint64_t volume) {
    return fmt::format("{}{:016x}", kIdentityPrefix, volume);
}

struct Context final : public TlsContext {
    LinkSecret secret;
    TlsSide side{};
    std::string identity;
    std::unique_ptr<SSL_CTX, Free> ssl;  // none: nothing is encrypted (test builds only)
};

// What the callbacks of one handshake see.
struct Story {
    const Context* context = nullptr;
    std::string offered;  // an identity that is not ours
};

// Test builds may send what the frame's own checksum is to catch; others know no way to.
#ifdef TWINSPOOL_FAULTS
constexpr bool kMayBePlain = true;
bool plaintext() {
    const char* const wish = std::getenv("TWINSPOOL_PLAINTEXT");  // NOLINT(concurrency-mt-unsafe)
    return wish != nullptr && std::string_view{wish} == "1";
}
#else
constexpr bool kMayBePlain = false;
constexpr bool plaintext() { return false; }
#endif

SSL_SESSION* session_of(SSL* ssl, const LinkSecret& secret) {
    const SSL_CIPHER* const suite = SSL_CIPHER_find(ssl, kSuiteCode);
    std::unique_ptr<SSL_SESSION, Free> session{SSL_SESSION_new()};
    if (suite == nullptr || !session ||
        SSL_SESSION_set1_master_key(session.get(),
                                    reinterpret_cast<const unsigned char*>(secret.key.data()),
                                    secret.key.size()) != 1 ||
        SSL_SESSION_set_cipher(session.get(), suite) != 1 ||
        SSL_SESSION_set_protocol_version(session.get(), TLS1_3_VERSION) != 1)
        return nullptr;
    return session.release();
}

int offer_secret(SSL* ssl, const EVP_MD* /*digest*/, const unsigned char** identity,
                 std::size_t* size, SSL_SESSION** session) {
    const auto& story = *static_cast<const Story*>(SSL_get_app_data(ssl));
    *session = session_of(ssl, story.context->secret);
    *identity = reinterpret_cast<const unsigned char*>(story.context->identity.data());
    *size = story.context->identity.size();
    return *session != nullptr ? 1 : 0;
}

int find_secret(SSL* ssl, const unsigned char* identity, std::size_t size, SSL_SESSION** session) {
    auto& story = *static_cast<Story*>(SSL_get_app_data(ssl));
    const std::string_view offered{reinterpret_cast<const char*>(identity), size};
    *session = nullptr;
    if (offered != story.context->identity) {
        // Not an error here: without a secret, and without certificates, there is no way to go on,
        // and the alert for that is one of its own.
        story.offered = offered;
        return 1;
    }
    *session = session_of(ssl, story.context->secret);
    return *session != nullptr ? 1 : 0;
}

Error tls_error(std::string_view doing) {
    const unsigned long code = ERR_peek_error();
    const char* const words = ERR_reason_error_string(code);
    return make_error(EPROTO, "{} ({})", doing, words != nullptr ? words : "TLS failed");
}

}  // namespace

Result<std::shared_ptr<const TlsContext>> TlsContext::make(const LinkSecret& secret, TlsSide side) {
    auto context = std::make_shared<Context>();
    context->secret = secret;
    context->side = side;
    context->identity = identity_of(secret.volume);
    if (plaintext()) return std::shared_ptr<const TlsContext>{std::move(context)};
    ERR_clear_error();
    context->ssl.reset(
        SSL_CTX_new(side == TlsSide::kCalls ? TLS_client_method() : TLS_server_method()));
    SSL_CTX* const ssl = context->ssl.get();
    if (ssl == nullptr || SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(ssl, kSuite) != 1 || SSL_CTX_set1_groups_list(ssl, kGroups) != 1 ||
        SSL_CTX_set_num_tickets(ssl, 0) != 1)
        return tls_error("prepare TLS");
    SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_quiet_shutdown(ssl, 1);
    if (side == TlsSide::kCalls) {
        // A certificate instead of the secret is not good enough, whoever signed it.
        SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
        SSL_CTX_set_psk_use_session_callback(ssl, offer_secret);
    } else {
        SSL_CTX_set_psk_find_session_callback(ssl, find_secret);
    }
    return std::shared_ptr<const TlsContext>{std::move(context)};
}

namespace {

Status send_all(int socket, Bytes bytes) {
    while (!bytes.empty()) {
        const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) {
            if (errno == ECONNRESET || errno == ETIMEDOUT) errno = EPIPE;
            return last_error("send to the other side");
        }
        bytes = bytes.subspan(static_cast<std::size_t>(sent));
    }
    return {};
}

// A link whose handshake is over. The socket blocks.
class TlsTransport final : public LinkTransport {
   public:
    // `in` and `out` belong to `ssl`.
    TlsTransport(Fd socket, SslPointer ssl, BIO* in, BIO* out)
        : socket_(std::move(socket)), ssl_(std::move(ssl)), in_(in), out_(out) {}

    Status send(Bytes head, Bytes body) override {
        while (!head.empty() || !body.empty()) {
            TS_TRY(encrypt(head, body));
            TS_TRY(send_all(socket_.get(), encrypted_));
        }
        return {};
    }

    // Records add a little.
    [[nodiscard]] bool has_room(std::size_t bytes) const override {
        return socket_has_room(socket_.get(), bytes + bytes / 8);
    }

    Status receive(std::span<std::byte> out) override {
        for (;;) {
            TS_TRY(decrypt(out));
            if (out.empty()) return {};
            const ssize_t size = ::recv(socket_.get(), received_.data(), received_.size(), 0);
            if (size < 0 && errno == EINTR) continue;
            if (size < 0 && errno != ETIMEDOUT) return last_error("receive from the other side");
            if (size <= 0) return make_error(ECONNRESET, "receive from the other side");
            const std::lock_guard lock{mutex_};
            if (BIO_write(in_, received_.data(), static_cast<int>(size)) != size)
                return make_error(ENOMEM, "receive from the other side");
        }
    }

    void shutdown() override { ::shutdown(socket_.get(), SHUT_RDWR); }

   private:
    // Of the two pieces what makes one chunk; `encrypted_` is what is to be sent for it.
    Status encrypt(Bytes& head, Bytes& body) {
        const std::lock_guard lock{mutex_};
        ERR_clear_error();
        if (records_ >= kRecordsWithOneKey) {
            if (SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1)
                return tls_error("send to the other side: change the key");
            records_ = 0;
        }
        for (std::size_t size = 0; size < kChunkBytes && !(head.empty() && body.empty());) {
            const Bytes piece = head.empty() ? cut(body, kChunkBytes - size) : join(head, body);
            // Memory takes everything.
            if (SSL_write(ssl_.get(), piece.data(), static_cast<int>(piece.size())) <= 0)
                return make_error(EPIPE, "send to the other side");
            size += piece.size();
            records_ += (piece.size() + kRecordBytes - 1) / kRecordBytes;
        }
        encrypted_.resize(BIO_ctrl_pending(out_));
        const int size = static_cast<int>(encrypted_.size());
        if (BIO_read(out_, encrypted_.data(), size) != size)
            return make_error(EPIPE, "send to the other side");
        return {};
    }

    static Bytes cut(Bytes& from, std::size_t size) {
        const Bytes piece = from.first(std::min(from.size(), size));
        from = from.subspan(piece.size());
        return piece;
    }
    // A head and the beginning of its body go in one record.
    Bytes join(Bytes& head, Bytes& body) {
        const Bytes first = cut(head, kRecordBytes);
        const Bytes second = cut(body, head.empty() ? kRecordBytes - first.size() : 0);
        std::memcpy(joined_.data(), first.data(), first.size());
        if (!second.empty())
            std::memcpy(joined_.data() + first.size(), second.data(), second.size());
        return Bytes{joined_}.first(first.size() + second.size());
    }

    // Fills `out` as far as what has come allows.
    Status decrypt(std::span<std::byte>& out) {
        const std::lock_guard lock{mutex_};
        ERR_clear_error();
        while (!out.empty()) {
            const int room = static_cast<int>(std::min<std::size_t>(out.size(), 1U << 30U));
            const int size = SSL_read(ssl_.get(), out.data(), room);
            if (size > 0) {
                out = out.subspan(static_cast<std::size_t>(size));
                continue;
            }
            switch (SSL_get_error(ssl_.get(), size)) {
                case SSL_ERROR_WANT_READ:
                    return {};
                case SSL_ERROR_SSL: {
                    const char* const words = ERR_reason_error_string(ERR_peek_error());
                    return make_error(EBADMSG, "receive from the other side: {}",
                                      words != nullptr ? words : "what came is damaged");
                }
                default:
                    return make_error(ECONNRESET, "receive from the other side");
            }
        }
        return {};
    }

    const Fd socket_;
    std::mutex mutex_;  // protects the next four
    SslPointer ssl_;
    BIO* in_;
    BIO* out_;
    std::uint64_t records_ = 0;  // sent with the present key
    // of the thread that sends
    std::array<std::byte, kRecordBytes> joined_{};
    std::vector<std::byte> encrypted_;
    // of the thread that receives
    std::array<std::byte, kChunkBytes> received_{};
};

// As a person can read it: identities are bytes that a stranger chose.
Error of_another(std::string_view offered) {
    const bool ours = offered.size() == kIdentityPrefix.size() + kVolumeDigits &&
                      offered.starts_with(kIdentityPrefix) &&
                      offered.find_first_not_of("0123456789abcdef", kIdentityPrefix.size()) ==
                          std::string_view::npos;
    if (!ours) return Error{EPERM, "it is of no volume (an unknown identity)"};
    return make_error(EPERM, "it is of another volume ({})",
                      offered.substr(kIdentityPrefix.size()));
}

}  // namespace

struct TlsHandshake::Peer {
    std::shared_ptr<const TlsContext> owner;
    Story story;
    Fd socket;
    SslPointer ssl;
    BIO* in = nullptr;   // ssl's
    BIO* out = nullptr;  // ssl's
    std::size_t received = 0;
    short wants = POLLIN;

    Result<bool> flush();
    Status fill();
    [[nodiscard]] Error why() const;
};

// Whether all is sent that OpenSSL wants to send.
Result<bool> TlsHandshake::Peer::flush() {
    char* data = nullptr;
    for (long left = 0; (left = BIO_get_mem_data(out, &data)) > 0;) {
        const ssize_t sent =
            ::send(socket.get(), data, static_cast<std::size_t>(left), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) return false;
        if (sent < 0) return last_error("");
        std::array<char, kRecordBytes> gone;
        for (int skip = static_cast<int>(sent); skip > 0;)
            skip -= BIO_read(out, gone.data(), std::min(skip, static_cast<int>(gone.size())));
    }
    return true;
}

// EAGAIN: nothing has come.
Status TlsHandshake::Peer::fill() {
    std::array<std::byte, 4096> bytes;
    for (;;) {
        const ssize_t size = ::recv(socket.get(), bytes.data(), bytes.size(), 0);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return last_error("");
        if (size == 0) return Error{ECONNRESET, "it hung up"};
        received += static_cast<std::size_t>(size);
        if (received > kHandshakeBytes) return Error{EPROTO, "its greeting has no end"};
        if (BIO_write(in, bytes.data(), static_cast<int>(size)) != size) return Error{ENOMEM, ""};
        return {};
    }
}

Error TlsHandshake::Peer::why() const {
    const bool calls = story.context->side == TlsSide::kCalls;
    switch (ERR_GET_REASON(ERR_peek_error())) {
        case SSL_R_BINDER_DOES_NOT_VERIFY:
        case SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER:
        case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
        case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
        case SSL_R_DIGEST_CHECK_FAILED:
            return {EACCES, "its secret is not ours"};
        case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
            if (calls) return {EPERM, "it serves another volume"};
            break;
        case SSL_R_WRONG_VERSION_NUMBER:
        case SSL_R_HTTP_REQUEST:
        case SSL_R_HTTPS_PROXY_REQUEST:
        case SSL_R_PACKET_LENGTH_TOO_LONG:
        case SSL_R_BAD_RECORD_TYPE:
        case SSL_R_UNEXPECTED_MESSAGE:
            return {EPROTO, "what it sends is not TLS"};
        case SSL_R_UNSUPPORTED_PROTOCOL:
        case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
            return {EPROTO, "it does not know TLS 1.3"};
        default:
            break;
    }
    if (!story.offered.empty()) return of_another(story.offered);
    return tls_error("it is no Twinspool");
}

TlsHandshake::TlsHandshake(std::unique_ptr<Peer> peer) : peer_(std::move(peer)) {}
TlsHandshake::~TlsHandshake() = default;
TlsHandshake::TlsHandshake(TlsHandshake&&) noexcept = default;
TlsHandshake& TlsHandshake::operator=(TlsHandshake&&) noexcept = default;

Result<TlsHandshake> TlsHandshake::begin(std::shared_ptr<const TlsContext> context, Fd socket) {
    const auto& rules = static_cast<const Context&>(*context);
    auto peer = std::make_unique<Peer>();
    peer->owner = std::move(context);
    peer->story.context = &rules;
    peer->socket = std::move(socket);
    if (kMayBePlain && !rules.ssl) return TlsHandshake{std::move(peer)};
    ERR_clear_error();
    peer->ssl.reset(SSL_new(rules.ssl.get()));
    peer->in = BIO_new(BIO_s_mem());
    peer->out = BIO_new(BIO_s_mem());
    if (!peer->ssl || peer->in == nullptr || peer->out == nullptr) {
        BIO_free(peer->in);
        BIO_free(peer->out);
        return Error{ENOMEM, ""};
    }
    SSL_set_bio(peer->ssl.get(), peer->in, peer->out);
    SSL_set_app_data(peer->ssl.get(), &peer->story);
    if (rules.side == TlsSide::kCalls)
        SSL_set_connect_state(peer->ssl.get());
    else
        SSL_set_accept_state(peer->ssl.get());
    return TlsHandshake{std::move(peer)};
}

Result<bool> TlsHandshake::step() {
    Peer& peer = *peer_;
    if (kMayBePlain && !peer.ssl) return true;
    for (;;) {
        ERR_clear_error();
        const int outcome = SSL_do_handshake(peer.ssl.get());
        if (outcome != 1 && SSL_get_error(peer.ssl.get(), outcome) != SSL_ERROR_WANT_READ) {
            const Error why = peer.why();
            (void)peer.flush();  // the alert: it says the same to the other side
            return why;
        }
        // Both have shown the secret, or there is no link.
        if (outcome == 1 && SSL_session_reused(peer.ssl.get()) != 1)
            return Error{EACCES, "its secret is not ours"};
        TS_ASSIGN(const bool flushed, peer.flush());
        peer.wants = flushed ? POLLIN : POLLOUT;
        if (!flushed) return false;
        if (outcome == 1) return true;
        const Status filled = peer.fill();
        if (!filled.ok() && filled.error().code == EAGAIN) return false;
        if (!filled.ok()) return filled.error();
    }
}

int TlsHandshake::fd() const { return peer_->socket.get(); }
short TlsHandshake::wants() const { return peer_->wants; }

std::shared_ptr<LinkTransport> TlsHandshake::take_link() {
    Peer& peer = *peer_;
    const int flags = ::fcntl(peer.socket.get(), F_GETFL);
    (void)::fcntl(peer.socket.get(), F_SETFL, flags & ~O_NONBLOCK);
    if (kMayBePlain && !peer.ssl) return socket_transport(std::move(peer.socket));
    SSL_set_app_data(peer.ssl.get(), nullptr);
    return std::make_shared<TlsTransport>(std::move(peer.socket), std::move(peer.ssl), peer.in,
                                          peer.out);
}

}  // namespace twinspool
