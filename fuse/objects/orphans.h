// SPDX-License-Identifier: Apache-2.0
// Orphans: unlinked objects that are still in use, when too many descriptors are pinned already:
// each gets a name in a hidden directory of its backing tree, gone with its last use. Emptied at
// start and stop. Called by fuse/serve/mutation with the object's lock held, and when an Inode is
// dropped.
#pragma once

#include "fuse/objects/volume.h"

namespace twinspool {

// Before the last unlink of `entry`, which is the object's; it and the parent are locked, and
// perhaps the directory's root, whose mtime must stay as it is. Busy (an Ending) if somebody else
// changes that.
Status keep_orphan(Volume& volume, Inode& object, bool root_is_locked, int parent_fd,
                   const char* entry);
void remove_orphan(Volume& volume, Inode& object);
// The hidden directory and all that is in it, with the root's mtime as it was.
Status clear_orphans(Directory& directory);
[[nodiscard]] bool is_hidden(const Volume& volume, const Inode& parent, const char* name);

}  // namespace twinspool
