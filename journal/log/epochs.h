// SPDX-License-Identifier: Apache-2.0
// Epochs: every reign of a primary that this journal has seen begin, in the order in which they
// began, in the file `epochs` beside the segments, which forget. A reign is in it before its first
// record is durable anywhere: so whoever has a record of a reign that is not in it has another
// history.
//
// What is left of a reign: its records before the first record of every later one. A reign whose
// records were lost with the power stays in the list, with nothing left of it: a standby may have
// some of them. Plain values; one thread at a time for the file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"

namespace twinspool {

// EBADMSG: damaged, with its name. Empty: there is no such file.
Result<std::vector<Epoch>> read_epochs(const std::string& directory);
// Durable when it returns.
Status write_epochs(const std::string& directory, const std::vector<Epoch>& epochs);

// The last record of the reign with this id that is still in our history, where `appended` is the
// newest of all; before its first if none is left. Nothing: that reign is none of ours.
std::optional<Lsn> kept_of(const std::vector<Epoch>& epochs, std::uint64_t id, Lsn appended);

// The reign that this record, which is in our history, belongs to; all zero before the first.
Epoch epoch_of(const std::vector<Epoch>& epochs, Lsn lsn);

}  // namespace twinspool
