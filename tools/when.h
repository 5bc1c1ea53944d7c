// SPDX-License-Identifier: Apache-2.0
// When: times as programs and people read them. Pure functions; any thread.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "journal/units.h"

namespace twinspool {

// RFC 3339, UTC, to the millisecond: "2026-11-22T09:00:00.040Z".
inline std::string utc_text(WallTime time) {
    using std::chrono::days;
    const std::chrono::sys_time<Nanoseconds> point{Nanoseconds{raw(time)}};
    const auto day = std::chrono::floor<days>(point);
    const std::chrono::year_month_day date{day};
    const std::chrono::hh_mm_ss clock{std::chrono::floor<std::chrono::milliseconds>(point - day)};
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", int{date.year()},
                       unsigned{date.month()}, unsigned{date.day()}, clock.hours().count(),
                       clock.minutes().count(), clock.seconds().count(),
                       clock.subseconds().count());
}

// For people: "40s", "12min", "7h", "7d": the largest unit of which there are at least two.
inline std::string age_text(Nanoseconds age) {
    using namespace std::chrono_literals;
    if (age < 2min) return fmt::format("{}s", std::max(age, Nanoseconds{0}) / 1s);
    if (age < 2h) return fmt::format("{}min", age / 1min);
    if (age < 48h) return fmt::format("{}h", age / 1h);
    return fmt::format("{}d", age / 24h);
}

}  // namespace twinspool
