// SPDX-License-Identifier: Apache-2.0
// Admission: whether directories and a standby can make a volume. Every check is made before
// anything is written; each refusal is a sentence and exit code 2. Also the marker that says whose
// a standby directory is. For commands; any thread.
#pragma once

#include <string>
#include <vector>

#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"
#include "tools/volume/config.h"

namespace twinspool {

// Directories and standbys as the user wrote them; returns the configuration with real paths. Of
// another host nothing is looked at: it may not be there yet.
// Changes nothing, but for an extended attribute that is set and removed again as a trial.
struct Candidates {
    std::vector<std::string> directories;
    std::vector<std::string> standbys;
};
Outcome<VolumeConfig> admit(const VolumePaths& paths, const Candidates& candidates);

// The same for a configuration that stands in a file already, before `up`. `sources` are the
// backing trees: the directories themselves, or where an earlier `up` kept them reachable.
Verdict admit_again(const VolumePaths& paths, const VolumeConfig& config,
                    const std::vector<std::string>& sources);

// A standby directory that the last `up` did not have must be nobody else's. Those that it had, and
// those that are away, do not keep a volume from going up: then it is degraded.
Verdict admit_edited_standbys(const VolumePaths& paths, const VolumeConfig& config);

// STANDBY/volume: the name and the id of the volume that this directory is the standby of.
enum class StandbyOwner : std::uint8_t { kNobody, kThisVolume, kOther };
Outcome<StandbyOwner> owner_of_standby(const std::string& standby, std::uint64_t id);
// For a directory that a command is to make on this machine, outside of `create`: nobody else's,
// and not part of another volume here.
Verdict admit_store(const VolumePaths& paths, const std::string& standby, std::uint64_t id);
// For the process that serves the standby: a directory that was emptied meanwhile is marked again.
Verdict claim_standby(const std::string& standby, const std::string& name, std::uint64_t id);
Status mark_standby(const std::string& standby, const std::string& name, std::uint64_t id);
// Forgets the standby's journal and identity; the replica tree stays.
Verdict release_standby(const std::string& standby);

// Removes a directory and what is in it, not following symbolic links or into other file systems.
Status remove_tree(const std::string& path);

}  // namespace twinspool
