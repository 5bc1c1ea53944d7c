// SPDX-License-Identifier: Apache-2.0
// Control: the daemon's socket for commands, run/VOLUME/control.sock (0600, and only root or the
// daemon's own user is heard). A request is one line of JSON, the answer another. The only file
// that knows the socket.
//
// Threads of the server: one that accepts, and one for each connection, at most kMaxConnections.
// The handler is called by several at once; one that waits asks `Asker::gone()` now and then.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "journal/base/fd.h"
#include "journal/base/result.h"

namespace twinspool {

using Json = nlohmann::ordered_json;

inline constexpr int kMaxConnections = 32;
inline constexpr std::size_t kMaxRequestBytes = 65536;
inline constexpr std::size_t kMaxAnswerBytes = std::size_t{4} << 20;

// The other end of a connection, as the handler sees it.
class Asker {
   public:
    Asker(int fd, const std::atomic<bool>& stopping) : fd_(fd), stopping_(stopping) {}
    // The command has ended, or the server is to end: nobody will read the answer.
    [[nodiscard]] bool gone() const;

   private:
    int fd_;
    const std::atomic<bool>& stopping_;
};

class ControlServer {
   public:
    using Handler = std::function<Json(const Json& request, const Asker& asker)>;
    // Listens in this directory. An old socket there is replaced: the caller holds the daemon's
    // lock.
    static Result<std::unique_ptr<ControlServer>> start(const std::string& run_directory,
                                                        Handler handler);
    ~ControlServer();  // no call of the handler is running afterwards
    ControlServer(const ControlServer&) = delete;
    ControlServer& operator=(const ControlServer&) = delete;

   private:
    struct Parts;
    explicit ControlServer(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

// The answer to a request that the handler does not know.
Json not_understood(const Json& request);

// One request. ENOENT, ECONNREFUSED: no daemon listens there. EPIPE: it ended before it heard.
// ECONNRESET: it ended meanwhile.
Result<Json> ask_daemon(const std::string& run_directory, const Json& request);
// There is no daemon to ask, or it ended before it answered.
bool is_nobody(const Error& error);

}  // namespace twinspool
