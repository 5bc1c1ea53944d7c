// SPDX-License-Identifier: Apache-2.0
// The configuration of a volume: as it is written, and as it was when it was last begun. For
// commands and daemons; any thread.
#pragma once

#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"
#include "tools/volume/config.h"

namespace twinspool {

// The configuration; a volume that does not exist is bad input.
Outcome<VolumeConfig> load_volume(const VolumePaths& paths);
// The same as it was at the last `up`, or at the last `standby` (then with the one standby that is
// here), for what serves or looks at a volume that is up: the file may have been edited since, or
// be gone. As in the file if there was neither yet.
Outcome<VolumeConfig> load_running_volume(const VolumePaths& paths);
// The directories of a volume are those of its first `up`.
Verdict check_directories_kept(const VolumePaths& paths, const VolumeConfig& config);

}  // namespace twinspool
