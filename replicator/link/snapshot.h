// SPDX-License-Identifier: Apache-2.0
// Snapshot: what a standby knows of a mark, and says of it. A value.
#pragma once

#include <cstdint>
#include <string>

#include "journal/base/units.h"

namespace twinspool {

struct Snapshot {
    Lsn number;  // the mark's Lsn: everything before it is in the snapshot
    std::string name;
    WallTime time{};
    bool incomplete = false;  // taken while not everything had been told to the standby
    bool broken = false;      // its history had to be given up: it cannot be read any more
    std::uint64_t used = 0;   // bytes that destroying it would free
    friend bool operator==(const Snapshot&, const Snapshot&) = default;
};

}  // namespace twinspool
