// SPDX-License-Identifier: Apache-2.0
// Prune: destroys what `keep` of the table [snapshot] does not keep any longer, for `prune` and for
// the schedule. For commands; one thread; as root.
#pragma once

#include <cstdint>
#include <string>

#include "tools/complaint.h"

namespace twinspool {

enum class PruneKind : std::uint8_t { kDestroy, kShow };

// Prints a line for each that goes, or would go, and for each that is passed over because somebody
// reads it. Ends with the first that cannot be destroyed for another reason. The caller does not
// hold the volume's lock: it is taken for each, so that other commands get their turn.
Outcome<ExitCode> prune(const std::string& volume, PruneKind kind);

}  // namespace twinspool
