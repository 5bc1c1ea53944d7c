// SPDX-License-Identifier: Apache-2.0
// Progress: a counter in STORE/progress, mapped by the standby process and by those who read its
// snapshots. It rises after history was written and before the tree is changed. So who has read
// from the tree, and finds that the counter has not moved since the catalogue was looked at last,
// knows that what was read is what the catalogue thinks of it. One owner; any number of readers.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "journal/fd.h"
#include "journal/result.h"

namespace twinspool {

class Progress {
   public:
    enum class Role : std::uint8_t { kOwner, kReader };
    static Result<Progress> open(const std::string& store, Role role);
    Progress(Progress&& other) noexcept;
    Progress& operator=(Progress&&) = delete;
    ~Progress();

    void rise() { counter_->fetch_add(1, std::memory_order_seq_cst); }
    [[nodiscard]] std::uint64_t now() const { return counter_->load(std::memory_order_seq_cst); }

   private:
    explicit Progress(std::atomic<std::uint64_t>* counter) : counter_(counter) {}
    std::atomic<std::uint64_t>* counter_;
};

}  // namespace twinspool
