// SPDX-License-Identifier: Apache-2.0
// Launch: starting the daemon or a view from a command, and what it tells that command while it
// starts: lines of JSON over a pipe, in this order: any number of {"note"} and {"warning"};
// {"served", "transport"} once the overlay answers below the run directory; more notes; at last
// {"standby"}. A view ends with {"served"}, and a standby with {"served", "listen"}. Or at any time
// {"error", "code"}, after which it ends.
#pragma once

#include <sys/types.h>
#include <csignal>

#include <array>
#include <cstdint>
#include <string>

#include "journal/base/fd.h"
#include "tools/ground/complaint.h"
#include "tools/ground/control.h"
#include "tools/ground/paths.h"

namespace twinspool {

// The hidden subcommands with which the program starts itself.
inline constexpr const char* kDaemonCommand = "daemon";
inline constexpr const char* kStandbyDaemonCommand = "standby-daemon";
inline constexpr const char* kStandbyProcessCommand = "standby-process";
inline constexpr const char* kViewCommand = "view";

enum class LogPlace : std::uint8_t { kStandardError, kFile };

// Standard error when that is journald (or the user asked for the foreground), a file otherwise.
LogPlace log_place();

struct LaunchedDaemon {
    pid_t pid = 0;  // a child of this process
    Fd reports;
};
Outcome<LaunchedDaemon> launch_daemon(const VolumePaths& paths, LogPlace log);
// The daemon of a standby on this host.
Outcome<LaunchedDaemon> launch_standby(const VolumePaths& paths, LogPlace log,
                                       const std::string& listen);
// The process of a view.
Outcome<LaunchedDaemon> launch_view(const VolumePaths& paths, LogPlace log,
                                    const std::string& point, const std::string& directory);

// While it lives, SIGINT, SIGTERM and SIGHUP reach this process only in wait_readable(): what is
// begun is finished or undone. Those that were ignored before (nohup) stay so. At its end they have
// the effect again that they had. One at a time; single-threaded.
class HeldSignals {
   public:
    HeldSignals();
    ~HeldSignals();
    HeldSignals(const HeldSignals&) = delete;
    HeldSignals& operator=(const HeldSignals&) = delete;
    // False: one of them has come.
    [[nodiscard]] bool wait_readable(int fd) const;
    [[nodiscard]] static bool have_come();
    // At the end SIGINT and SIGTERM go to this handler instead, also those that came meanwhile.
    void leave_to(void (*handler)(int));

   private:
    static constexpr std::array kHeld{SIGINT, SIGTERM, SIGHUP};
    sigset_t outside_;
    std::array<struct sigaction, kHeld.size()> before_{};
};

// The next line; a complaint if the process (`who`) has failed or ended.
class DaemonReports {
   public:
    DaemonReports(const VolumePaths& paths, const HeldSignals& signals, Fd reports,
                  const char* who = "daemon")
        : signals_(signals), who_(who), log_(paths.log()), reports_(std::move(reports)) {}
    Outcome<Json> next();

   private:
    const HeldSignals& signals_;
    const char* who_;
    std::string log_;
    Fd reports_;
    std::string unread_;
};

// The started process's end of it. After done(), or if nobody listens any more, what is told is
// dropped.
class StartReport {
   public:
    explicit StartReport(Fd pipe) : pipe_(std::move(pipe)) {}
    void note(const std::string& sentence) { tell({{"note", sentence}}); }
    void warning(const std::string& sentence) { tell({{"warning", sentence}}); }
    void failed(const Complaint& complaint);
    void tell(const Json& line);
    void done() { pipe_.reset(); }

   private:
    Fd pipe_;
};

// Runs this program again with these arguments, detached; for the daemon, which is asked to end or
// has a snapshot taken. What it prints goes where the caller's own output goes, or into `output`.
Result<pid_t> start_command(const char* const* arguments);
Result<pid_t> start_command(const char* const* arguments, const Fd& output);

}  // namespace twinspool
