// SPDX-License-Identifier: Apache-2.0
#include "tools/command/prune.h"

#include <algorithm>

#include "journal/base/clock.h"
#include "replicator/store/hold.h"
#include "replicator/store/retention.h"
#include "tools/command/commands.h"
#include "tools/command/snapshot.h"
#include "tools/ground/lock.h"
#include "tools/ground/terminal.h"
#include "tools/machine/role.h"
#include "tools/volume/point.h"

namespace twinspool {
namespace {

// Whether it went, or had gone meanwhile.
Outcome<bool> destroy_unless_read(KnownSnapshots& known, const Snapshot& snapshot) {
    const auto& paths = known.paths();
    TS_ASSIGN(const auto lock, lock_volume(paths));
    TS_ASSIGN(const auto now, known.now());
    const auto is_it = [&](const Snapshot& each) { return each.number == snapshot.number; };
    if (std::none_of(now.begin(), now.end(), is_it)) return true;
    for (const auto& store : stores_here(paths, known.config())) {
        TS_ASSIGN(const auto hold, hold_snapshot(store, snapshot.number, HoldKind::kDestroy));
        if (!hold) return false;
    }
    TS_TRY(destroy_snapshot(paths, known.config(), snapshot));
    return true;
}

}  // namespace

Outcome<std::size_t> prune(KnownSnapshots& known, const RetentionRule& keep, PruneKind kind) {
    const auto going = superfluous(known.snapshots(), keep, wall_time());
    for (const Snapshot& snapshot : going) {
        std::string_view what = "would be destroyed";
        if (kind == PruneKind::kDestroy) {
            TS_ASSIGN(const bool gone, destroy_unless_read(known, snapshot));
            what = gone ? "destroyed"
                        : "kept, because it is in use: mounted, or being restored or compared";
        }
        print(fmt::format("{}@{}: {}\n", known.paths().name, snapshot.name, what));
    }
    return going.size();
}

Outcome<ExitCode> run_prune(const PruneArguments& arguments) {
    TS_TRY(require_root());
    TS_TRY(check_name(arguments.volume));
    TS_TRY(check_not_standby(VolumePaths::of(arguments.volume), "pruning"));
    TS_ASSIGN(auto known, KnownSnapshots::of(arguments.volume));
    const auto& keep = known.config().snapshot.keep;
    if (!keep) {
        print(
            fmt::format("{}: nothing to prune: there was no `keep` in [snapshot] of {} at the "
                        "last `twinspool up`\n",
                        arguments.volume, known.paths().config()));
        return ExitCode::kDone;
    }
    TS_ASSIGN(const auto count,
              prune(known, *keep, arguments.dry_run ? PruneKind::kShow : PruneKind::kDestroy));
    if (count == 0) print(fmt::format("{}: nothing to prune\n", arguments.volume));
    return ExitCode::kDone;
}

Outcome<ExitCode> run_scheduled_snapshot(const SnapshotArguments& arguments) {
    TS_ASSIGN(const auto code, run_snapshot(arguments));
    TS_ASSIGN(const auto point, parse_point(arguments.point, PathPart::kNone));
    const auto not_pruned = [](const Complaint& complaint) {
        return Complaint{complaint.code,
                         "taken, but older ones were not pruned: " + complaint.sentence};
    };
    auto known = KnownSnapshots::of(point.volume);
    if (!known.ok()) return not_pruned(known.error());
    if (const auto& keep = known->config().snapshot.keep) {
        const auto pruned = prune(known.value(), *keep, PruneKind::kDestroy);
        if (!pruned.ok()) return not_pruned(pruned.error());
    }
    return code;
}

}  // namespace twinspool
