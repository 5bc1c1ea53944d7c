// SPDX-License-Identifier: Apache-2.0
// RateLimit: how much background work may be done in a second. A bucket that fills with `rate`
// bytes a second and holds what comes in a tenth of one; who takes more than there is has to wait
// for as long as it is short of. Values; one thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "journal/base/units.h"

namespace twinspool {

class RateLimit {
   public:
    using Time = std::chrono::steady_clock::time_point;
    // 0: no limit.
    explicit RateLimit(std::uint64_t rate)
        : rate_(static_cast<double>(rate)), left_(rate_ / kShare) {}

    // Says for how long to wait before going on.
    Nanoseconds take(std::uint64_t bytes, Time now) {
        if (rate_ <= 0) return {};
        if (last_ != Time{}) left_ += rate_ * std::chrono::duration<double>(now - last_).count();
        last_ = now;
        left_ = std::min(left_, rate_ / kShare) - static_cast<double>(bytes);
        if (left_ >= 0) return {};
        return std::chrono::duration_cast<Nanoseconds>(
            std::chrono::duration<double>(-left_ / rate_));
    }

   private:
    static constexpr double kShare = 10;
    double rate_;
    double left_;
    Time last_{};
};

}  // namespace twinspool
