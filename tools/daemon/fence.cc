// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/fence.h"

#include <spdlog/spdlog.h>

#include "tools/daemon/hook.h"

namespace twinspool {

Status run_fence(const Fence& fence) {
    spdlog::warn("standby {}: running fence_peer", fence.standby);
    const auto run = run_hook(
        {.name = "fence_peer",
         .place = "",
         .command = fence.command,
         .environment = {{"TWINSPOOL_VOLUME", fence.volume}, {"TWINSPOOL_STANDBY", fence.standby}},
         .timeout = fence.timeout});
    if (!run.ok()) return make_error(EREMOTEIO, "{}", run.error().sentence);
    spdlog::warn("standby {}: fence_peer has succeeded", fence.standby);
    return {};
}

}  // namespace twinspool
