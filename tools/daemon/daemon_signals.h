// SPDX-License-Identifier: Apache-2.0
// DaemonSignals: how the main thread of a daemon waits: blocked are SIGTERM and SIGINT, which ask
// for an orderly end, and SIGUSR1, with which the process ends itself. Made before any other
// thread, so that all have them blocked; one in a process.
#pragma once

#include <csignal>

namespace twinspool {

class DaemonSignals {
   public:
    DaemonSignals();
    // The next of them, or -1 after a moment.
    [[nodiscard]] int next() const;
    // From any thread: next() returns SIGUSR1.
    static void end();

   private:
    sigset_t set_;
};

}  // namespace twinspool
