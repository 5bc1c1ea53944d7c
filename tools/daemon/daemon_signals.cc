// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/daemon_signals.h"

#include <unistd.h>
#include <csignal>

#include <initializer_list>

namespace twinspool {
namespace {

constexpr timespec kMoment{.tv_sec = 0, .tv_nsec = 50'000'000};

}  // namespace

DaemonSignals::DaemonSignals() : set_{} {
    ::sigemptyset(&set_);
    for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) ::sigaddset(&set_, signal);
    ::pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    ::signal(SIGHUP, SIG_IGN);
}

int DaemonSignals::next() const { return ::sigtimedwait(&set_, nullptr, &kMoment); }

void DaemonSignals::end() { ::kill(::getpid(), SIGUSR1); }

}  // namespace twinspool
