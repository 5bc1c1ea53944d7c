// SPDX-License-Identifier: Apache-2.0
// SentChains: the chain at the end of each frame that was sent and is not acknowledged yet, to be
// held against what the standby says it has there. Bounded: of very many the oldest are forgotten,
// and not compared. Not thread-safe; the link's lock protects it.
#pragma once

#include <cstddef>
#include <deque>

#include "journal/base/units.h"

namespace twinspool {

class SentChains {
   public:
    static constexpr std::size_t kMaxEntries = 16384;

    void clear() { entries_.clear(); }
    void sent(Position end) {
        if (entries_.size() == kMaxEntries) entries_.pop_front();
        entries_.push_back(end);
    }
    // Whether what is acknowledged may be what was sent. No: its bytes differ.
    [[nodiscard]] bool acknowledged(Position end) {
        while (!entries_.empty() && entries_.front().lsn < end.lsn) entries_.pop_front();
        // It stays: a later answer may say the same again.
        if (entries_.empty()) return false;  // beyond all that was sent
        return entries_.front().lsn != end.lsn || entries_.front().chain == end.chain;
    }

   private:
    std::deque<Position> entries_;
};

}  // namespace twinspool
