// SPDX-License-Identifier: Apache-2.0
// Hook: a command of the administrator's, run by /bin/sh, in a process group of its own that is
// killed as a whole when the time is over. It has ended when the shell has, whatever that left
// running. What it prints goes to our standard error, at its end. One thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "journal/base/units.h"
#include "tools/ground/complaint.h"
#include "tools/machine/launch.h"

namespace twinspool {

struct Hook {
    std::string name;                                              // for people
    std::string place = " of [snapshot]";                          // where it is configured
    std::string command;                                           // as in sh -c
    std::vector<std::pair<std::string, std::string>> environment;  // on top of our own
    Nanoseconds timeout{};
};

// What becomes of it when SIGINT, SIGTERM or SIGHUP comes to this process, which holds them.
enum class OnSignal : std::uint8_t { kKill, kLetFinish };

// A complaint unless it ends with status 0.
Verdict run_hook(const Hook& hook, const HeldSignals& signals, OnSignal on_signal);
// For who holds no signals: it is left to finish.
Verdict run_hook(const Hook& hook);

}  // namespace twinspool
