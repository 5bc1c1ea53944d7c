// SPDX-License-Identifier: Apache-2.0
// Snapshot: what a standby knows of a mark; and its hold, a lock on STORE/holds/<number>: shared by
// who reads the snapshot, exclusive for who destroys it. The kernel lets go of it when the holder
// dies. Values, and free functions for any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "journal/fd.h"
#include "journal/result.h"
#include "journal/units.h"

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

enum class HoldKind : std::uint8_t { kRead, kDestroy };

// Where the lock of a snapshot is. Who has destroyed one removes the file, holding the lock.
std::string hold_path(const std::string& store, Lsn number);

// The lock, as long as the descriptor lives; nothing if others hold it.
Result<std::optional<Fd>> hold_snapshot(const std::string& store, Lsn number, HoldKind kind);

}  // namespace twinspool
