// SPDX-License-Identifier: Apache-2.0
// Starting: a daemon on its way up, as the command that starts it sees it. Unless keep() was
// called, the end of its life undoes everything: the daemon is ended, mounts and binds are taken
// away.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"
#include "tools/machine/launch.h"
#include "tools/machine/site.h"
#include "tools/volume/config.h"

namespace twinspool {

// The daemon that serves the volume now, if one does. One that is just ending or still starting is
// waited for: it holds its lock, but does not answer.
Outcome<std::optional<pid_t>> serving_daemon(const VolumePaths& paths);
class Starting {
   public:
    Starting(const VolumePaths& paths, Site& site) : paths_(paths), site_(site) {}
    ~Starting();
    Starting(const Starting&) = delete;
    Starting& operator=(const Starting&) = delete;

    // What `down` and `status` go by from now on.
    Verdict keep_config(const VolumeConfig& config);
    // Prepares the site and starts the daemon.
    Verdict launch(LogPlace log);
    // Until the overlay answers; passes on what the daemon notes meanwhile. Which transport, and
    // why.
    Outcome<std::string> wait_served();
    // Until the standby is reached (an empty sentence) or given up (a sentence that says so).
    Outcome<std::string> wait_standby();
    void keep() { kept_ = true; }
    // Whether a signal ended the waiting.
    [[nodiscard]] static bool interrupted() { return HeldSignals::have_come(); }
    // Nothing more is expected from the daemon; SIGINT and SIGTERM are for this handler.
    void let_go(void (*handler)(int)) {
        reports_.reset();
        signals_->leave_to(handler);
        signals_.reset();
    }
    [[nodiscard]] pid_t daemon() const { return daemon_; }

   private:
    Outcome<Json> next_but_notes();

    const VolumePaths& paths_;
    Site& site_;
    std::optional<HeldSignals> signals_;
    std::optional<DaemonReports> reports_;
    pid_t daemon_ = 0;
    bool prepared_ = false;
    bool kept_ = false;
};

}  // namespace twinspool
