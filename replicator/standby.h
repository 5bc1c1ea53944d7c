// SPDX-License-Identifier: Apache-2.0
// Standby: what a standby process does, from its start to its end, for tools/ to call.
#pragma once

#include <string>

#include "journal/result.h"
#include "replicator/receiver.h"

namespace twinspool {

// Serves the primary at the other end of descriptor kStandbySocket until the link ends. What goes
// wrong is told to the primary (Refuse) as well as returned.
Status serve_standby(const StandbyStore& store);

}  // namespace twinspool
