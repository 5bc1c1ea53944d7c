// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/records.h"

#include <optional>
#include <utility>

namespace twinspool {
namespace {

// The one living snapshot of a span; none if there are more.
std::optional<Lsn> only_owner(const SnapshotRecords& records, const Span& span) {
    std::optional<Lsn> owner;
    for (auto it = records.upper_bound(span.after); it != records.end(); ++it) {
        if (!span.holds(it->first)) break;
        if (it->second.snapshot.broken) continue;
        if (owner) return std::nullopt;
        owner = it->first;
    }
    return owner;
}

}  // namespace

Result<SnapshotRecords> read_snapshots(const Database& database) {
    SnapshotRecords found;
    auto range = database.range(Family::kState, "s", "t");
    for (range.first(); range.valid(); range.next()) {
        if (range.key() == kStateKey) continue;
        TS_ASSIGN(auto record, decode_snapshot(range.value()));
        const Lsn number = keys::number_at_end(range.key());
        record.snapshot.number = number;
        found.emplace(number, std::move(record));
    }
    TS_TRY(range.status());
    return found;
}

Result<std::map<std::string, ObjectId>> read_roots(const Database& database) {
    std::map<std::string, ObjectId> found;
    auto range = database.range(Family::kState, "r", "s");
    for (range.first(); range.valid(); range.next()) {
        TS_ASSIGN(found[std::string{range.key().substr(1)}], decode_root(range.value()));
    }
    TS_TRY(range.status());
    return found;
}

Result<std::map<Span, Totals>> read_totals(const Database& database) {
    std::map<Span, Totals> found;
    auto range = database.range(Family::kHistory, "t", "u");
    for (range.first(); range.valid(); range.next()) {
        TS_ASSIGN(found[keys::span_of_totals(range.key())], decode_totals(range.value()));
    }
    TS_TRY(range.status());
    return found;
}

std::vector<Snapshot> listed(const SnapshotRecords& records, const std::map<Span, Totals>& totals) {
    std::map<Lsn, std::uint64_t> used;
    for (const auto& [span, its] : totals)
        if (const auto owner = only_owner(records, span))
            used[*owner] += its.entry_bytes + its.kept_bytes;
    std::vector<Snapshot> found;
    for (const auto& [number, record] : records) {
        if (record.doomed) continue;
        found.push_back(record.snapshot);
        found.back().number = number;
        found.back().used = used[number];
    }
    return found;
}

}  // namespace twinspool
