// SPDX-License-Identifier: Apache-2.0
// Taking and destroying snapshots, as commands do it: for `snapshot` and `destroy`, and for who
// takes one on the way (restore in place, diff) or destroys many (prune). One thread; as root.
//
// A snapshot is taken in this order: the standby is there and has applied all marks before (so that
// every name is known), the name is free, what programs have stored through mmap is written back,
// `before` runs, mark, `after` runs. Nothing is marked if any step before the mark fails; `after`
// runs whenever `before` was begun.
#pragma once

#include <string>
#include <string_view>

#include "replicator/link/snapshot.h"
#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"
#include "tools/volume/config.h"
#include "tools/volume/point.h"

namespace twinspool {

// Names that begin so are those of `diff`, which destroys them all: nobody else's may.
inline constexpr std::string_view kTemporaryPrefix = "diff-temporary-";

struct Taken {
    std::string name;
    Lsn lsn;
    WallTime time{};
    Nanoseconds pause{};              // the longest that changes were held up
    bool incomplete = false;          // not everything was on the standby, or told to it
    ExitCode code = ExitCode::kDone;  // kFailed: `after` failed; a warning has been printed
};

struct SnapshotOptions {
    enum class Hooks : std::uint8_t { kRun, kSkip };
    enum class WhenIncomplete : std::uint8_t { kRefuse, kTake };
    Hooks hooks = Hooks::kRun;
    WhenIncomplete when_incomplete = WhenIncomplete::kRefuse;
};

// Durable on both sides when it returns. The caller holds the volume's lock (lock_volume()), so
// that of several with one name only the first succeeds.
Outcome<Taken> take_snapshot(const VolumePaths& paths, const std::string& name,
                             const SnapshotOptions& options);

// A complaint if somebody on this machine reads it at this moment.
Verdict check_unused(const VolumePaths& paths, const VolumeConfig& config,
                     const Snapshot& snapshot);
// Refused while somebody reads it (mounted, being restored or compared), and while the volume is
// down. Gone from the list when it returns.
Verdict destroy_snapshot(const VolumePaths& paths, const VolumeConfig& config,
                         const Snapshot& snapshot);

}  // namespace twinspool
