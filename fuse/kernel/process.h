// SPDX-License-Identifier: Apache-2.0
// Process: what the daemon must be before it serves: no CAP_SYS_RESOURCE (so that the owners' disk
// quotas and the reserved blocks hold for what it writes for them), capabilities that survive a
// change of the file-system user, no umask of its own. And the user whom a thread acts for.
#pragma once

#include <sys/types.h>

#include "journal/base/result.h"

namespace twinspool {

// Once, before the first thread. Parts that the machine does not allow are left out: what could not
// be done is in the result, and is a warning, unless the process lacks the capabilities it needs.
Status prepare_process();

// Who asks. `umask` counts for creating calls only.
struct Caller {
    uid_t uid = 0;
    gid_t gid = 0;
    mode_t umask = 0;
    pid_t pid = 0;
};

// From now on the calling thread makes files as this user. Its capabilities stay, so the caller's
// supplementary groups, which the daemon does not have, never lead to a refusal.
void act_as(const Caller& caller);

// For the calling thread: processor and disk when nobody else wants them.
void become_background_thread();
void name_thread(const char* name);

}  // namespace twinspool
