// SPDX-License-Identifier: Apache-2.0
// Privileges: what a change of content takes away from a file: set-uid and set-gid bits, unless the
// writer may keep them, and security.capability always. The kernel leaves both to us
// (HANDLE_KILLPRIV_V2); the backing file system does the second by itself. Called by
// fuse/serve/mutation with the object's lock held.
#pragma once

#include "fuse/serve/answer.h"
#include "fuse/serve/mutation.h"

namespace twinspool {

// Credit for the records that log_privileges() may append.
inline constexpr std::size_t kPrivilegesCredit = max_encoded_size(0) + max_encoded_size(64);

// Before acting.
Status drop_set_id_bits(Inode& inode, int fd);
// Before acting: whether there is a capability that acting will remove.
bool may_have_capability(Inode& inode, int fd);
// After the record of the change itself; of an object that had one before.
void log_lost_capability(Turn& turn, Inode& inode, int fd);
void log_privileges(Turn& turn, Inode& inode, int fd, const struct statx& now,
                    Privileges privileges, bool had_capability);

}  // namespace twinspool
