// SPDX-License-Identifier: Apache-2.0
// Check lists: the extended attributes of a CheckObjectOp and the entries of a CheckEntriesOp, as
// bytes. Names ascend. What is read borrows from the list. Pure functions; any thread.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/format/op.h"

namespace twinspool {

struct CheckedXattr {
    std::string_view name;
    std::string_view value;
};
struct CheckedEntry {
    std::string_view name;
    ObjectId object{};
};

void add_checked_xattr(std::vector<std::byte>& list, const CheckedXattr& xattr);
void add_checked_entry(std::vector<std::byte>& list, const CheckedEntry& entry);

// EBADMSG: no such list, or names that are out of order.
Result<std::vector<CheckedXattr>> checked_xattrs(Bytes list);
Result<std::vector<CheckedEntry>> checked_entries(Bytes list);

}  // namespace twinspool
