// SPDX-License-Identifier: Apache-2.0
#include "tools/ground/foreground.h"

#include <sys/wait.h>
#include <csignal>

#include <atomic>

namespace twinspool {
namespace {

std::atomic<pid_t> foreground_daemon{0};

void pass_on(int signal) { ::kill(foreground_daemon, signal); }

}  // namespace

SignalHandler passing_on_to(pid_t daemon) {
    foreground_daemon = daemon;
    return pass_on;
}

Outcome<ExitCode> stay_with(pid_t daemon) {
    int status = 0;
    while (::waitpid(daemon, &status, 0) < 0)
        if (errno != EINTR) return last_error("wait for the daemon");
    if (WIFEXITED(status)) return static_cast<ExitCode>(WEXITSTATUS(status));
    return failure("the daemon was ended by signal {}", WTERMSIG(status));
}

}  // namespace twinspool
