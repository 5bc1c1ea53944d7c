// SPDX-License-Identifier: Apache-2.0
// StandbyStatusJson: what `status --json` says on the host of a standby; docs/CONFIGURATION.md has
// the fields. Pure functions; any thread.
#pragma once

#include <vector>

#include "replicator/standby/standby.h"
#include "tools/ground/control.h"
#include "tools/ground/paths.h"
#include "tools/volume/config.h"

namespace twinspool {

// `config` has the one standby that is here.
Json standby_status_json(const VolumePaths& paths, const VolumeConfig& config,
                         const StandbyHostStatus& host, const std::vector<Snapshot>& snapshots);

// For one whose daemon does not run: `last` is what it said when it ended in order, or an empty
// object: then the numbers are not known.
Json standby_status_when_down(const VolumePaths& paths, const VolumeConfig& config,
                              const Json& last);

}  // namespace twinspool
