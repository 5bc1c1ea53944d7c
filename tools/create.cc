// SPDX-License-Identifier: Apache-2.0
// create and remove: a volume begins with its configuration and ends with it.
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/admission.h"
#include "tools/commands.h"
#include "tools/config.h"
#include "tools/lock.h"
#include "tools/paths.h"
#include "tools/site.h"
#include "tools/starting.h"
#include "tools/views.h"

namespace twinspool {
namespace {

bool exists(const std::string& path) {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0;
}

Outcome<std::uint64_t> random_id() {
    std::uint64_t id = 0;
    while (id == 0)
        if (::getrandom(&id, sizeof id, 0) != sizeof id) return last_error("get a random number");
    return id;
}

Verdict check_is_new(const VolumePaths& paths) {
    if (exists(paths.config()))
        return bad_input("a volume {} exists already: {}", paths.name, paths.config());
    if (exists(paths.state()))
        return bad_input(
            "there is a state directory of an earlier volume {}, but no configuration: "
            "look at {}, and remove it",
            paths.name, paths.state());
    return {};
}

// Changes nothing.
Outcome<VolumeConfig> plan(const VolumePaths& paths, const CreateArguments& arguments) {
    TS_ASSIGN(const auto mode, parse_mode(arguments.mode));
    TS_ASSIGN(auto config, admit(paths, {arguments.directories, arguments.standby}));
    config.mode = mode;
    TS_ASSIGN(config.id, random_id());
    if (const auto again = parse_config(render_config(paths.name, config), paths.config());
        !again.ok())
        return bad_input("a path cannot be written in the configuration, which is UTF-8: {}",
                         again.error().sentence);
    return config;
}

Verdict begin_standby(const std::string& standby, const std::string& name, std::uint64_t id) {
    if (::mkdir(standby.c_str(), 0700) != 0 && errno != EEXIST)
        return Complaint{last_error("make the standby directory {}", standby)};
    // It holds what the directories hold, without what protects them above.
    if (::chmod(standby.c_str(), 0700) != 0)
        return Complaint{last_error("make the standby directory {} private", standby)};
    TS_TRY(mark_standby(standby, name, id));
    return {};
}

// The configuration comes last: with it the volume exists, without it nothing does.
Verdict begin_volume(const VolumePaths& paths, const VolumeConfig& config) {
    const auto& standby = config.standbys.front().path;
    TS_TRY(make_private_directory(paths.base.etc));
    TS_TRY(begin_standby(standby, paths.name, config.id));
    const auto written = write_new_file(paths.config(), render_config(paths.name, config));
    if (written.ok()) return {};
    (void)release_standby(standby);
    TS_TRY(check_is_new(paths));  // written by hand in this moment
    return Complaint{written.error()};
}

// What is in the run directory, for a volume that is down; but for the lock, which is held.
Verdict clear_run(const VolumePaths& paths) {
    TS_ASSIGN(const auto names, entries_of(paths.run()));
    for (const auto& name : names)
        if (const auto path = paths.run() + "/" + name; path != paths.lock())
            TS_TRY(remove_tree(path));
    return {};
}

}  // namespace

Outcome<ExitCode> run_create(const CreateArguments& arguments) {
    TS_TRY(require_root());
    TS_TRY(check_name(arguments.volume));
    const auto paths = VolumePaths::of(arguments.volume);
    TS_TRY(check_is_new(paths));
    // What is refused makes nothing, not even the lock; but if there is one, another command may
    // just be changing what was looked at.
    if (const auto early = plan(paths, arguments); !early.ok() && !exists(paths.lock()))
        return early.error();
    TS_ASSIGN(const auto lock, lock_volume(paths));
    TS_TRY(check_is_new(paths));
    TS_ASSIGN(const auto config, plan(paths, arguments));
    TS_TRY(begin_volume(paths, config));
    print(
        fmt::format("{}: created; its configuration is {}\n"
                    "next: twinspool up {}\n",
                    paths.name, paths.config(), paths.name));
    return ExitCode::kDone;
}

Outcome<ExitCode> run_remove(const std::string& volume) {
    TS_TRY(require_root());
    TS_TRY(check_name(volume));
    const auto paths = VolumePaths::of(volume);
    TS_TRY(load_volume(paths));
    TS_ASSIGN(const auto lock, lock_volume(paths));
    TS_ASSIGN(const auto config, load_volume(paths));
    TS_ASSIGN(const auto site, Site::look(paths, config, {}));
    if (living_daemon(paths) || site.has_stale() || site.has_leavings())
        return failure("the volume {} is not down: run `twinspool down {}` first", volume, volume);
    TS_TRY(check_no_views(paths));

    const auto& standby = config.standbys.front().path;
    const auto owner = owner_of_standby(standby, config.id);
    if (owner.ok() && owner.value() == StandbyOwner::kThisVolume)
        TS_TRY(release_standby(standby));
    else
        print_warning(fmt::format("the standby {} was left as it is: {}", standby,
                                  owner.ok() ? "it is not this volume's" : owner.error().sentence));
    TS_TRY(remove_tree(paths.state()));
    TS_TRY(remove_tree(tail_path(config.id)));
    TS_TRY(clear_run(paths));
    if (::unlink(paths.config().c_str()) != 0) return last_error("remove {}", paths.config());
    // The lock goes last: from here on a new volume may begin, with a lock of its own.
    (void)::unlink(paths.lock().c_str());
    (void)::rmdir(paths.run().c_str());
    print(fmt::format("{}: removed; its directories and {}/tree are left as they are\n", volume,
                      standby));
    return ExitCode::kDone;
}

}  // namespace twinspool
