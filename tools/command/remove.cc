// SPDX-License-Identifier: Apache-2.0
// remove: the volume is forgotten on this machine; what holds people's files stays.
#include <unistd.h>

#include "tools/command/commands.h"
#include "tools/ground/lock.h"
#include "tools/ground/paths.h"
#include "tools/ground/terminal.h"
#include "tools/machine/admission.h"
#include "tools/machine/role.h"
#include "tools/machine/site.h"
#include "tools/machine/views.h"
#include "tools/volume/config.h"
#include "tools/volume/known_volume.h"

namespace twinspool {
namespace {

Complaint not_down(const VolumePaths& paths) {
    return failure("the volume {} is not down: run `twinspool down {}` first", paths.name,
                   paths.name);
}

// What is in the run directory, for a volume that is down; but for the lock, which is held.
Verdict clear_run(const VolumePaths& paths) {
    TS_ASSIGN(const auto names, entries_of(paths.run()));
    for (const auto& name : names)
        if (const auto path = paths.run() + "/" + name; path != paths.lock())
            TS_TRY(remove_tree(path));
    return {};
}

// Its journal and identity; the replica tree stays.
Verdict release_store(const std::string& store, std::uint64_t volume) {
    const auto owner = owner_of_standby(store, volume);
    if (owner.ok() && owner.value() == StandbyOwner::kThisVolume) return release_standby(store);
    print_warning(fmt::format("the standby {} was left as it is: {}", store,
                              owner.ok() ? "it is not this volume's" : owner.error().sentence));
    return {};
}

// The primary's part; which trees are left.
Outcome<std::vector<std::string>> forget_primary(const VolumePaths& paths,
                                                 const VolumeConfig& config) {
    TS_ASSIGN(const auto site, Site::look(paths, config, {}));
    if (site.has_stale() || site.has_leavings()) return not_down(paths);
    TS_TRY(check_no_views(paths));
    std::vector<std::string> left{"its directories"};
    for (const auto& standby : config.standbys) {
        if (standby.is_local()) TS_TRY(release_store(standby.path, config.id));
        left.push_back(standby.is_local() ? standby.path + "/tree" : standby.target());
    }
    TS_TRY(remove_tree(tail_path(config.id)));
    return left;
}

Outcome<std::vector<std::string>> forget_standby(const VolumePaths& paths,
                                                 const VolumeConfig& here) {
    TS_TRY(check_no_views(paths));
    const auto& store = here.standbys.front().path;
    TS_TRY(release_store(store, here.id));
    return std::vector{store + "/tree"};
}

}  // namespace

Outcome<ExitCode> run_remove(const std::string& volume) {
    TS_TRY(require_root());
    TS_TRY(check_name(volume));
    const auto paths = VolumePaths::of(volume);
    TS_TRY(load_volume(paths));
    TS_ASSIGN(const auto lock, lock_volume(paths));
    TS_ASSIGN(const auto config, load_volume(paths));
    if (living_daemon(paths)) return not_down(paths);
    const auto here = standby_here(paths);
    TS_ASSIGN(const auto left, here ? forget_standby(paths, *here) : forget_primary(paths, config));
    TS_TRY(remove_tree(paths.state()));
    TS_TRY(clear_run(paths));
    if (::unlink(paths.config().c_str()) != 0) return last_error("remove {}", paths.config());
    if (::unlink(paths.secret().c_str()) != 0 && errno != ENOENT)
        return last_error("remove {}", paths.secret());
    // The lock goes last: from here on a new volume may begin, with a lock of its own.
    (void)::unlink(paths.lock().c_str());
    (void)::rmdir(paths.run().c_str());
    print(fmt::format("{}: removed; {} {} left as {}\n", volume, fmt::join(left, " and "),
                      here ? "is" : "are", here ? "it is" : "they are"));
    return ExitCode::kDone;
}

}  // namespace twinspool
