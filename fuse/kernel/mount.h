// SPDX-License-Identifier: Apache-2.0
// Mount: the FUSE file system's mount, made and undone by ourselves: device nodes and set-id
// programs work as on the backing tree, and a busy mount is said to be busy.
#pragma once

#include <sys/types.h>

#include <string>

#include "journal/base/fd.h"
#include "journal/base/result.h"

namespace twinspool {

// What a view's mount shows as its type.
inline constexpr const char* kViewFileSystem = "fuse.twinspool-view";

// The connection to the kernel. `mountpoint` is a directory that nobody but root reaches.
Result<Fd> mount_fuse(const std::string& mountpoint);
// The same for a view, which shows as `source` and can be mounted anywhere: read-only, and neither
// its device nodes nor its set-id programs work.
Result<Fd> mount_view(const std::string& mountpoint, const std::string& source);
// EBUSY: programs have something open there.
Status unmount_fuse(const std::string& mountpoint);
// Whoever has something open there keeps it; the path shows what is underneath at once. EINVAL:
// what is mounted there is not what has this device.
Status detach_fuse(const std::string& mountpoint, dev_t device);
// Whether this kernel speaks FUSE over io_uring, and is allowed to.
[[nodiscard]] bool kernel_offers_uring();

}  // namespace twinspool
