// SPDX-License-Identifier: Apache-2.0
// Pace: how fast a gap closes, from what it was in the last seconds. Bounded; not thread-safe, the
// link's lock protects it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

namespace twinspool {

class Pace {
   public:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::milliseconds kEvery{500};
    static constexpr std::size_t kMaxLooks = 20;

    void clear() { looks_.clear(); }
    void look(std::uint64_t gap, Clock::time_point now) {
        if (!looks_.empty() && now - looks_.back().at < kEvery) return;
        if (looks_.size() == kMaxLooks) looks_.pop_front();
        looks_.push_back({gap, now});
    }
    // Seconds until a gap that is this wide now is closed; nothing: it does not become smaller.
    [[nodiscard]] std::optional<double> seconds(std::uint64_t gap, Clock::time_point now) const {
        if (gap == 0) return 0;
        if (looks_.empty() || looks_.front().gap <= gap) return std::nullopt;
        const double took = std::chrono::duration<double>(now - looks_.front().at).count();
        if (took <= 0) return std::nullopt;
        return took * static_cast<double>(gap) / static_cast<double>(looks_.front().gap - gap);
    }

   private:
    struct Look {
        std::uint64_t gap;
        Clock::time_point at;
    };
    std::deque<Look> looks_;
};

}  // namespace twinspool
