// SPDX-License-Identifier: Apache-2.0
// How the tests of costs count: every call of malloc (operator new is one), on the thread that
// makes it. The replacement of malloc is in costs_test.cc.
#pragma once

#include <atomic>
#include <cstdint>

namespace twinspool::test {

// Of this thread, and of the process, so far.
extern thread_local constinit std::uint64_t allocations;
extern std::atomic<std::uint64_t> allocations_everywhere;

// So often each operation is measured, after a few that may fill caches.
inline constexpr int kTimes = 200;
inline constexpr int kWarmUp = 8;

}  // namespace twinspool::test
