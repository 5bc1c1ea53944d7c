// SPDX-License-Identifier: Apache-2.0
#include "tools/ground/control.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace twinspool {
namespace {

constexpr const char* kSocketName = "control.sock";
constexpr int kBacklog = 64;
constexpr std::chrono::milliseconds kRespite{100};  // after "too many open files" and the like

// The socket by way of its directory's descriptor: sun_path has room for 107 bytes only.
Result<sockaddr_un> address_in(int directory) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const auto path = fmt::format("/proc/self/fd/{}/{}", directory, kSocketName);
    TS_ASSERT(path.size() < sizeof address.sun_path);
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

Result<Fd> open_directory(const std::string& path) {
    Fd directory{::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
    if (!directory.valid()) return last_error("open {}", path);
    return directory;
}

Status send_line(int fd, const Json& message) {
    std::string line = message.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    std::string_view rest = line;
    while (!rest.empty()) {
        const ssize_t sent = ::send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return last_error("send on the control socket");
        rest.remove_prefix(static_cast<std::size_t>(sent));
    }
    return {};
}

// Nothing at the end of the stream.
Result<std::optional<Json>> receive_line(int fd, std::size_t limit) {
    std::string line;
    char buffer[4096];
    while (line.empty() || line.back() != '\n') {
        const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return last_error("receive on the control socket");
        if (got == 0) return std::optional<Json>{};
        line.append(buffer, static_cast<std::size_t>(got));
        if (line.size() > limit) return make_error(EMSGSIZE, "receive on the control socket");
    }
    auto message = Json::parse(line, nullptr, false);
    if (message.is_discarded() || !message.is_object())
        return make_error(EBADMSG, "understand what came over the control socket");
    return std::optional<Json>{std::move(message)};
}

bool may_ask(int fd) {
    ucred peer{};
    socklen_t size = sizeof peer;
    return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == 0 || peer.uid == ::geteuid());
}

}  // namespace

bool Asker::gone() const {
    if (stopping_) return true;
    pollfd waiting{.fd = fd_, .events = POLLRDHUP, .revents = 0};
    return ::poll(&waiting, 1, 0) > 0 && (waiting.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

struct ControlServer::Parts {
    Handler handler;
    Fd listening;
    Fd wake;  // eventfd: the accepting thread is to end
    std::atomic<bool> stopping{false};
    std::mutex mutex;  // protects `connections`
    std::condition_variable ended;
    int connections = 0;
    std::thread accepting;

    void accept_loop() {
        for (;;) {
            pollfd waiting[] = {{.fd = listening.get(), .events = POLLIN, .revents = 0},
                                {.fd = wake.get(), .events = POLLIN, .revents = 0}};
            if (::poll(waiting, 2, -1) < 0 && errno != EINTR) return;
            if (stopping) return;
            Fd connection{::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC)};
            if (!connection.valid() && errno != EAGAIN) std::this_thread::sleep_for(kRespite);
            if (!connection.valid() || !may_ask(connection.get())) continue;
            {
                std::lock_guard lock(mutex);
                if (connections == kMaxConnections) continue;
                ++connections;
            }
            // Detached, but counted: the destructor waits for the last one.
            std::thread([this, fd = connection.release()] { serve(Fd{fd}); }).detach();
        }
    }

    void serve(Fd connection) {
        // A command that asks nothing does not keep its place.
        const timeval patience{.tv_sec = 10, .tv_usec = 0};
        (void)::setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        (void)::setsockopt(connection.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (auto request = receive_line(connection.get(), kMaxRequestBytes);
            request.ok() && request.value()) {
            const Json answer = handler(*request.value(), Asker(connection.get(), stopping));
            (void)send_line(connection.get(), answer);
        }
        connection.reset();
        std::lock_guard lock(mutex);
        --connections;
        ended.notify_all();
    }
};

ControlServer::ControlServer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

ControlServer::~ControlServer() {
    parts_->stopping = true;
    const std::uint64_t one = 1;
    (void)!::write(parts_->wake.get(), &one, sizeof one);
    parts_->accepting.join();
    std::unique_lock lock(parts_->mutex);
    parts_->ended.wait(lock, [&] { return parts_->connections == 0; });
}

Result<std::unique_ptr<ControlServer>> ControlServer::start(const std::string& run_directory,
                                                            Handler handler) {
    TS_ASSIGN(const auto directory, open_directory(run_directory));
    TS_ASSIGN(const auto address, address_in(directory.get()));
    auto parts = std::make_unique<Parts>();
    parts->handler = std::move(handler);
    parts->listening = Fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    parts->wake = Fd{::eventfd(0, EFD_CLOEXEC)};
    if (!parts->listening.valid() || !parts->wake.valid())
        return last_error("make the control socket");
    (void)::unlinkat(directory.get(), kSocketName, 0);
    // Private from its first moment: the run directory is 0700.
    if (::bind(parts->listening.get(), reinterpret_cast<const sockaddr*>(&address),
               sizeof address) != 0 ||
        fchmodat(directory.get(), kSocketName, 0600, 0) != 0 ||
        ::listen(parts->listening.get(), kBacklog) != 0)
        return last_error("listen on {}/{}", run_directory, kSocketName);
    Parts* raw = parts.get();
    parts->accepting = std::thread([raw] { raw->accept_loop(); });
    return std::unique_ptr<ControlServer>(new ControlServer(std::move(parts)));
}

Json not_understood(const Json& request) {
    return {{"error", fmt::format("does not know the request {}",
                                  request.dump(-1, ' ', false, Json::error_handler_t::replace))}};
}

Result<Json> ask_daemon(const std::string& run_directory, const Json& request) {
    TS_ASSIGN(const auto directory, open_directory(run_directory));
    TS_ASSIGN(const auto address, address_in(directory.get()));
    const Fd connection{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (!connection.valid()) return last_error("make a socket");
    if (::connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
        0)
        return last_error("reach the daemon at {}/{}", run_directory, kSocketName);
    TS_TRY(send_line(connection.get(), request));
    TS_ASSIGN(auto answer, receive_line(connection.get(), kMaxAnswerBytes));
    if (!answer) return make_error(ECONNRESET, "hear the daemon at {}", run_directory);
    return std::move(*answer);
}

bool is_nobody(const Error& error) {
    return error.code == ENOENT || error.code == ECONNREFUSED || error.code == ECONNRESET ||
           error.code == EPIPE;
}

}  // namespace twinspool
