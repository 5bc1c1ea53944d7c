// SPDX-License-Identifier: Apache-2.0
// Due: when something that is to happen at each multiple of `every` since 1970 (UTC) has come.
//
// What came before the Due was made, or while nobody asked, is not made up for: of several the last
// one counts. A clock that is set back by little makes none come twice. Values; one thread.
#pragma once

#include <cstdint>
#include <optional>

#include "journal/base/units.h"

namespace twinspool {

class Due {
   public:
    constexpr Due(Nanoseconds every, WallTime now)
        : every_(every), next_(at_or_before(now) + every) {}

    // The time that has come; nothing if there is none that was not said before.
    constexpr std::optional<WallTime> come(WallTime now) {
        const Nanoseconds time{raw(now)};
        // The clock is another one: what it said before counts for nothing.
        if (next_ - time > 2 * every_) next_ = at_or_before(now) + every_;
        if (time < next_) return std::nullopt;
        const Nanoseconds last = at_or_before(now);
        next_ = last + every_;
        return WallTime{last.count()};
    }
    [[nodiscard]] constexpr WallTime next() const { return WallTime{next_.count()}; }

   private:
    [[nodiscard]] constexpr Nanoseconds at_or_before(WallTime now) const {
        const Nanoseconds time{raw(now)};
        const Nanoseconds past = time % every_;
        return time - (past.count() < 0 ? past + every_ : past);
    }

    Nanoseconds every_;
    Nanoseconds next_;
};

}  // namespace twinspool
