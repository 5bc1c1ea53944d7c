// SPDX-License-Identifier: Apache-2.0
#include "fuse/kernel/mount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace twinspool {

namespace {

Result<Fd> mount_connection(const std::string& mountpoint, const char* source, const char* type,
                            unsigned long flags) {
    Fd connection{::open("/dev/fuse", O_RDWR | O_CLOEXEC)};
    if (!connection.valid()) return last_error("open /dev/fuse");
    const std::string options =
        fmt::format("fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
                    connection.get());
    if (::mount(source, mountpoint.c_str(), type, flags, options.c_str()) != 0)
        return last_error("mount {} at {}", source, mountpoint);
    return connection;
}

}  // namespace

Result<Fd> mount_fuse(const std::string& mountpoint) {
    return mount_connection(mountpoint, "twinspool", "fuse.twinspool", 0);
}

Result<Fd> mount_view(const std::string& mountpoint, const std::string& source) {
    return mount_connection(mountpoint, source.c_str(), kViewFileSystem,
                            MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOATIME);
}

Status unmount_fuse(const std::string& mountpoint) {
    if (::umount2(mountpoint.c_str(), UMOUNT_NOFOLLOW) != 0)
        return last_error("unmount {}", mountpoint);
    return {};
}

Status detach_fuse(const std::string& mountpoint, dev_t device) {
    struct statx there {};
    if (::statx(AT_FDCWD, mountpoint.c_str(), AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, 0,
                &there) != 0)
        return last_error("look at {}", mountpoint);
    if (makedev(there.stx_dev_major, there.stx_dev_minor) != device)
        return make_error(EINVAL, "find the mount at {}", mountpoint);
    if (::umount2(mountpoint.c_str(), UMOUNT_NOFOLLOW | MNT_DETACH) != 0)
        return last_error("take {} away", mountpoint);
    return {};
}

bool kernel_offers_uring() {
    const Fd parameter{::open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC)};
    char value = 'N';
    return parameter.valid() && ::read(parameter.get(), &value, 1) == 1 &&
           (value == 'Y' || value == '1');
}

}  // namespace twinspool
