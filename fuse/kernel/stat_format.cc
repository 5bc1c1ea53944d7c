// SPDX-License-Identifier: Apache-2.0
#include "fuse/kernel/stat_format.h"

#include <sys/sysmacros.h>

namespace twinspool {

struct stat stat_of(ObjectId id, const struct statx& from) {
    struct stat to {};
    to.st_ino = raw(id);
    to.st_mode = from.stx_mode;
    to.st_nlink = from.stx_nlink;
    to.st_uid = from.stx_uid;
    to.st_gid = from.stx_gid;
    to.st_rdev = makedev(from.stx_rdev_major, from.stx_rdev_minor);
    to.st_size = static_cast<off_t>(from.stx_size);
    to.st_blksize = static_cast<blksize_t>(from.stx_blksize);
    to.st_blocks = static_cast<blkcnt_t>(from.stx_blocks);
    to.st_atim = {from.stx_atime.tv_sec, static_cast<long>(from.stx_atime.tv_nsec)};
    to.st_mtim = {from.stx_mtime.tv_sec, static_cast<long>(from.stx_mtime.tv_nsec)};
    to.st_ctim = {from.stx_ctime.tv_sec, static_cast<long>(from.stx_ctime.tv_nsec)};
    return to;
}

}  // namespace twinspool
