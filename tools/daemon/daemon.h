// SPDX-License-Identifier: Apache-2.0
// Daemon: the process behind `up`: the reign, its links, and what it answers to commands.
#pragma once

#include <string>

#include "tools/ground/complaint.h"

namespace twinspool {

struct DaemonArguments {
    std::string volume;
    int ready_fd = -1;
};
Outcome<ExitCode> run_daemon(const DaemonArguments& arguments);

}  // namespace twinspool
