// SPDX-License-Identifier: Apache-2.0
// Checkbook: the checks that were logged and not answered yet. A check is answered when every
// standby that it is for has applied past it within the session in which it was logged; what they
// have found different has been heard by then, because findings go before the ack. When a session
// of one of them begins, all that is open is lost: what was said of it may never arrive.
//
// Why the standby's bytes are right in the end, whatever is written meanwhile: a check is logged
// under its object's lock, so it says what the object is after all records before it and before all
// after it. A byte that no later record covers was compared at the check's position; if it
// differed, a record with the byte as it was then, under the lock again, follows. A byte that a
// later record covers is decided by the last such record, whether that is a program's or a repair.
// A later record in the range that the standby applies at once makes it say "changed meanwhile"
// instead of comparing what it cannot compare any more; the check is then made again, ending its
// range.
//
// Threads: one logs and takes answers; the links' threads call the rest. Lock: `mutex_`, a leaf but
// for the journal's; taken with an object's lock held.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "fuse/objects/turn.h"
#include "journal/base/units.h"
#include "journal/format/finding.h"

namespace twinspool {

inline constexpr std::uint32_t kMostStandbys = 64;

enum class Aspect : std::uint8_t { kObject, kContent, kEntries };

// What was asked, so that it can be asked again.
struct Asked {
    std::uint64_t item = 0;  // the asker's own number of the object
    Aspect aspect{};
    std::uint8_t attempt = 0;  // from the second on it is exact
    std::uint64_t offset = 0;  // kContent
    std::uint64_t length = 0;
    std::uint64_t bytes = 0;  // of content, that were read for it
    std::string after;        // kEntries
    std::string upto;
    [[nodiscard]] std::uint8_t exact() const { return attempt > 0 ? 1 : 0; }
};

struct Heard {
    std::uint32_t standby = 0;
    Finding finding;
};

struct CheckAnswer {
    Asked asked;
    bool lost = false;  // nothing is known
    std::vector<Heard> findings;
};

class Checkbook {
   public:
    // Forgets everything that is open; from now on these standbys (bits) must answer.
    void begin(std::uint64_t standbys);
    [[nodiscard]] std::uint64_t standbys() const;

    // Appends the check and opens it. The turn has the credit.
    template <typename T>
    Lsn log(Turn& turn, const T& check, Asked asked) {
        const std::lock_guard lock{mutex_};
        last_ = turn.append(check);
        open_bytes_ += asked.bytes;
        open_.push_back({.lsn = last_, .asked = std::move(asked), .findings = {}});
        close_answered();
        return last_;
    }

    // All answers there are, in the order in which the checks were logged. Waits for the first.
    std::vector<CheckAnswer> take(std::chrono::milliseconds patience);
    [[nodiscard]] std::size_t open_checks() const;
    [[nodiscard]] std::uint64_t open_bytes() const;
    [[nodiscard]] bool empty() const;  // nothing open, nothing to take
    [[nodiscard]] Lsn last() const;    // check

    void session_began(std::uint32_t standby);
    void heard_findings(std::uint32_t standby, const std::vector<Finding>& findings);
    void heard_applied(std::uint32_t standby, Lsn lsn);

   private:
    struct Check {
        Lsn lsn;
        Asked asked;
        std::vector<Heard> findings;
    };
    void close_front(bool lost);
    void close_answered();

    mutable std::mutex mutex_;
    std::condition_variable answered_;
    std::uint64_t standbys_ = 0;
    Lsn applied_[kMostStandbys]{};  // in this session
    std::deque<Check> open_;        // ascending
    std::uint64_t open_bytes_ = 0;
    std::vector<CheckAnswer> answers_;
    Lsn last_;
};

}  // namespace twinspool
