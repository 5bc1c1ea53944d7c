// SPDX-License-Identifier: Apache-2.0
// SnapshotsStatus: what `status --json` says of a volume's snapshots:
// {count, incomplete, broken, newest, oldest}; newest and oldest are {name, lsn, time,
// age_seconds}, or null if there is none. All are null while it is not known. Pure functions; any
// thread.
#pragma once

#include <cstdint>
#include <vector>

#include "replicator/link/snapshot.h"
#include "tools/ground/control.h"

namespace twinspool {

// `told` may be less than there are: the oldest and the newest.
Json snapshots_status(std::uint64_t count, const std::vector<Snapshot>& told);
Json snapshots_unknown();
// Gives each part of the status that has a `time` its `age_seconds`: the newest and the oldest
// snapshot, the last verify. As at the moment of asking, also for what was written down long ago.
void add_ages(Json& status, WallTime now);

// What a daemon answers to the request "snapshots".
Json snapshots_answer(const std::vector<Snapshot>& snapshots);

}  // namespace twinspool
