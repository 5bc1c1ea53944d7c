// SPDX-License-Identifier: Apache-2.0
// Log: where the daemon and the standby process write theirs: to standard error, which `up` has
// pointed at journald or at a file. Called once, before the first thread.
#pragma once

#include <string>

namespace twinspool {

void begin_log(const std::string& volume, const std::string& role);

}  // namespace twinspool
