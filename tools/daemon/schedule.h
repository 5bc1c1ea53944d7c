// SPDX-License-Identifier: Apache-2.0
// Schedule: the snapshots that the daemon has taken by itself. When one is due it starts
// `twinspool snapshot VOLUME@NAME --scheduled`, which takes it and prunes; one at a time.
//
// Why one was not taken is logged once, not each time again, and is in the status until one was.
// Threads: look() and the destructor on the daemon's own; status() from any. Lock: `mutex_`
// protects what status() says.
#pragma once

#include <sys/types.h>

#include <mutex>
#include <optional>
#include <string>

#include "journal/base/fd.h"
#include "tools/daemon/due.h"
#include "tools/daemon/state.h"
#include "tools/ground/control.h"
#include "tools/volume/config.h"

namespace twinspool {

class Schedule {
   public:
    Schedule(std::string volume, const SnapshotConfig& config, WallTime now);

    // Called every now and then.
    void look(WallTime now, VolumeState state);
    // {every, keep, next, trouble}; null if there is no schedule.
    [[nodiscard]] Json status() const;

   private:
    void start(WallTime due);
    void reap();
    void read_output();
    void ended(int wait_status);
    void not_taken(const std::string& name, const std::string& why);

    const std::string volume_;
    const SnapshotConfig config_;
    std::optional<Due> due_;
    pid_t pid_ = 0;  // of the command, while it runs
    std::string name_;
    Fd output_;
    std::string said_;  // the end of what it has printed

    mutable std::mutex mutex_;
    WallTime next_{};
    std::string trouble_;  // of the last one; empty if it was taken
};

}  // namespace twinspool
