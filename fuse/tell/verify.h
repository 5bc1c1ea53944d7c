// SPDX-License-Identifier: Apache-2.0
// What is asked of a verify, and what it has found. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "journal/base/units.h"
#include "journal/format/finding.h"

namespace twinspool {

struct VerifyOptions {
    std::string path;        // as programs see it, with everything below it; empty: the volume
    bool repair = false;     // the primary's version of what differs is journalled
    std::uint64_t rate = 0;  // bytes read a second; 0: as the volume is configured
};

struct Difference {
    FindingKind kind{};
    std::string path;          // of the object, or of the entry
    std::uint64_t offset = 0;  // as in a Finding
    std::uint64_t length = 0;
    std::string xattr;          // kXattrs: the name of one that differs
    std::uint32_t standby = 0;  // the first that said so
    bool repaired = false;
};

struct VerifyReport {
    std::uint64_t number = 0;  // counts the verifies of this reign; 0: there was none
    bool running = false;
    bool repair = false;
    std::string path;
    WallTime began{};
    double seconds = 0;
    Lsn position;  // the last check
    std::uint64_t objects = 0;
    std::uint64_t bytes = 0;         // of contents
    std::uint64_t differences = 0;   // all that were found
    std::uint64_t repaired = 0;      // of them
    std::vector<Difference> listed;  // all but those of the moment in which there were too many
    std::uint64_t failed = 0;        // objects that could not be compared
    std::string failure;             // why it did not come to its end; empty: it did
};

// With so many differences a verify ends: the standby must be filled again.
inline constexpr std::size_t kMostListed = 100'000;

}  // namespace twinspool
