// SPDX-License-Identifier: Apache-2.0
// HashWalk: how a walk for a resync tells what is in files. The size, then hashes of everything;
// what a standby finds different is logged as it is then. A file is complete when everything that
// was asked of it has been answered and told.
//
// Invariants: what is open is bounded by kMostOpen and kMostOpenBytes. A file whose session was
// lost in the middle is asked about again; one that was told anew meanwhile is another's business.
// Threads: the walker's only, but for book().
#pragma once

#include <functional>
#include <unordered_map>

#include "fuse/objects/volume.h"
#include "fuse/tell/checkbook.h"
#include "fuse/tell/checks.h"

namespace twinspool {

struct ComparisonHooks {
    std::function<bool()> interrupted;
    // Work of so many bytes was done: keeps to the rate, and close to the standbys.
    std::function<void(Lsn, std::uint64_t)> throttle;
    std::function<void(Lsn)> hurry;
    std::function<void(std::uint64_t)> compared;  // bytes of content
    std::function<void(std::uint64_t)> differed;
    std::function<void(int)> failed;  // a file; errno
};

class HashWalk {
   public:
    static constexpr std::size_t kMostOpen = 32'768;
    static constexpr std::uint64_t kMostOpenBytes = std::uint64_t{1} << 30;
    HashWalk(Volume& volume, ComparisonHooks hooks) : volume_(volume), hooks_(std::move(hooks)) {}

    void begin(std::uint64_t standbys);
    // Waits while too much is open.
    Status compare(InodeRef file);
    // Until nothing is open, or interrupted.
    void settle();
    [[nodiscard]] Checkbook& book() { return book_; }

   private:
    struct Item {
        InodeRef file;
        std::uint32_t telling = 0;
        std::size_t open = 0;  // checks
        bool all_asked = false;
        bool failed = false;
    };
    using Items = std::unordered_map<std::uint64_t, Item>;

    void wait_for_room();
    void answer_some(std::chrono::milliseconds patience);
    void handle(const CheckAnswer& answer);
    Status make_good(Item& item, const CheckAnswer& answer);
    Status ask(Item& item, int fd, Asked asked, ContentStep& step);
    Status log_range(Item& item, int fd, std::uint64_t offset, std::uint64_t end);
    void finish(Items::iterator at);
    void fail(Item& item, int error);

    Volume& volume_;
    const ComparisonHooks hooks_;
    Checkbook book_;
    Items items_;                                               // by their number
    std::unordered_map<std::uint64_t, std::uint64_t> numbers_;  // of an object's newest item
    std::uint64_t last_number_ = 0;
};

}  // namespace twinspool
