// SPDX-License-Identifier: Apache-2.0
// Mounts: puts the overlay in place over the volume's directories and takes it away, and keeps the
// backing trees reachable below the run directory, so that a later `up` finds them.
//
// Invariant: a path that reaches the overlay, or the dead overlay of a killed daemon, never reaches
// the backing tree before take_away(): the new mount goes beneath the dead one, which is then taken
// off (before Linux 6.5: on top of it).
// Every mount is made private first: what is mounted over a directory must not spread to the bind
// mount that keeps its backing tree reachable. Called by commands only, under the volume's lock.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"

namespace twinspool {

enum class Cover : std::uint8_t {
    kBare,     // nothing of Twinspool is mounted there
    kLive,     // the overlay of the running daemon of this volume
    kStale,    // the overlay of a daemon that is gone
    kForeign,  // an overlay that answers, but is not this volume's
};

// What stands at `directory`; `live` is the device of this volume's running overlay, or 0.
Outcome<Cover> cover_of(const std::string& directory, dev_t live);

// Whether what is mounted at `path` has lost its process. One that is stopped is waited for.
bool is_dead(const std::string& path);

// The device of what is mounted at `path`; 0 if nothing is.
Outcome<dev_t> device_mounted_at(const std::string& path);

// Makes `source` (a directory, whatever is mounted below it left out) reachable at `target`.
Verdict bind_private(const std::string& source, const std::string& target);

enum class Layering : std::uint8_t { kFresh, kReplacedStale, kCoveredStale };

// Puts what is at `source` (below the FUSE mount) over `directory`.
Outcome<Layering> put_in_place(const std::string& source, const std::string& directory);

enum class Removal : std::uint8_t { kRemoved, kNothingThere, kBusy };

// Takes the overlay away from `directory`, dead ones underneath too. kBusy: nothing was changed.
Outcome<Removal> take_away(const std::string& directory);
// Takes away only dead overlays, whoever still has files open in them.
Verdict take_away_stale(const std::string& directory);

// Unmounts whatever is mounted at `path`, all layers; lazily, for mounts that only we can reach.
Verdict unmount_all(const std::string& path);

}  // namespace twinspool
