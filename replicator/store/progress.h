// SPDX-License-Identifier: Apache-2.0
// Progress: numbers in STORE/progress, mapped by the standby process and by those who read its
// snapshots. The counter rises after history was written and before the tree is changed. So who has
// read from the tree, and finds that the counter has not moved since the catalogue was looked at
// last, knows that what was read is what the catalogue thinks of it. The other says up to which
// snapshot all are broken: it takes no space to say so, because it is said when the disk is full.
// One owner; any number of readers.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "journal/base/fd.h"
#include "journal/base/result.h"
#include "journal/base/units.h"

namespace twinspool {

class Progress {
   public:
    enum class Role : std::uint8_t { kOwner, kReader };
    static Result<Progress> open(const std::string& store, Role role);
    Progress(Progress&& other) noexcept;
    Progress& operator=(Progress&&) = delete;
    ~Progress();

    void rise() { page_->counter.fetch_add(1, std::memory_order_seq_cst); }
    [[nodiscard]] std::uint64_t now() const {
        return page_->counter.load(std::memory_order_seq_cst);
    }
    // It never falls. Durable when it returns.
    Status break_upto(Lsn number);
    [[nodiscard]] Lsn broken_upto() const {
        return Lsn{page_->broken_upto.load(std::memory_order_seq_cst)};
    }

    // Which history counts: the one before was given up. Durable when it returns.
    Status begin_history(std::uint64_t number);
    [[nodiscard]] std::uint64_t history() const {
        return page_->history.load(std::memory_order_seq_cst);
    }

   private:
    struct Page {
        std::atomic<std::uint64_t> counter;      // 0
        std::atomic<std::uint64_t> broken_upto;  // 8
        std::atomic<std::uint64_t> history;      // 16
    };
    explicit Progress(Page* page) : page_(page) {}
    Page* page_;
};

}  // namespace twinspool
