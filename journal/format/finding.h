// SPDX-License-Identifier: Apache-2.0
// Finding: what a standby says about a check (CheckContentOp and its like) that did not match, or
// that could not be made. Plain values; any thread.
#pragma once

#include <cstdint>
#include <string>

#include "journal/base/units.h"

namespace twinspool {

enum class FindingKind : std::uint8_t {
    kChangedMeanwhile = 0,  // not compared: a later record of the same range covers it
    kMissing = 1,           // the object is not there at all
    kContent = 2,           // [offset, offset + length) differs
    kSize = 3,              // offset: the size there; length: the size here, on the standby
    kAttributes = 4,        // type, mode, owner, group, mtime, device or target
    kXattrs = 5,            // `name`: one of those that differ
    kEntryMissing = 6,      // `object` (a directory) lacks `name`
    kEntryExtra = 7,        // it has `name`, which should not be there
    kEntryOther = 8,        // `name` leads to another object
    kUnreadable = 9,        // offset: the errno
};

struct Finding {
    Lsn check;          // of the record that was not met
    ObjectId object{};  // the file, or the directory whose entry it is
    FindingKind kind{};
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::string name;  // of an entry or an extended attribute
    friend bool operator==(const Finding&, const Finding&) = default;
};

}  // namespace twinspool
