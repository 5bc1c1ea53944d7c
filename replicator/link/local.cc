// SPDX-License-Identifier: Apache-2.0
#include "replicator/link/local.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <optional>
#include <string_view>

namespace twinspool {
namespace {

constexpr int kSocketBufferBytes = 4 << 20;
constexpr int kDiesWithin_ms = 10'000;
constexpr std::chrono::seconds kFinishWithin{60};

class SocketTransport final : public LinkTransport {
   public:
    explicit SocketTransport(Fd socket) : socket_(std::move(socket)) {}

    Status send(Bytes head, Bytes body) override {
        struct iovec pieces[2] = {piece(head), piece(body)};
        struct msghdr message {};
        message.msg_iov = pieces;
        message.msg_iovlen = 2;
        while (message.msg_iovlen > 0) {
            const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
            if (sent < 0) {
                if (errno == EINTR) continue;
                return last_error("send to the other side");
            }
            advance(message, static_cast<std::size_t>(sent));
        }
        return {};
    }

    [[nodiscard]] bool has_room(std::size_t bytes) const override {
        return socket_has_room(socket_.get(), bytes);
    }

    Status receive(std::span<std::byte> out) override {
        while (!out.empty()) {
            const ssize_t size = ::recv(socket_.get(), out.data(), out.size(), MSG_WAITALL);
            if (size < 0 && errno == EINTR) continue;
            if (size < 0) return last_error("receive from the other side");
            if (size == 0) return make_error(ECONNRESET, "receive from the other side");
            out = out.subspan(static_cast<std::size_t>(size));
        }
        return {};
    }

    void shutdown() override { ::shutdown(socket_.get(), SHUT_RDWR); }

   private:
    static struct iovec piece(Bytes bytes) {
        return {const_cast<std::byte*>(bytes.data()), bytes.size()};
    }
    static void advance(struct msghdr& message, std::size_t sent) {
        while (message.msg_iovlen > 0 && sent >= message.msg_iov->iov_len) {
            sent -= message.msg_iov->iov_len;
            ++message.msg_iov;
            --message.msg_iovlen;
        }
        if (message.msg_iovlen == 0) return;
        message.msg_iov->iov_base = static_cast<char*>(message.msg_iov->iov_base) + sent;
        message.msg_iov->iov_len -= sent;
    }
    Fd socket_;
};

}  // namespace

std::unique_ptr<LinkTransport> socket_transport(Fd socket) {
    return std::make_unique<SocketTransport>(std::move(socket));
}

Result<StandbyProcess> StandbyProcess::spawn(const Command& command, Fd& our_end) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return last_error("make a socketpair for the standby");
    our_end.reset(ends[0]);
    const Fd theirs{ends[1]};
    for (const int end : ends) {
        (void)::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &kSocketBufferBytes,
                           sizeof kSocketBufferBytes);
        (void)::setsockopt(end, SOL_SOCKET, SO_RCVBUF, &kSocketBufferBytes,
                           sizeof kSocketBufferBytes);
    }
    std::vector<char*> arguments;
    for (const std::string& each : command.arguments)
        arguments.push_back(const_cast<char*>(each.c_str()));
    arguments.push_back(nullptr);
    std::vector<char*> environment;
    for (char** each = environ; *each != nullptr; ++each)
        if (command.inherit_fault || !std::string_view{*each}.starts_with("TWINSPOOL_FAULT="))
            environment.push_back(*each);
    environment.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    // dup2 onto itself clears close-on-exec as well.
    posix_spawn_file_actions_adddup2(&actions, theirs.get(), kStandbySocket);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    pid_t pid = -1;
    const int error = ::posix_spawn(&pid, arguments[0], &actions, &attributes, arguments.data(),
                                    environment.data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (error != 0) return make_error(error, "start the standby process {}", command.arguments[0]);
    return StandbyProcess{pid};
}

void StandbyProcess::finish(std::chrono::seconds limit) {
    const Fd fd{static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0))};
    struct pollfd ended {
        .fd = fd.get(), .events = POLLIN, .revents = 0
    };
    const auto limit_ms = std::chrono::duration_cast<std::chrono::milliseconds>(limit).count();
    if (::poll(&ended, 1, static_cast<int>(limit_ms)) <= 0) {
        ::kill(pid_, SIGKILL);
        // A disk that hangs keeps it beyond that: it is left behind, holding its store.
        if (::poll(&ended, 1, kDiesWithin_ms) <= 0) return;
    }
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
}

void StandbyProcess::kill() { finish(std::chrono::seconds{0}); }

namespace {

class LocalConnector final : public Connector {
   public:
    explicit LocalConnector(StandbyProcess::Command command) : command_(std::move(command)) {}
    ~LocalConnector() override { end(LinkEnd::kLost); }

    Result<std::shared_ptr<LinkTransport>> connect() override {
        if (cancelled_.load()) return make_error(ECANCELED, "reach the standby");
        TS_ASSERT(!process_);
        Fd ours;
        TS_ASSIGN(process_, StandbyProcess::spawn(command_, ours));
        // A fault point that ends the standby does so once, not at each restart.
        command_.inherit_fault = false;
        pid_.store(process_->pid());
        return std::shared_ptr<LinkTransport>{socket_transport(std::move(ours))};
    }
    void cancel() override { cancelled_.store(true); }
    void ended(LinkEnd how) override { end(how); }
    [[nodiscard]] pid_t pid() const override { return pid_.load(); }

   private:
    void end(LinkEnd how) {
        if (!process_) return;
        if (how == LinkEnd::kOrderly)
            process_->finish(kFinishWithin);
        else
            process_->kill();
        pid_.store(0);
        process_.reset();
    }

    StandbyProcess::Command command_;
    std::optional<StandbyProcess> process_;
    std::atomic<pid_t> pid_ = 0;
    std::atomic<bool> cancelled_ = false;
};

}  // namespace

std::unique_ptr<Connector> local_connector(StandbyProcess::Command command) {
    return std::make_unique<LocalConnector>(std::move(command));
}

}  // namespace twinspool
