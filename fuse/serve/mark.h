// SPDX-License-Identifier: Apache-2.0
// Mark: a snapshot's record, between changes and never within one: the gate is closed over all
// directories at once, the record appended, the gate opened. What was acknowledged before the call
// is below it, what begins after it is above.
//
// Called by threads of commands, not by those that serve the kernel: it waits for credit (before
// the gate), and for who is inside. EAGAIN: not everything has been told to the standbys, and that
// was not allowed for. EBUSY: changes that never end kept the gate from closing. Nothing was
// appended then.
#pragma once

#include <string_view>

#include "fuse/objects/volume.h"

namespace twinspool {

enum class Incomplete : std::uint8_t { kRefused, kAllowed };

struct MarkWish {
    std::string_view name;
    Incomplete incomplete = Incomplete::kRefused;
};

struct Marked {
    Lsn lsn;
    WallTime time{};
    Nanoseconds pause{};      // the longest that changes were held up
    bool incomplete = false;  // a walk was going on: the record says so
};

Result<Marked> append_mark(Volume& volume, const MarkWish& wish);

}  // namespace twinspool
