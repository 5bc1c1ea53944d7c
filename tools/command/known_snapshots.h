// SPDX-License-Identifier: Apache-2.0
// KnownSnapshots: the names of a volume's snapshots, for who needs no more than these: from a store
// on this machine, or, where all standbys are on other hosts, as they have told the daemon. For
// commands; one thread; as root.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "replicator/link/snapshot.h"
#include "tools/command/open_past.h"
#include "tools/ground/complaint.h"
#include "tools/ground/control.h"
#include "tools/ground/paths.h"
#include "tools/volume/config.h"
#include "tools/volume/point.h"

namespace twinspool {

class KnownSnapshots {
   public:
    // Settles first; if a standby cannot, a warning is printed, and what is applied counts.
    static Outcome<KnownSnapshots> of(const std::string& volume);
    // The same without that, for who has settled.
    static Outcome<KnownSnapshots> as_it_stands(const std::string& volume);

    [[nodiscard]] const VolumePaths& paths() const { return paths_; }
    [[nodiscard]] const VolumeConfig& config() const { return config_; }
    // Oldest first.
    [[nodiscard]] const std::vector<Snapshot>& snapshots() const { return snapshots_; }
    // By a name as in Point::snapshot. Bad input if there is none.
    [[nodiscard]] Outcome<Snapshot> find(std::string_view name) const {
        return find_snapshot(paths_, snapshots_, name);
    }
    // As they are now.
    Outcome<std::vector<Snapshot>> now();

   private:
    KnownSnapshots() = default;
    VolumePaths paths_;
    VolumeConfig config_;
    std::optional<OpenPast> past_;  // nothing: the daemon is asked
    std::vector<Snapshot> snapshots_;
};

}  // namespace twinspool
