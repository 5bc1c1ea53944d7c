// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/catalogue.h"

#include <cstring>
#include <utility>

#include "journal/base/clock.h"

namespace twinspool {
namespace {

constexpr std::uint32_t kCatalogueVersion = 3;

}  // namespace

Result<std::unique_ptr<Catalogue>> Catalogue::open(Database& database, std::uint64_t volume) {
    std::unique_ptr<Catalogue> catalogue{new Catalogue{database}};
    TS_TRY(catalogue->load(volume));
    TS_TRY(catalogue->load_lists());
    return catalogue;
}

Status Catalogue::load(std::uint64_t volume) {
    TS_ASSIGN(const auto state, database_.get(Family::kState, kStateKey));
    if (state) {
        TS_ASSIGN(state_, decode_state(*state));
        if (state_.version > kCatalogueVersion)
            return make_error(EINVAL, "use the catalogue, which has version {}, not {}",
                              state_.version, kCatalogueVersion);
        if (state_.volume != volume)
            return make_error(EINVAL, "use the catalogue, which is of another volume");
        fresh_ = false;
    }
    TS_ASSIGN(const auto begun, database_.get(Family::kState, kBegunKey));
    if (begun && begun->size() != sizeof begun_.value)
        return make_error(EBADMSG, "read the catalogue: where an apply was to end");
    if (begun) std::memcpy(&begun_.value, begun->data(), sizeof begun_.value);
    state_.volume = volume;
    state_.version = kCatalogueVersion;
    newest_mark_ = Lsn{state_.newest_mark};
    return {};
}

Status Catalogue::load_lists() {
    TS_ASSIGN(committed_roots_, read_roots(database_));
    TS_ASSIGN(committed_snapshots_, read_snapshots(database_));
    drop();
    return {};
}

Result<std::optional<IndexEntry>> Catalogue::find(ObjectId object) {
    if (const auto it = changes_.find(object); it != changes_.end()) return it->second;
    TS_ASSIGN(const auto text, database_.get(Family::kState, keys::object(object)));
    if (!text) return std::optional<IndexEntry>{};
    TS_ASSIGN(const IndexEntry entry, decode_index_entry(*text));
    return std::optional{entry};
}

Status Catalogue::put(ObjectId object, const IndexEntry& entry) {
    TS_ASSIGN(const auto known, find(object));
    auto& changed = changes_[object];
    changed = entry;
    if (!known) changed->born = newest_mark_;
    return {};
}

Status Catalogue::erase(ObjectId object) {
    changes_[object] = std::nullopt;
    return {};
}

Position Catalogue::applied() const { return {Lsn{state_.lsn}, Chain{state_.chain}}; }
std::uint32_t Catalogue::seeded() const { return state_.seeded; }

Status Catalogue::begin(Lsn end) {
    Batch batch;
    batch.put(Family::kState, kBegunKey,
              {reinterpret_cast<const char*>(&end.value), sizeof end.value});
    TS_TRY(database_.write(batch, Database::Durability::kWritten));
    begun_ = end;
    return {};
}

Lsn Catalogue::newest_kept() const {
    for (auto it = snapshots_.rbegin(); it != snapshots_.rend(); ++it)
        if (!it->second.snapshot.broken) return it->first;
    return {};
}

void Catalogue::take(const Delta& delta) {
    if (const ObjectChange* root = delta.find(kRootObject); root != nullptr && root->directory) {
        for (const auto& [path, entry] : root->directory->entries) {
            std::erase_if(roots_, [&](const auto& known) {
                return known.first == path || known.second == entry.object;
            });
            if (entry.object != kNoObject) roots_[std::string{path}] = entry.object;
        }
    }
    for (const Lsn number : delta.unmarked()) doom(number);
    if (telling_.resyncing != 0 && delta.seeded() && *delta.seeded() >= telling_.generation) {
        telling_.resyncing = 0;
        doom(Lsn{std::exchange(telling_.before_resync, 0)});
    }
    if (!delta.mark()) return;
    const Mark& mark = *delta.mark();
    // The primary takes none while it tells; this store would not have all that is in it.
    add_snapshot({.number = mark.number,
                  .name = std::string{mark.name},
                  .time = mark.time,
                  .incomplete = mark.incomplete || telling_.resyncing != 0});
}

void Catalogue::add_snapshot(Snapshot snapshot) {
    newest_mark_ = snapshot.number;
    SnapshotRecord& record = snapshots_[snapshot.number];
    record = {.snapshot = std::move(snapshot)};
    for (const auto& [path, object] : roots_)
        record.roots.push_back({.path = path, .object = object});
}

// Its number is that of a record which this store never gets: behind all that is in it, before all
// that follows.
void Catalogue::begin_resync(const Beginning& telling, Before before) {
    const bool again = telling_.resyncing != 0;
    const std::uint64_t first = telling_.before_resync;
    telling_ = telling;
    telling_.resyncing = 1;
    telling_.before_resync = again ? first : 0;
    if (again || before == Before::kLost || state_.seeded == 0) return;
    const Lsn number = applied().lsn + 1;
    add_snapshot({.number = number,
                  .name = fmt::format("before-resync-{}", state_.lsn),
                  .time = state_.time != 0 ? WallTime{state_.time} : wall_time()});
    telling_.before_resync = number.value;
}

void Catalogue::doom(Lsn number) {
    if (const auto it = snapshots_.find(number); it != snapshots_.end()) it->second.doomed = true;
}

void Catalogue::destroy(Lsn number) {
    snapshots_.erase(number);
    if (telling_.before_resync == number.value) telling_.before_resync = 0;
}

// It holds whether or not what is not committed is dropped: it has been said elsewhere.
void Catalogue::break_upto(Lsn last) {
    broken_upto_ = last;
    for (auto& [number, record] : snapshots_)
        if (number <= last) record.snapshot.broken = true;
}

Status Catalogue::commit(const Commit& commit, Batch more) {
    State state = state_;
    state.lsn = commit.applied.lsn.value;
    state.chain = raw(commit.applied.chain);
    state.seeded = commit.seeded.value_or(state.seeded);
    state.newest_mark = newest_mark_.value;
    state.time = commit.time.value_or(state.time);
    state.telling = telling_;
    put_changes(more);
    more.put(Family::kState, kStateKey, encode(state));
    TS_TRY(database_.write(more, Database::Durability::kSynced));
    state_ = state;
    fresh_ = false;
    changes_.clear();
    committed_roots_ = roots_;
    committed_snapshots_ = snapshots_;
    return {};
}

Status Catalogue::commit_in_place(Batch more) {
    return commit({.applied = applied(), .seeded = {}, .time = {}}, std::move(more));
}

void Catalogue::put_changes(Batch& batch) const {
    for (const auto& [object, entry] : changes_) {
        if (entry)
            batch.put(Family::kState, keys::object(object), encode(*entry));
        else
            batch.erase(Family::kState, keys::object(object));
    }
    if (roots_ != committed_roots_) {
        for (const auto& [path, object] : committed_roots_)
            if (!roots_.contains(path)) batch.erase(Family::kState, keys::root(path));
        for (const auto& [path, object] : roots_)
            batch.put(Family::kState, keys::root(path),
                      {reinterpret_cast<const char*>(&object), sizeof object});
    }
    for (const auto& [number, record] : committed_snapshots_)
        if (!snapshots_.contains(number)) batch.erase(Family::kState, keys::snapshot(number));
    for (const auto& [number, record] : snapshots_) {
        std::string text = encode(record);
        const auto before = committed_snapshots_.find(number);
        if (before == committed_snapshots_.end() || encode(before->second) != text)
            batch.put(Family::kState, keys::snapshot(number), text);
    }
}

void Catalogue::drop() {
    changes_.clear();
    roots_ = committed_roots_;
    snapshots_ = committed_snapshots_;
    newest_mark_ = Lsn{state_.newest_mark};
    telling_ = state_.telling;
    break_upto(broken_upto_);
}

}  // namespace twinspool
