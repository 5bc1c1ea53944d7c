// SPDX-License-Identifier: Apache-2.0
// Secret: VOLUME.secret, with which both hosts of a link know each other: 64 hexadecimal digits and
// a newline, root's, mode 0600. For commands and daemons; any thread. What is wrong with the file
// is a complaint that says what to do.
#pragma once

#include <cstdint>

#include "replicator/link/tcp.h"
#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"

namespace twinspool {

// A new one, in the place of any other. The directory must be there.
Verdict write_secret(const VolumePaths& paths);

Outcome<LinkSecret> load_secret(const VolumePaths& paths, std::uint64_t volume);

}  // namespace twinspool
