// SPDX-License-Identifier: Apache-2.0
// Fence: the command fence_peer, which makes sure that a standby that is lost cannot take over, or
// has none of our clients, before commits go on without it. For the shell, like a hook, with
// TWINSPOOL_VOLUME and TWINSPOOL_STANDBY in its environment. Any thread; returns when it has ended,
// or was killed after `timeout`.
#pragma once

#include <string>

#include "journal/base/result.h"
#include "journal/base/units.h"

namespace twinspool {

struct Fence {
    std::string command;
    std::string volume;
    std::string standby;  // as it stands in the configuration
    Nanoseconds timeout{};
};

// An error, with what became of it, unless it ends with status 0.
Status run_fence(const Fence& fence);

}  // namespace twinspool
