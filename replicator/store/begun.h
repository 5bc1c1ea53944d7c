// SPDX-License-Identifier: Apache-2.0
// Begun: where the journal of a standby's store begins anew, in the file `begun` beside its
// segments. It is written first of all, and counts from the moment at which the catalogue stands at
// `told_from` - 1 or later: so a store whose process died anywhere in between is either the old
// one, with a file that does not count, or the new one, whose older segments are stale. It is
// forgotten when the first frame is there: the segments speak for themselves then, and the first
// may be recycled.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/log/recovery.h"

namespace twinspool {

struct Begun {
    Position before;        // the first frame continues this
    SegmentNumber segment;  // and stands in this segment, at its start
    Lsn told_from;          // records before it are of an older telling, and not applied
    Epoch epoch;            // of the record at `before`: number and id
};

Result<std::optional<Begun>> read_begun(const std::string& directory);
Status write_begun(const std::string& directory, const Begun& begun);
Status forget_begun(const std::string& directory);

// The end of the journal in this folder, of a store whose catalogue stands at `applied`. Removes
// what is stale. EBADMSG: damage, with file and offset.
Result<JournalEnd> standby_end(const std::string& directory, std::uint64_t volume, Lsn applied);

}  // namespace twinspool
