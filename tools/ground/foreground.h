// SPDX-License-Identifier: Apache-2.0
// Foreground: a command that stays until the daemon that it has started ends. One thread.
#pragma once

#include <sys/types.h>

#include "tools/ground/complaint.h"

namespace twinspool {

// A handler that passes signals on to that process.
using SignalHandler = void (*)(int);
SignalHandler passing_on_to(pid_t daemon);

// Until it has ended; its exit code is ours. A child of this process.
Outcome<ExitCode> stay_with(pid_t daemon);

}  // namespace twinspool
