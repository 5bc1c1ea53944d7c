// SPDX-License-Identifier: Apache-2.0
// Role: which part this machine has in a volume, and what of the volume is here. Told by files, so
// that it holds while nothing runs: `up` leaves last-up.toml, `standby` last-standby.toml, and each
// refuses to begin where the other has been. For commands; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"
#include "tools/volume/config.h"

namespace twinspool {

// The volume as the last `standby` on this machine found it, with the one standby that is here;
// nothing if there was none.
std::optional<VolumeConfig> standby_here(const VolumePaths& paths);

// Refused on a machine that is the volume's standby; `doing` is what only a primary can.
Verdict check_not_standby(const VolumePaths& paths, std::string_view doing);
// Refused also where a primary would begin on the host that is to be a standby. May look up names.
Verdict check_may_be_primary(const VolumePaths& paths, const VolumeConfig& config);
Verdict check_may_be_standby(const VolumePaths& paths, const VolumeConfig& config);

// Which standby this machine is to be: the one whose host is `host`; without that the only one on
// another host, or the only one whose host has an address of this machine. May look up names.
Outcome<StandbyConfig> choose_standby(const VolumePaths& paths, const VolumeConfig& config,
                                      const std::optional<std::string>& host);

// Whether that directory is to be taken for part of the volume here: it is meant to be, or it says
// that it is.
bool is_store_here(const StandbyConfig& standby, std::uint64_t volume);

// The stores of the volume on this machine that say that they are its, in the order of the
// configuration.
std::vector<std::string> stores_here(const VolumePaths& paths, const VolumeConfig& config);
// The store that snapshots are read from: the first of them; or where one should be. A complaint
// if there can be none, because all are on other hosts.
Outcome<std::string> store_of_past(const VolumePaths& paths, const VolumeConfig& config);
// "the host mx2", "the hosts mx2, mx3"
std::string hosts_of(const VolumeConfig& config);

}  // namespace twinspool
