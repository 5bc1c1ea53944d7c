// SPDX-License-Identifier: Apache-2.0
// Locks of a volume, both flocks of files in its run directory: `lock` is held by the command that
// changes something (create, up, down, remove, standby --once), `daemon.pid` by the daemon for as
// long as it lives. The kernel lets go of both when the holder dies.
#pragma once

#include <sys/types.h>

#include <optional>

#include "journal/base/fd.h"
#include "journal/base/units.h"
#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"

namespace twinspool {

// Waits while another command works on this volume. The run directory is made if need be. What was
// read of the volume before may not be so any more, and is to be read again.
Outcome<Fd> lock_volume(const VolumePaths& paths);

// The daemon's own lock, with its pid in the file. Refused while another daemon lives.
Outcome<Fd> lock_daemon(const VolumePaths& paths);

// The daemon that lives now, if one does.
std::optional<pid_t> living_daemon(const VolumePaths& paths);
// Waits until there is none; false on time-out.
bool wait_for_daemon_end(const VolumePaths& paths, Nanoseconds timeout);

}  // namespace twinspool
