// SPDX-License-Identifier: Apache-2.0
// Inspection: who uses a tree, and who would not see a mount, found out from /proc. For commands
// only: a daemon that looked into /proc could come to wait for its own mount.
// Free functions; nothing is changed; processes that end meanwhile are left out.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "journal/base/result.h"
#include "tools/machine/mount_table.h"

namespace twinspool {

struct ProcessFinding {
    pid_t pid = 0;
    std::string command;
    std::string what;  // "has /var/spool/mail/x open"
};

// "dovecot (812) has /var/spool/mail/x open, …": at most `limit` of them, then how many more.
std::string describe(const std::vector<ProcessFinding>& findings, std::size_t limit = 5);

// Who has files open, works in, or has mapped files of this place of a file system: past any
// overlay.
Result<std::vector<ProcessFinding>> users_of_place(const FsPlace& place);

// Whether what a process has open goes away by itself: it is ending, or it is this program, which
// has everything of a daemon open between the fork and the exec of a standby process.
bool is_passing(pid_t pid);

// Who uses anything of the file system on this device, through whichever mount.
Result<std::vector<ProcessFinding>> users_of_device(dev_t device);

// Files of the file system on this device that processes have mapped so that stores reach the file.
struct SharedMapping {
    pid_t pid = 0;
    ino_t inode = 0;
    std::string link;  // opens the file
    std::string path;  // for people
};
std::vector<SharedMapping> shared_mappings_of_device(dev_t device);

// Processes in other mount namespaces that see the directory at `path`, but would not get what is
// mounted over it here.
Result<std::vector<ProcessFinding>> out_of_reach(const std::string& path);

// Processes in other mount namespaces that have the file system on this device mounted, and would
// keep it when it is unmounted here.
Result<std::vector<ProcessFinding>> keepers_of_device(dev_t device);

// A warning for each file system under these directories that has no journal of its own.
std::vector<std::string> warnings_without_journal(const std::vector<std::string>& paths);

}  // namespace twinspool
