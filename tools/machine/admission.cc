// SPDX-License-Identifier: Apache-2.0
#include "tools/machine/admission.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "journal/base/fd.h"
#include "journal/base/handle.h"
#include "tools/machine/mount_table.h"
#include "tools/machine/role.h"
#include "tools/volume/target.h"

namespace twinspool {
namespace {

constexpr const char* kProbeXattr = "trusted.twinspool.probe";
constexpr const char* kMarker = "/volume";
// What of a standby directory belongs to Twinspool, but for the replica tree.
constexpr std::string_view kStandbyParts[] = {"journal",  "catalogue", "history", "staging",
                                              "parked",   "kept",      "holds",   "ballast",
                                              "progress", "lock"};

std::string id_text(std::uint64_t id) { return fmt::format("0x{:016x}", id); }

Verdict check_is_directory(const std::string& path, std::string_view what) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
        const int code = errno;
        if (code == ENOENT) return bad_input("the {} {} does not exist", what, path);
        return bad_input("the {} {} cannot be used: {}", what, path, std::strerror(code));
    }
    if (!S_ISDIR(status.st_mode)) return bad_input("the {} {} is not a directory", what, path);
    return {};
}

Outcome<std::string> real_directory(const std::string& path, std::string_view what) {
    TS_TRY(check_is_directory(path, what));
    auto real = real_path(path);
    if (!real.ok())
        return bad_input("the {} {} cannot be used: {}", what, path, real.error().text());
    return std::move(real).value();
}

// Twinspool ties its ids to inodes by trusted xattrs and file handles: tried on the directory
// itself. That changes its ctime, so it is done for new volumes only.
Verdict check_file_system(const std::string& path, std::string_view what) {
    const Fd fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd.valid())
        return bad_input("the {} {} cannot be opened: {}", what, path, std::strerror(errno));
    const char value = '1';
    if (::fsetxattr(fd.get(), kProbeXattr, &value, sizeof value, 0) != 0) {
        const int code = errno;
        return bad_input(
            "the file system of the {} {} takes no trusted extended attributes ({}), "
            "and Twinspool needs them; use ext4, XFS or btrfs, mounted read-write",
            what, path, std::strerror(code));
    }
    if (::fremovexattr(fd.get(), kProbeXattr) != 0)
        return Complaint{last_error("remove the trial xattr {} from {}", kProbeXattr, path)};
    const auto handle = handle_of(fd.get());
    if (!handle.ok() || !open_handle(fd.get(), handle.value(), O_RDONLY | O_DIRECTORY).ok())
        return bad_input(
            "the file system of the {} {} has no file handles, and Twinspool needs them; "
            "use ext4, XFS or btrfs",
            what, path);
    return {};
}

Verdict check_no_mount_inside(const MountTable& table, const std::string& path,
                              std::string_view what) {
    for (const auto& entry : table.entries())
        if (entry.point != path && is_within(entry.point, path))
            return bad_input(
                "another file system is mounted inside the {} {}, at {}; make that a "
                "directory of the volume of its own, or unmount it",
                what, path, entry.point);
    return {};
}

// Two places that must not contain one another.
Verdict check_apart(const std::string& path, std::string_view what, const std::string& other,
                    std::string_view other_what) {
    if (path == other) return bad_input("the {} {} is also the {}", what, path, other_what);
    if (is_within(path, other))
        return bad_input("the {} {} is inside the {} {}", what, path, other_what, other);
    if (is_within(other, path))
        return bad_input("the {} {} contains the {} {}", what, path, other_what, other);
    return {};
}

Verdict check_own_places(const VolumePaths& paths, const std::string& path, std::string_view what) {
    const std::pair<const std::string&, std::string_view> places[] = {
        {paths.base.lib, "state directory"},
        {paths.base.run, "run directory"},
        {paths.base.etc, "configuration directory"}};
    for (const auto& [place, place_what] : places) {
        const auto real = real_path(place);
        TS_TRY(check_apart(path, what, real.ok() ? real.value() : place, place_what));
    }
    return {};
}

// Also of a standby on another host: perhaps this machine is that host.
Verdict check_standbys_of(const VolumeConfig& other, const std::string& name,
                          const std::string& path, std::string_view what) {
    for (const auto& standby : other.standbys) {
        if (!is_store_here(standby, other.id)) continue;
        TS_TRY(
            check_apart(path, what, standby.path, fmt::format("standby of the volume {}", name)));
    }
    return {};
}

// Against the volumes that exist already.
Verdict check_other_volumes(const VolumePaths& paths, const std::string& path,
                            std::string_view what) {
    for (const auto& name : volume_names(paths.base)) {
        if (name == paths.name) continue;
        const auto other = load_config(VolumePaths{name, paths.base}.config());
        if (!other.ok())
            return failure("whether {} is part of the volume {} already cannot be told: {}", path,
                           name, other.error().sentence);
        for (const auto& directory : other.value().directories) {
            if (directory.path == path)
                return bad_input("the {} {} is already part of the volume {}", what, path, name);
            TS_TRY(check_apart(path, what, directory.path,
                               fmt::format("directory of the volume {}", name)));
        }
        TS_TRY(check_standbys_of(other.value(), name, path, what));
    }
    return {};
}

Verdict check_directories(const VolumePaths& paths, const std::vector<std::string>& directories,
                          const std::vector<StandbyConfig>& standbys) {
    for (std::size_t i = 0; i < directories.size(); ++i) {
        const auto& path = directories[i];
        for (std::size_t earlier = 0; earlier < i; ++earlier) {
            if (directories[earlier] == path)
                return bad_input("the directory {} is given twice", path);
            TS_TRY(check_apart(path, "directory", directories[earlier], "directory"));
        }
        for (const auto& standby : standbys)
            if (standby.is_local())
                TS_TRY(check_apart(path, "directory", standby.path, "standby directory"));
        TS_TRY(check_own_places(paths, path, "directory"));
        TS_TRY(check_other_volumes(paths, path, "directory"));
    }
    return {};
}

// The standby directory may be made by us if its parent is there.
Outcome<std::string> real_standby(const std::string& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0) return real_directory(path, "standby directory");
    std::string trimmed = path;
    while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
    const auto cut = trimmed.rfind('/');
    const std::string parent = cut == std::string::npos ? "." : trimmed.substr(0, cut + 1);
    const std::string last = trimmed.substr(cut == std::string::npos ? 0 : cut + 1);
    if (last.empty() || last == "." || last == "..")
        return bad_input("the standby directory {} does not exist", path);
    const auto real = real_directory(parent, "directory that is to hold the standby");
    if (!real.ok()) return real.error();
    return fmt::format("{}/{}", real.value().size() == 1 ? "" : real.value(), last);
}

Verdict check_not_foreign(const std::string& standby, std::uint64_t id) {
    TS_ASSIGN(const auto owner, owner_of_standby(standby, id));
    if (owner != StandbyOwner::kOther) return {};
    return bad_input(
        "the standby directory {} is not empty and not this volume's; empty it, or give another",
        standby);
}

Verdict check_standby(const VolumePaths& paths, const std::string& standby, std::uint64_t id) {
    TS_TRY(check_own_places(paths, standby, "standby directory"));
    TS_TRY(check_other_volumes(paths, standby, "standby directory"));
    struct stat status {};
    const bool exists = ::stat(standby.c_str(), &status) == 0;
    if (exists) TS_TRY(check_not_foreign(standby, id));
    const std::string probed = exists ? standby : standby.substr(0, standby.rfind('/') + 1);
    return check_file_system(probed, "standby directory");
}

// No two are the same, or one inside the other.
Verdict check_standbys_apart(const std::vector<StandbyConfig>& standbys) {
    for (std::size_t i = 0; i < standbys.size(); ++i)
        for (std::size_t earlier = 0; earlier < i; ++earlier) {
            if (standbys[i].target() == standbys[earlier].target())
                return bad_input("the standby {} is given twice", standbys[i].target());
            if (standbys[i].is_local() && standbys[earlier].is_local())
                TS_TRY(check_apart(standbys[i].path, "standby directory", standbys[earlier].path,
                                   "standby directory"));
        }
    return {};
}

Outcome<StandbyConfig> real_target(const std::string& given) {
    TS_ASSIGN(auto standby, parse_standby_target(given));
    if (standby.is_local()) {
        TS_ASSIGN(standby.path, real_standby(standby.path));
    }
    return standby;
}

int remove_entry(const char* path, const struct stat*, int, struct FTW*) { return ::remove(path); }

}  // namespace

Outcome<VolumeConfig> admit(const VolumePaths& paths, const Candidates& candidates) {
    VolumeConfig config;
    std::vector<std::string> directories;
    TS_ASSIGN(const auto table, MountTable::of_self());
    for (const auto& given : candidates.directories) {
        TS_ASSIGN(auto real, real_directory(given, "directory"));
        directories.push_back(std::move(real));
    }
    for (const auto& given : candidates.standbys) {
        TS_ASSIGN(auto standby, real_target(given));
        config.standbys.push_back(std::move(standby));
    }
    TS_TRY(check_standbys_apart(config.standbys));
    TS_TRY(check_directories(paths, directories, config.standbys));
    for (const auto& path : directories) {
        const MountEntry* mount = table.covering(path);
        if (mount != nullptr && mount->type == kOverlayType)
            return bad_input("the directory {} is already part of a volume that is up", path);
        TS_TRY(check_no_mount_inside(table, path, "directory"));
        TS_TRY(check_file_system(path, "directory"));
        config.directories.push_back({path});
    }
    for (const auto& standby : config.standbys)
        if (standby.is_local()) TS_TRY(check_standby(paths, standby.path, config.id));
    return config;
}

Verdict admit_again(const VolumePaths& paths, const VolumeConfig& config,
                    const std::vector<std::string>& sources) {
    std::vector<std::string> directories;
    TS_ASSIGN(const auto table, MountTable::of_self());
    for (const auto& directory : config.directories) directories.push_back(directory.path);
    TS_TRY(check_standbys_apart(config.standbys));
    TS_TRY(check_directories(paths, directories, config.standbys));
    for (const auto& standby : config.standbys)
        if (standby.is_local()) TS_TRY(check_own_places(paths, standby.path, "standby directory"));
    for (std::size_t i = 0; i < directories.size(); ++i) {
        TS_TRY(check_no_mount_inside(table, directories[i], "directory"));
        TS_ASSIGN(const auto real, real_directory(sources[i], "directory"));
        if (sources[i] == directories[i] && real != directories[i])
            return bad_input("the directory {} is reached by a symbolic link; write {} in {}",
                             directories[i], real, paths.config());
    }
    return {};
}

Verdict admit_edited_standbys(const VolumePaths& paths, const VolumeConfig& config) {
    const auto last = load_config(paths.last_config());
    const auto is_known = [&](const StandbyConfig& standby) {
        if (!last.ok() || last.value().id != config.id) return false;
        const auto& known = last.value().standbys;
        return std::any_of(known.begin(), known.end(), [&](const StandbyConfig& each) {
            return each.is_local() && each.path == standby.path;
        });
    };
    for (const auto& standby : config.standbys)
        if (standby.is_local() && !is_known(standby))
            TS_TRY(admit_store(paths, standby.path, config.id));
    return {};
}

Verdict admit_store(const VolumePaths& paths, const std::string& standby, std::uint64_t id) {
    TS_TRY(check_other_volumes(paths, standby, "standby directory"));
    struct stat status {};
    if (::stat(standby.c_str(), &status) != 0) return {};
    TS_TRY(check_is_directory(standby, "standby directory"));
    return check_not_foreign(standby, id);
}

Outcome<StandbyOwner> owner_of_standby(const std::string& standby, std::uint64_t id) {
    const auto marker = read_file(standby + kMarker);
    if (marker.ok())
        return marker.value().find("id = \"" + id_text(id) + "\"") != std::string::npos
                   ? StandbyOwner::kThisVolume
                   : StandbyOwner::kOther;
    if (marker.error().code != ENOENT) return marker.error();
    TS_ASSIGN(const auto names, entries_of(standby));
    // A fresh file system has lost+found, and an interrupted start may have left half a marker.
    for (const auto& name : names)
        if (name != "lost+found" && name != "volume.new") return StandbyOwner::kOther;
    return StandbyOwner::kNobody;
}

Verdict claim_standby(const std::string& standby, const std::string& name, std::uint64_t id) {
    TS_TRY(check_is_directory(standby, "standby directory"));
    TS_ASSIGN(const auto owner, owner_of_standby(standby, id));
    if (owner == StandbyOwner::kThisVolume) return {};
    if (owner == StandbyOwner::kOther) {
        TS_ASSIGN(const auto names, entries_of(standby));
        // Emptied while a standby process was still writing there: only what it makes by itself.
        for (const auto& entry : names)
            if (entry != "lost+found" && entry != "volume.new" &&
                std::find(std::begin(kStandbyParts), std::end(kStandbyParts), entry) ==
                    std::end(kStandbyParts))
                return failure(
                    "the standby directory {} is not empty and not this volume's: {} is "
                    "in it",
                    standby, entry);
        TS_TRY(release_standby(standby));
    }
    TS_TRY(mark_standby(standby, name, id));
    return {};
}

Status mark_standby(const std::string& standby, const std::string& name, std::uint64_t id) {
    return write_file_atomically(standby + kMarker,
                                 fmt::format("# Twinspool keeps a standby of this volume here.\n"
                                             "name = \"{}\"\nid = \"{}\"\n",
                                             name, id_text(id)));
}

Verdict release_standby(const std::string& standby) {
    for (const auto part : kStandbyParts) TS_TRY(remove_tree(fmt::format("{}/{}", standby, part)));
    if (::unlink((standby + kMarker).c_str()) != 0 && errno != ENOENT)
        return Complaint{last_error("remove {}{}", standby, kMarker)};
    return {};
}

Status remove_tree(const std::string& path) {
    constexpr int kOpenDirectories = 32;
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) {
        if (errno == ENOENT) return {};
        return last_error("look at {}", path);
    }
    if (::nftw(path.c_str(), remove_entry, kOpenDirectories, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0)
        return last_error("remove {}", path);
    return {};
}

}  // namespace twinspool
