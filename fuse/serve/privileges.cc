// SPDX-License-Identifier: Apache-2.0
#include "fuse/serve/privileges.h"

#include <sys/stat.h>
#include <sys/xattr.h>

#include "fuse/objects/xattrs.h"

namespace twinspool {

Status drop_set_id_bits(Inode& inode, int fd) {
    if (!inode.privileged) return {};
    struct statx now {};
    if (const int error = stat_object(fd, now)) return plain(error);
    mode_t mode = now.stx_mode & 07777U & ~static_cast<mode_t>(S_ISUID);
    // Set-gid without group execution means something else, and stays.
    if ((mode & S_IXGRP) != 0) mode &= ~static_cast<mode_t>(S_ISGID);
    if (mode != (now.stx_mode & 07777U) && ::fchmod(fd, mode) != 0) return plain(errno);
    return {};
}

bool may_have_capability(Inode& inode, int fd) {
    if (inode.xattrs == Knowledge::kNo || inode.capability == Knowledge::kNo) return false;
    const ssize_t size = ::fgetxattr(fd, kCapabilityXattr, nullptr, 0);
    inode.capability = size >= 0 ? Knowledge::kYes : Knowledge::kNo;
    return size >= 0;
}

void log_lost_capability(Turn& turn, Inode& inode, int fd) {
    inode.capability = Knowledge::kUnknown;
    if (::fgetxattr(fd, kCapabilityXattr, nullptr, 0) < 0 && errno == ENODATA)
        turn.append(RemoveXattrOp{.object = inode.id, .name = kCapabilityXattr});
}

void log_privileges(Turn& turn, Inode& inode, int fd, const struct statx& now,
                    Privileges privileges, bool had_capability) {
    if (had_capability) log_lost_capability(turn, inode, fd);
    if (privileges == Privileges::kKeep || !inode.privileged) return;
    inode.privileged = (now.stx_mode & (S_ISUID | S_ISGID)) != 0;
    turn.append(AttributesOp{.object = inode.id, .attributes = attributes_of(now)});
}

}  // namespace twinspool
