// SPDX-License-Identifier: Apache-2.0
// Clock: the wall clock for times that are recorded, the steady clock for time-outs (std::chrono).
#pragma once

#include "journal/base/units.h"

namespace twinspool {

WallTime wall_time();
// The clock that the kernel stamps files with: it ticks with the timer and lags behind wall_time().
WallTime file_clock();
// Waits (at most a tick or two) until file_clock() has ticked; returns the new time. Every change
// made before the call has a smaller ctime, every later one has one at least as large.
WallTime next_file_clock_tick();

}  // namespace twinspool
