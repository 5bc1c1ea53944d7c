// SPDX-License-Identifier: Apache-2.0
// Time texts: when something was, and how long ago, for people. Pure functions; any thread.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "journal/base/units.h"

namespace twinspool {

// "40s", "12min", "7h", "7d": the largest unit of which there are at least two.
inline std::string age_text(Nanoseconds age) {
    using namespace std::chrono_literals;
    if (age < 2min) return fmt::format("{}s", std::max(age, Nanoseconds{0}) / 1s);
    if (age < 2h) return fmt::format("{}min", age / 1min);
    if (age < 48h) return fmt::format("{}h", age / 1h);
    return fmt::format("{}d", age / 24h);
}

// RFC 3339, UTC, to the second.
std::string spell_time(WallTime time);

}  // namespace twinspool
