// SPDX-License-Identifier: Apache-2.0
#include "tools/prune.h"

#include <algorithm>

#include "journal/clock.h"
#include "replicator/retention.h"
#include "tools/commands.h"
#include "tools/lock.h"
#include "tools/point.h"
#include "tools/snapshot.h"

namespace twinspool {
namespace {

// Whether it went, or had gone meanwhile.
Outcome<bool> destroy_unless_read(OpenPast& past, const Snapshot& snapshot) {
    TS_ASSIGN(const auto lock, lock_volume(past.paths()));
    TS_ASSIGN(const auto now, past.past().snapshots());
    const auto is_it = [&](const Snapshot& each) { return each.number == snapshot.number; };
    if (std::none_of(now.begin(), now.end(), is_it)) return true;
    {
        TS_ASSIGN(const auto hold,
                  hold_snapshot(past.config().standbys.front().path, snapshot.number,
                                HoldKind::kDestroy));
        if (!hold) return false;
    }
    TS_TRY(destroy_snapshot(past, snapshot));
    return true;
}

}  // namespace

Outcome<ExitCode> prune(const std::string& volume, PruneKind kind) {
    TS_ASSIGN(auto past, OpenPast::of(volume));
    const auto& keep = past.config().snapshot.keep;
    if (!keep) {
        print(fmt::format("{}: nothing to prune: there is no `keep` in [snapshot] of {}\n", volume,
                          past.paths().config()));
        return ExitCode::kDone;
    }
    const auto going = superfluous(past.snapshots(), *keep, wall_time());
    if (going.empty()) print(fmt::format("{}: nothing to prune\n", volume));
    for (const Snapshot& snapshot : going) {
        if (kind == PruneKind::kShow) {
            print(fmt::format("{}@{}: would be destroyed\n", volume, snapshot.name));
            continue;
        }
        TS_ASSIGN(const bool gone, destroy_unless_read(past, snapshot));
        print(fmt::format("{}@{}: {}\n", volume, snapshot.name,
                          gone ? "destroyed"
                               : "kept, because it is in use: mounted, or being restored or "
                                 "compared"));
    }
    return ExitCode::kDone;
}

Outcome<ExitCode> run_prune(const PruneArguments& arguments) {
    return prune(arguments.volume, arguments.dry_run ? PruneKind::kShow : PruneKind::kDestroy);
}

}  // namespace twinspool
