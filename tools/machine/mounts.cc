// SPDX-License-Identifier: Apache-2.0
#include "tools/machine/mounts.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "journal/base/fd.h"
#include "tools/machine/mount_table.h"

namespace twinspool {
namespace {

// Newer than the headers of Debian 12 (Linux 6.5).
constexpr unsigned kMoveMountBeneath = 0x200;

Result<Fd> detached_private_clone(const std::string& source) {
    Fd clone{static_cast<int>(
        ::syscall(SYS_open_tree, AT_FDCWD, source.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC))};
    if (!clone.valid()) return last_error("clone the mount at {}", source);
    struct mount_attr private_mount {};
    private_mount.propagation = MS_PRIVATE;
    if (::syscall(SYS_mount_setattr, clone.get(), "", AT_EMPTY_PATH, &private_mount,
                  sizeof private_mount) != 0)
        return last_error("make the mount of {} private", source);
    return clone;
}

Status attach(const Fd& mount, const std::string& target, unsigned flags) {
    if (::syscall(SYS_move_mount, mount.get(), "", AT_FDCWD, target.c_str(),
                  MOVE_MOUNT_F_EMPTY_PATH | flags) != 0)
        return last_error("mount over {}", target);
    return {};
}

Status unmount(const std::string& target, int flags) {
    if (::umount2(target.c_str(), flags | UMOUNT_NOFOLLOW) != 0)
        return last_error("unmount {}", target);
    return {};
}

// Dead overlays at the top of the stack, and whether anything of ours is there at all.
struct Layers {
    std::size_t overlays = 0;  // how many, one on the other
    bool top_is_dead = false;
};

Result<Layers> layers_at(const std::string& directory) {
    TS_ASSIGN(const auto table, MountTable::of_self());
    Layers layers;
    const auto stack = table.stack_at(directory);
    for (auto entry = stack.rbegin(); entry != stack.rend() && (*entry)->type == kOverlayType;
         ++entry)
        ++layers.overlays;
    layers.top_is_dead = layers.overlays > 0 && is_dead(directory);
    return layers;
}

}  // namespace

bool is_dead(const std::string& path) {
    // Attributes may be answered from the kernel's cache long after the daemon's death; this never
    // is.
    struct statfs status {};
    return ::statfs(path.c_str(), &status) != 0 &&
           (errno == ENOTCONN || errno == ECONNABORTED || errno == ECANCELED);
}

Outcome<Cover> cover_of(const std::string& directory, dev_t live) {
    TS_ASSIGN(const auto table, MountTable::of_self());
    const auto stack = table.stack_at(directory);
    if (stack.empty() || stack.back()->type != kOverlayType) return Cover::kBare;
    if (live != 0 && stack.back()->device == live) return Cover::kLive;
    return is_dead(directory) ? Cover::kStale : Cover::kForeign;
}

Outcome<dev_t> device_mounted_at(const std::string& path) {
    TS_ASSIGN(const auto table, MountTable::of_self());
    const auto stack = table.stack_at(path);
    return stack.empty() ? dev_t{0} : stack.back()->device;
}

Verdict bind_private(const std::string& source, const std::string& target) {
    TS_ASSIGN(const auto clone, detached_private_clone(source));
    TS_TRY(attach(clone, target, 0));
    return {};
}

Outcome<Layering> put_in_place(const std::string& source, const std::string& directory) {
    TS_ASSIGN(const auto clone, detached_private_clone(source));
    TS_ASSIGN(auto layers, layers_at(directory));
    // Down to one dead layer: that one keeps the backing tree out of reach until the end.
    for (; layers.top_is_dead && layers.overlays > 1; --layers.overlays)
        TS_TRY(unmount(directory, MNT_DETACH));
    if (!layers.top_is_dead) {
        TS_TRY(attach(clone, directory, 0));
        return Layering::kFresh;
    }
    if (const auto beneath = attach(clone, directory, kMoveMountBeneath); !beneath.ok()) {
        TS_TRY(attach(clone, directory, 0));
        return Layering::kCoveredStale;
    }
    TS_TRY(unmount(directory, MNT_DETACH));
    return Layering::kReplacedStale;
}

Outcome<Removal> take_away(const std::string& directory) {
    TS_ASSIGN(auto layers, layers_at(directory));
    if (layers.overlays == 0) return Removal::kNothingThere;
    if (!layers.top_is_dead) {
        const auto removed = unmount(directory, 0);
        if (!removed.ok() && removed.error().code == EBUSY) return Removal::kBusy;
        if (!removed.ok()) return removed.error();
    }
    TS_TRY(take_away_stale(directory));
    return Removal::kRemoved;
}

Verdict take_away_stale(const std::string& directory) {
    TS_ASSIGN(auto layers, layers_at(directory));
    for (; layers.overlays > 0 && is_dead(directory); --layers.overlays)
        TS_TRY(unmount(directory, MNT_DETACH));
    return {};
}

Verdict unmount_all(const std::string& path) {
    TS_ASSIGN(const auto table, MountTable::of_self());
    for (std::size_t left = table.stack_at(path).size(); left > 0; --left)
        TS_TRY(unmount(path, MNT_DETACH));
    return {};
}

}  // namespace twinspool
