// SPDX-License-Identifier: Apache-2.0
// The kernel's attributes of an object as libfuse wants them: the object id is the inode number.
#pragma once

#include <sys/stat.h>

#include "journal/base/units.h"

namespace twinspool {

struct stat stat_of(ObjectId id, const struct statx& from);

// Nobody else changes the tree, so what the kernel knows stays true until it changes it itself.
inline constexpr double kForever_s = 1e9;

}  // namespace twinspool
