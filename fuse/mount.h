// SPDX-License-Identifier: Apache-2.0
// Mount: the FUSE file system's mount, made and undone by ourselves: device nodes and set-id
// programs work as on the backing tree, and a busy mount is said to be busy.
#pragma once

#include <string>

#include "journal/fd.h"
#include "journal/result.h"

namespace twinspool {

// The connection to the kernel. `mountpoint` is a directory that nobody but root reaches.
Result<Fd> mount_fuse(const std::string& mountpoint);
// EBUSY: programs have something open there.
Status unmount_fuse(const std::string& mountpoint);
// Whether this kernel speaks FUSE over io_uring, and is allowed to.
[[nodiscard]] bool kernel_offers_uring();

}  // namespace twinspool
