// SPDX-License-Identifier: Apache-2.0
// up: checks, prepares, starts the daemon, puts the overlay in place, waits for the standby. Until
// the last directory is in place everything can be undone, and is if something fails.
#include <csignal>

#include <optional>

#include "tools/command/commands.h"
#include "tools/ground/control.h"
#include "tools/ground/foreground.h"
#include "tools/ground/lock.h"
#include "tools/ground/paths.h"
#include "tools/ground/terminal.h"
#include "tools/machine/admission.h"
#include "tools/machine/inspection.h"
#include "tools/machine/launch.h"
#include "tools/machine/role.h"
#include "tools/machine/site.h"
#include "tools/machine/starting.h"
#include "tools/volume/config.h"
#include "tools/volume/known_volume.h"
#include "tools/volume/secret.h"

namespace twinspool {
namespace {

constexpr Nanoseconds kEndPatience = std::chrono::seconds{20};

// In the foreground: signals go to the daemon, also those that came since its start, and its end is
// ours.
Outcome<ExitCode> stay(Starting& starting) {
    starting.let_go(passing_on_to(starting.daemon()));
    return stay_with(starting.daemon());
}

// Links to other hosts need it.
Verdict check_secret(const VolumePaths& paths, const VolumeConfig& config) {
    for (const auto& standby : config.standbys)
        if (!standby.is_local()) {
            TS_TRY(load_secret(paths, config.id));
            return {};
        }
    return {};
}

Status say_placed(const VolumePaths& paths) {
    return ask_daemon(paths.run(), {{"command", "placed"}}).ok()
               ? Status{}
               : Status{make_error(EIO, "tell the daemon of {} that it is mounted", paths.name)};
}

// An `up` or a `down` was killed half-way, and directories have been bare since: an ordinary start
// looks for what was changed in them. False: the daemon stays, because it is in use.
Outcome<bool> end_half_placed(const VolumePaths& paths) {
    const auto ended = ask_daemon(paths.run(), {{"command", "end"}});
    if (!ended.ok() || ended.value().contains("error")) return false;
    if (wait_for_daemon_end(paths, kEndPatience)) return true;
    return failure("the daemon of {} has written everything, but does not end; look at {}",
                   paths.name, paths.log());
}

// False: no daemon is there any more, and everything is to be done.
Outcome<bool> already_up(const VolumePaths& paths, pid_t daemon, bool force) {
    TS_ASSIGN(const auto config, load_running_volume(paths));
    TS_ASSIGN(auto site, Site::look(paths, config, {.daemon_lives = true}));
    const bool complete = site.in_place();
    if (!complete) {
        TS_ASSIGN(const bool ended, end_half_placed(paths));
        if (ended) return false;
        if (!force) TS_TRY(site.check_nobody_inside(daemon));
        TS_TRY(site.put_in_place());
    }
    TS_TRY(say_placed(paths));
    const auto status = ask_daemon(paths.run(), {{"command", "status"}});
    print(fmt::format(
        "{}: {} ({})\n", paths.name, complete ? "is up already" : "up",
        status.ok() ? status.value().value("state", std::string{"?"}) : status.error().text()));
    return true;
}

}  // namespace

Outcome<ExitCode> run_up(const UpArguments& arguments) {
    TS_TRY(require_root());
    TS_TRY(check_name(arguments.volume));
    const auto paths = VolumePaths::of(arguments.volume);
    // What is refused makes nothing, not even the lock; what holds is read under the lock.
    TS_TRY(check_not_standby(paths, "`up`"));
    if (!living_daemon(paths)) {
        TS_ASSIGN(const auto config, load_volume(paths));
        TS_TRY(check_may_be_primary(paths, config));
        TS_TRY(check_secret(paths, config));
    }
    TS_ASSIGN(auto lock, lock_volume(paths));
    TS_TRY(check_not_standby(paths, "`up`"));
    TS_ASSIGN(const auto daemon, serving_daemon(paths));
    if (daemon) {
        TS_ASSIGN(const bool up, already_up(paths, *daemon, arguments.force));
        if (up) return ExitCode::kDone;
    }
    TS_ASSIGN(const auto config, load_volume(paths));
    TS_TRY(check_may_be_primary(paths, config));
    TS_TRY(check_secret(paths, config));
    TS_TRY(check_directories_kept(paths, config));
    TS_TRY(admit_edited_standbys(paths, config));

    TS_ASSIGN(auto site, Site::look(paths, config, {}));
    TS_TRY(site.uncover_lost());
    TS_TRY(admit_again(paths, config, site.sources()));
    if (!arguments.force) {
        TS_TRY(site.check_nobody_inside(0));
        TS_TRY(site.check_everybody_reached());
    }
    std::vector<std::string> directories;
    for (const auto& directory : config.directories) directories.push_back(directory.path);
    for (const auto& warning : warnings_without_journal(directories)) print_warning(warning);

    Starting starting(paths, site);
    TS_TRY(starting.keep_config(config));
    TS_TRY(starting.launch(arguments.foreground ? LogPlace::kStandardError : log_place()));
    TS_ASSIGN(const auto transport, starting.wait_served());
    TS_TRY(site.put_in_place());
    // Who opened a file between the first look and the mount writes past the overlay as well.
    if (!arguments.force) TS_TRY(site.check_nobody_inside(starting.daemon()));
    starting.keep();
    TS_TRY(say_placed(paths));
    print(fmt::format("{}: mounted over {}; transport {}\n", paths.name,
                      fmt::join(directories, ", "), transport));

    const auto standby = starting.wait_standby();
    lock.reset();
    if (standby.ok() && !standby.value().empty()) print_error(standby.value());
    if (arguments.foreground) {
        if (!standby.ok()) ::kill(starting.daemon(), SIGTERM);  // it is not left behind
        return stay(starting);
    }
    if (!standby.ok() && Starting::interrupted())
        return Complaint{ExitCode::kDegraded,
                         fmt::format("the volume {} is up; only waiting for its standby was "
                                     "stopped: `twinspool status {}` shows how it is",
                                     paths.name, paths.name)};
    if (!standby.ok()) return standby.error();
    return standby.value().empty() ? ExitCode::kDone : ExitCode::kDegraded;
}

}  // namespace twinspool
