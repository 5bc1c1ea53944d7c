// SPDX-License-Identifier: Apache-2.0
#include "tools/volume/known_volume.h"

#include <sys/stat.h>

#include <algorithm>

namespace twinspool {

Outcome<VolumeConfig> load_volume(const VolumePaths& paths) {
    struct stat status {};
    if (::stat(paths.config().c_str(), &status) != 0 && errno == ENOENT)
        return bad_input("there is no volume {}: {} does not exist", paths.name, paths.config());
    return load_config(paths.config());
}

Outcome<VolumeConfig> load_running_volume(const VolumePaths& paths) {
    for (const auto& file : {paths.last_config(), paths.last_standby()})
        if (auto last = load_config(file); last.ok()) return last;
    return load_volume(paths);
}

Verdict check_directories_kept(const VolumePaths& paths, const VolumeConfig& config) {
    const auto last = load_config(paths.last_config());
    if (!last.ok()) return {};
    const auto same = [](const DirectoryConfig& a, const DirectoryConfig& b) {
        return a.path == b.path;
    };
    const auto& before = last.value().directories;
    if (std::equal(before.begin(), before.end(), config.directories.begin(),
                   config.directories.end(), same))
        return {};
    return bad_input(
        "the directories of the volume {} were changed in {} after its first `up`; undo "
        "that, or take it down, remove it and create it anew",
        paths.name, paths.config());
}

}  // namespace twinspool
