// SPDX-License-Identifier: Apache-2.0
#include "fuse/mount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

namespace twinspool {

Result<Fd> mount_fuse(const std::string& mountpoint) {
    Fd connection{::open("/dev/fuse", O_RDWR | O_CLOEXEC)};
    if (!connection.valid()) return last_error("open /dev/fuse");
    const std::string options =
        fmt::format("fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
                    connection.get());
    if (::mount("twinspool", mountpoint.c_str(), "fuse.twinspool", 0, options.c_str()) != 0)
        return last_error("mount the overlay at {}", mountpoint);
    return connection;
}

Status unmount_fuse(const std::string& mountpoint) {
    if (::umount2(mountpoint.c_str(), UMOUNT_NOFOLLOW) != 0)
        return last_error("unmount {}", mountpoint);
    return {};
}

bool kernel_offers_uring() {
    const Fd parameter{::open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC)};
    char value = 'N';
    return parameter.valid() && ::read(parameter.get(), &value, 1) == 1 &&
           (value == 'Y' || value == '1');
}

}  // namespace twinspool
