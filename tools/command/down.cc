// SPDX-License-Identifier: Apache-2.0
// down: everything on both sides, then the mounts, then the daemon. A volume whose daemon was
// killed is recovered first, as `up` would, so that what programs were told is written reaches the
// standby too; its dead mounts keep the directories covered until that is done.
#include "tools/command/commands.h"
#include "tools/ground/control.h"
#include "tools/ground/lock.h"
#include "tools/ground/paths.h"
#include "tools/ground/terminal.h"
#include "tools/machine/admission.h"
#include "tools/machine/role.h"
#include "tools/machine/site.h"
#include "tools/machine/starting.h"
#include "tools/volume/config.h"
#include "tools/volume/known_volume.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

// After the answer to "end" only memory and processes are left to tidy.
constexpr Nanoseconds kEndPatience = 60s;
// A standby first applies what it knows to be committed.
constexpr Nanoseconds kStandbyPatience = 10min;

Outcome<Json> ask(const VolumePaths& paths, const char* command) {
    TS_ASSIGN(auto answer, ask_daemon(paths.run(), {{"command", command}}));
    if (answer.contains("error"))
        return failure("the daemon of {}: {}", paths.name, answer.value("error", std::string{}));
    return answer;
}

// A daemon for the volume of a killed one, without its overlay put in place: it recovers at start.
Verdict recover(const VolumePaths& paths, const VolumeConfig& config, Site& site) {
    print_warning(
        fmt::format("the daemon of {} was killed; recovering before going down", paths.name));
    TS_TRY(site.uncover_lost());
    TS_TRY(admit_again(paths, config, site.sources()));
    Starting starting(paths, site);
    TS_TRY(starting.launch(log_place()));
    TS_ASSIGN(const auto transport, starting.wait_served());
    TS_ASSIGN(const auto standby, starting.wait_standby());
    starting.keep();
    return {};
}

// The daemon has ended; what it said of its end.
Outcome<ExitCode> say_down(const VolumePaths& paths, const Json& end) {
    const auto& volume = paths.name;
    const auto why = end.value("shortfall", std::string{});
    // A daemon of an earlier version does not say the code.
    const auto least = why.empty() ? ExitCode::kDone : ExitCode::kDegraded;
    const auto code = static_cast<ExitCode>(end.value("code", static_cast<int>(least)));
    if (code == ExitCode::kDone) {
        print(fmt::format("{}: down; everything is applied on the standby\n", volume));
        return code;
    }
    print(fmt::format("{}: down\n", volume));
    if (code == ExitCode::kFailed)
        return failure(
            "the journal of {} in {} has failed, and the standby may lack the last changes: could "
            "not {}; mend that disk before the next `twinspool up {}`",
            volume, paths.journal(), why, volume);
    return Complaint{code,
                     fmt::format("the standby of {} does not have everything applied: {}; it goes "
                                 "on where it stopped at the next `twinspool up {}`",
                                 volume, why, volume)};
}

// On the host of a standby: the link is closed, and what is known to be committed is applied.
Outcome<ExitCode> standby_down(const VolumePaths& paths) {
    TS_ASSIGN(const auto daemon, serving_daemon(paths));
    if (!daemon) {
        print(fmt::format("{}: is down already\n", paths.name));
        return ExitCode::kDone;
    }
    TS_TRY(ask(paths, "end"));
    if (!wait_for_daemon_end(paths, kStandbyPatience))
        return failure(
            "the standby of {} (pid {}) has been asked to end, and still applies; its "
            "log is {}",
            paths.name, *daemon, paths.log());
    print(fmt::format("{}: down; the standby listens no more\n", paths.name));
    return ExitCode::kDone;
}

}  // namespace

Outcome<ExitCode> run_down(const std::string& volume) {
    TS_TRY(require_root());
    TS_TRY(check_name(volume));
    const auto paths = VolumePaths::of(volume);
    TS_TRY(load_running_volume(paths));
    TS_ASSIGN(const auto lock, lock_volume(paths));
    if (standby_here(paths)) return standby_down(paths);
    TS_ASSIGN(const auto config, load_running_volume(paths));
    TS_ASSIGN(const auto daemon, serving_daemon(paths));
    const bool lives = daemon.has_value();
    TS_ASSIGN(auto site, Site::look(paths, config, {.daemon_lives = lives}));
    if (!lives && !site.has_stale()) {
        if (site.has_leavings()) TS_TRY(site.clear());
        print(fmt::format("{}: is down already\n", volume));
        return ExitCode::kDone;
    }
    if (lives)
        TS_TRY(site.check_nobody_busy());
    else
        TS_TRY(recover(paths, config, site));

    // First with the mounts in place, because it may take long; once more for what came meanwhile.
    for (const char* step : {"flush", "leave"}) {
        const auto done = ask(paths, step);
        if (!done.ok()) return done.error();
    }
    TS_TRY(site.take_away());
    const auto ended = ask(paths, "end");
    if (!ended.ok()) {
        TS_TRY(site.put_in_place());
        return ended.error();
    }
    if (!wait_for_daemon_end(paths, kEndPatience))
        return failure("the daemon of {} has written everything, but does not end; look at {}",
                       volume, paths.log());
    TS_TRY(site.clear());
    return say_down(paths, ended.value());
}

}  // namespace twinspool
