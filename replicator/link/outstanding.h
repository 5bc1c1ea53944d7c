// SPDX-License-Identifier: Apache-2.0
// Outstanding: how far a standby is behind, in bytes and in time. Bounded: under a long absence
// neighbouring frames are counted together. Not thread-safe; the link's lock protects it.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>

#include "journal/base/units.h"

namespace twinspool {

class Outstanding {
   public:
    using Clock = std::chrono::steady_clock;
    static constexpr std::size_t kMaxEntries = 4096;

    void sealed(Lsn last, std::uint64_t bytes, Clock::time_point now) {
        bytes_ += bytes;
        if (entries_.size() < kMaxEntries)
            entries_.push_back({last, bytes, now});
        else
            entries_.back() = {last, entries_.back().bytes + bytes, entries_.back().since};
    }
    void durable(Lsn lsn) {
        while (!entries_.empty() && entries_.front().last <= lsn) {
            bytes_ -= entries_.front().bytes;
            entries_.pop_front();
        }
    }
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
    [[nodiscard]] double seconds(Clock::time_point now) const {
        if (entries_.empty()) return 0;
        return std::chrono::duration<double>(now - entries_.front().since).count();
    }

   private:
    struct Entry {
        Lsn last;
        std::uint64_t bytes;
        Clock::time_point since;
    };
    std::deque<Entry> entries_;
    std::uint64_t bytes_ = 0;
};

}  // namespace twinspool
