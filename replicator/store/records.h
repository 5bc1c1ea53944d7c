// SPDX-License-Identifier: Apache-2.0
// Records: the lists in the database that are read whole, by the standby process at its start and
// by those who read its snapshots. Free functions; any thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "replicator/store/database.h"
#include "replicator/store/keys.h"

namespace twinspool {

using SnapshotRecords = std::map<Lsn, SnapshotRecord>;  // by number

// EBADMSG: damage.
Result<SnapshotRecords> read_snapshots(const Database& database);
// Path → object.
Result<std::map<std::string, ObjectId>> read_roots(const Database& database);
Result<std::map<Span, Totals>> read_totals(const Database& database);

// The snapshots that are not doomed, with the space that destroying each would free.
std::vector<Snapshot> listed(const SnapshotRecords& records, const std::map<Span, Totals>& totals);

}  // namespace twinspool
