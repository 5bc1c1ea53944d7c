// SPDX-License-Identifier: Apache-2.0
#include "fuse/serve/mark.h"

#include <algorithm>
#include <thread>

#include "journal/base/clock.h"
#include "journal/base/fault.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// Long against what a change takes, short against what somebody notices. If slow changes are inside
// again and again, each attempt may hold the others up for longer, but never for more than a tenth
// of the time.
constexpr Nanoseconds kFirstPatience = 1ms;
constexpr Nanoseconds kGiveUpAfter = 10s;
constexpr int kShare = 10;

// The gate is closed.
Result<Marked> append_closed(Volume& volume, Turn& turn, const MarkWish& wish) {
    if (volume.journal.failure() != 0) return make_error(EROFS, "write the journal");
    const bool incomplete = volume.walking;
    if (incomplete && wish.incomplete == Incomplete::kRefused)
        return make_error(EAGAIN, "mark what has not been told to the standby yet");
    Marked marked{.time = wall_time(), .incomplete = incomplete};
    marked.lsn = turn.append(MarkOp{.name = wish.name,
                                    .time = marked.time,
                                    .incomplete = static_cast<std::uint8_t>(incomplete)});
    TS_FAULT(mark_appended);
    return marked;
}

}  // namespace

Result<Marked> append_mark(Volume& volume, const MarkWish& wish) {
    Turn turn{volume.journal, Turn::Waiting::kAllowed};
    if (!turn.wait_for_credit(max_encoded_size(wish.name.size())))
        return make_error(EROFS, "write the journal");
    const auto begin = Clock::now();
    Nanoseconds pause{};
    for (;;) {
        const Nanoseconds passed = Clock::now() - begin;
        const Nanoseconds patience = std::max(kFirstPatience, passed / kShare);
        const Gate::Attempt attempt = volume.gate.try_close(patience);
        if (attempt.closed) {
            auto marked = append_closed(volume, turn, wish);
            pause = std::max(pause, volume.gate.open());
            if (marked.ok()) marked->pause = pause;
            return marked;
        }
        pause = std::max(pause, attempt.kept_out);
        if (passed >= kGiveUpAfter)
            return make_error(EBUSY,
                              "stop all changes for a moment: some have been going on for "
                              "seconds");
        std::this_thread::sleep_for(patience * (kShare - 1));
    }
}

}  // namespace twinspool
