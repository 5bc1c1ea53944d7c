// SPDX-License-Identifier: Apache-2.0
// Local: a link to a standby process on the same machine, over a socketpair.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "journal/base/fd.h"
#include "replicator/link/connector.h"
#include "replicator/link/transport.h"

namespace twinspool {

// The descriptor at which a spawned standby process finds its end.
inline constexpr int kStandbySocket = 3;

std::unique_ptr<LinkTransport> socket_transport(Fd socket);

// A child process; must be ended with finish() or abandon().
class StandbyProcess {
   public:
    struct Command {
        std::vector<std::string> arguments;  // [0] is the program's path
        bool inherit_fault = true;           // pass TWINSPOOL_FAULT on
    };
    static Result<StandbyProcess> spawn(const Command& command, Fd& our_end);
    [[nodiscard]] pid_t pid() const { return pid_; }
    // Waits until it has ended by itself (it does when the link is shut down); kills it if that
    // takes longer than `limit`.
    void finish(std::chrono::seconds limit);
    // Kills it, and waits.
    void kill();

   private:
    explicit StandbyProcess(pid_t pid) : pid_(pid) {}
    pid_t pid_;
};

// Each connect() starts the process; the fault that our environment chose goes to the first one
// only. Ended in an orderly way it has a minute to apply what it has. ECANCELED after cancel().
std::unique_ptr<Connector> local_connector(StandbyProcess::Command command);

}  // namespace twinspool
