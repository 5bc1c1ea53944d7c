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
        TS_ASSIGN(const auto hold, hold_snapshot(past.config().standbys.front().path,
                                                 snapshot.number, HoldKind::kDestroy));
        if (!hold) return false;
    }
    TS_TRY(destroy_snapshot(past, snapshot));
    return true;
}

}  // namespace

Outcome<std::size_t> prune(OpenPast& past, const RetentionRule& keep, PruneKind kind) {
    const auto going = superfluous(past.snapshots(), keep, wall_time());
    for (const Snapshot& snapshot : going) {
        std::string_view what = "would be destroyed";
        if (kind == PruneKind::kDestroy) {
            TS_ASSIGN(const bool gone, destroy_unless_read(past, snapshot));
            what = gone ? "destroyed"
                        : "kept, because it is in use: mounted, or being restored or compared";
        }
        print(fmt::format("{}@{}: {}\n", past.paths().name, snapshot.name, what));
    }
    return going.size();
}

Outcome<ExitCode> run_prune(const PruneArguments& arguments) {
    TS_ASSIGN(auto past, OpenPast::of(arguments.volume));
    const auto& keep = past.config().snapshot.keep;
    if (!keep) {
        print(
            fmt::format("{}: nothing to prune: there was no `keep` in [snapshot] of {} at the "
                        "last `twinspool up`\n",
                        arguments.volume, past.paths().config()));
        return ExitCode::kDone;
    }
    TS_ASSIGN(const auto count,
              prune(past, *keep, arguments.dry_run ? PruneKind::kShow : PruneKind::kDestroy));
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
    auto past = OpenPast::of(point.volume);
    if (!past.ok()) return not_pruned(past.error());
    if (const auto& keep = past->config().snapshot.keep) {
        const auto pruned = prune(past.value(), *keep, PruneKind::kDestroy);
        if (!pruned.ok()) return not_pruned(pruned.error());
    }
    return code;
}

}  // namespace twinspool
