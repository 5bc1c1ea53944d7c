// SPDX-License-Identifier: Apache-2.0
// Hold: a lock on a snapshot, STORE/holds/<number>: shared by who reads it, exclusive for who
// destroys it. The kernel lets go of it when the holder dies. Free functions for any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "journal/base/fd.h"
#include "journal/base/result.h"
#include "journal/base/units.h"

namespace twinspool {

enum class HoldKind : std::uint8_t { kRead, kDestroy };

// Where the lock of a snapshot is. Who has destroyed one removes the file, holding the lock.
std::string hold_path(const std::string& store, Lsn number);

// The lock, as long as the descriptor lives; nothing if others hold it.
Result<std::optional<Fd>> hold_snapshot(const std::string& store, Lsn number, HoldKind kind);

}  // namespace twinspool
