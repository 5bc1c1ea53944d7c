// SPDX-License-Identifier: Apache-2.0
// StatusView: the status of volumes for people, one line a volume and a few facts below it; made
// from the same JSON that `status --json` prints. Pure functions; any thread.
#pragma once

#include <string>

#include "tools/ground/control.h"

namespace twinspool {

// "mail  primary in-sync | /mnt/standby/mail connected, queued/sent 612/611 (3343432 B), lag 0.4 ms
// | snapshots 38, oldest 7d | …"
std::string status_line(const Json& status);
// That line, and an indented one for each directory, for the standby and for the newest snapshot.
std::string status_text(const Json& status);

}  // namespace twinspool
