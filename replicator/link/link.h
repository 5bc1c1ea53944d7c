// SPDX-License-Identifier: Apache-2.0
// Link states: one machine, one table.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "journal/base/result.h"

namespace twinspool {

enum class LinkState : std::uint8_t {
    kConnecting,  // no standby; commits wait for it
    kAlone,       // no standby; commits do not wait: "alone since" is durable
    kCatchingUp,  // a standby that has not everything yet (waited for or not)
    kInSync,      // it has everything that was acknowledged, and is waited for (unless that is not
                  // configured: then it had all that was there when it came)
    kStopped,
};

constexpr std::string_view name_of(LinkState state) {
    constexpr std::array<std::string_view, 5> kNames{"connecting", "alone", "catching-up",
                                                     "in-sync", "stopped"};
    return kNames[static_cast<std::size_t>(state)];
}

// From (row) to (column), in the order of the enum.
inline constexpr bool kLegalMoves[5][5] = {
    // connecting alone  catching in-sync stopped
    {false, true, true, false, true},    // connecting
    {false, false, true, false, true},   // alone
    {true, true, false, true, true},     // catching-up
    {true, false, true, false, true},    // in-sync
    {false, false, false, false, false}  // stopped
};

inline void transition(LinkState& state, LinkState to) {
    if (state == to) return;
    TS_ASSERT(kLegalMoves[static_cast<int>(state)][static_cast<int>(to)]);
    state = to;
}

}  // namespace twinspool
