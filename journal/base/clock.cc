// SPDX-License-Identifier: Apache-2.0
#include "journal/base/clock.h"

#include <ctime>
#include <thread>

namespace twinspool {
namespace {
WallTime read_clock(clockid_t clock) {
    timespec ts{};
    ::clock_gettime(clock, &ts);
    return WallTime{std::int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec};
}
}  // namespace

WallTime wall_time() { return read_clock(CLOCK_REALTIME); }
WallTime file_clock() { return read_clock(CLOCK_REALTIME_COARSE); }

WallTime next_file_clock_tick() {
    // From the fine clock: a file system may stamp with it as well.
    const WallTime now = wall_time();
    while (raw(file_clock()) <= raw(now)) std::this_thread::sleep_for(std::chrono::milliseconds{1});
    return file_clock();
}

}  // namespace twinspool
