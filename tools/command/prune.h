// SPDX-License-Identifier: Apache-2.0
// Prune: destroys what `keep` of the table [snapshot] does not keep any longer, for `prune` and for
// the schedule. For commands; one thread; as root.
#pragma once

#include <cstddef>
#include <cstdint>

#include "replicator/store/retention.h"
#include "tools/command/known_snapshots.h"
#include "tools/ground/complaint.h"

namespace twinspool {

enum class PruneKind : std::uint8_t { kDestroy, kShow };

// Prints a line for each that goes, or would go, and for each that is passed over because somebody
// reads it; returns how many these are. Ends with the first that cannot be destroyed for another
// reason. The caller does not hold the volume's lock: it is taken for each, so that other commands
// get their turn.
Outcome<std::size_t> prune(KnownSnapshots& known, const RetentionRule& keep, PruneKind kind);

}  // namespace twinspool
