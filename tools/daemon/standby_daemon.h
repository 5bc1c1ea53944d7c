// SPDX-License-Identifier: Apache-2.0
// StandbyDaemon: the process behind `standby`: a standby on another host, until it is told to end.
#pragma once

#include <string>

#include "tools/ground/complaint.h"

namespace twinspool {

struct StandbyDaemonArguments {
    std::string volume;
    std::string listen;
    int ready_fd = -1;
};
Outcome<ExitCode> run_standby_daemon(const StandbyDaemonArguments& arguments);

}  // namespace twinspool
