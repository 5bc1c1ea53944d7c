// SPDX-License-Identifier: Apache-2.0
#include "replicator/standby/applier.h"

#include <sched.h>
#include <spdlog/spdlog.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "journal/base/fault.h"
#include "journal/delta/delta.h"
#include "replicator/standby/checker.h"

namespace twinspool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kCatalogueFolder = "catalogue";
// The applier takes at most a fifth of the time unless somebody waits, and never rests longer. Its
// syncs stand in the way of commits on the same disk, and what lives shorter than a rest costs
// nothing.
constexpr int kRestFactor = 4;
constexpr Nanoseconds kLongestRest = std::chrono::seconds{3};
constexpr Nanoseconds kRetryDelay = std::chrono::seconds{2};
// A snapshot that is to be destroyed, and is being read.
constexpr Nanoseconds kLookForReaders = std::chrono::seconds{1};
// History may not take the replica's last space: below this much (or a twentieth) it has to go.
constexpr std::uint64_t kSpareBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kSpareShare = 20;
constexpr std::size_t kFindingsAtOnce = 1024;

// Nobody waits for the replica tree as a rule: the journals and the services go first.
void lower_priority() {
    constexpr int kWhoProcess = 1;        // IOPRIO_WHO_PROCESS; 0: this thread
    constexpr int kBestEffort = 2 << 13;  // IOPRIO_CLASS_BE
    constexpr int kLowest = 7;
    const sched_param parameters{};
    (void)::sched_setscheduler(0, SCHED_BATCH, &parameters);
    (void)::syscall(SYS_ioprio_set, kWhoProcess, 0, kBestEffort | kLowest);
}

Beginning telling_of(const ResyncStart& start) {
    return {.epoch_id = start.epoch_id,
            .epoch_number = start.epoch_number,
            .generation = start.generation};
}

// The space changes with almost all that is applied.
bool same_but_for_space(const Snapshot& one, Snapshot other) {
    other.used = one.used;
    return one == other;
}

}  // namespace

Status reset_store(const std::string& store) {
    return reset_tree(store, {kCatalogueFolder, "history", "kept", "holds", "ballast"});
}

Applier::Applier(ApplierOptions options) : options_(std::move(options)), rest_(options_.delay) {}

Applier::~Applier() {
    {
        const std::lock_guard lock{mutex_};
        stop_ = Stop::kNow;
    }
    stop_thread();
}

Result<std::unique_ptr<Applier>> Applier::open(ApplierOptions options) {
    std::unique_ptr<Applier> applier{new Applier{std::move(options)}};
    const auto& store = applier->options_.store;
    TS_ASSIGN(const bool interrupted, reset_interrupted(store));
    if (interrupted) TS_TRY(reset_store(store));
    History::drop_ballast_if_full(store);
    TS_ASSIGN(applier->tree_, Tree::open(store, {.on_step = applier->options_.on_step}));
    TS_ASSIGN(auto progress, Progress::open(store, Progress::Role::kOwner));
    applier->progress_.emplace(std::move(progress));
    TS_ASSIGN(applier->database_, Database::open(store, applier->progress_->history()));
    TS_ASSIGN(applier->catalogue_, Catalogue::open(*applier->database_, applier->options_.volume));
    Catalogue& catalogue = *applier->catalogue_;
    if (catalogue.fresh()) {
        std::error_code code;
        if (!std::filesystem::is_empty(store + "/tree", code) || code)
            return make_error(ENOTEMPTY, "use the store {}: it has a tree and no catalogue of it",
                              store);
        TS_TRY(catalogue.commit({.applied = {}, .seeded = {}, .time = {}}));
    }
    TS_ASSIGN(applier->history_, History::open({.store = store,
                                                .progress = *applier->progress_,
                                                .database = *applier->database_,
                                                .catalogue = catalogue,
                                                .tree = *applier->tree_}));
    applier->publish_snapshots();
    applier->publish_state();
    applier->applied_ = catalogue.applied().lsn.value;
    applier->tried_ = catalogue.applied().lsn;
    applier->seeded_ = catalogue.seeded();
    return applier;
}

Status Applier::abandon_snapshots() {
    const std::lock_guard work{work_mutex_};
    return history_->abandon();
}

Status Applier::begin_at(Position position) {
    const std::lock_guard work{work_mutex_};
    return stand_at(position);
}

Status Applier::begin_seed(const ResyncStart& start) {
    const std::lock_guard work{work_mutex_};
    catalogue_->begin_telling(telling_of(start));
    return stand_at(start.position);
}

// After an apply that was interrupted the tree is that of no position: first it has to be made
// good.
Status Applier::begin_resync(const ResyncStart& start) {
    auto before = Catalogue::Before::kKept;
    if (begun() > applied()) {
        if (const Status status = run_until(begun()); !status.ok()) {
            spdlog::error("standby {}: what was there before the resync is not kept: could not {}",
                          options_.store, status.error().text());
            before = Catalogue::Before::kLost;
        }
        // It ends within a frame, which cannot be read to there.
        if (begun() > applied()) before = Catalogue::Before::kLost;
    }
    const std::lock_guard work{work_mutex_};
    if (start.position.lsn < applied())
        return make_error(EINVAL, "resync the store from record {} on: it has applied record {}",
                          start.position.lsn.value + 1, applied().value);
    catalogue_->begin_resync(telling_of(start), before);
    TS_TRY(stand_at(start.position));
    TS_FAULT(resync_begun);
    spdlog::info("standby {}: resyncing from record {} on, generation {}", options_.store,
                 start.position.lsn.value + 1, start.generation);
    return {};
}

// With what the catalogue has been told.
Status Applier::stand_at(Position position) {
    if (const auto status = catalogue_->commit({.applied = position, .seeded = {}, .time = {}});
        !status.ok()) {
        catalogue_->drop();
        return status;
    }
    cursor_.reset();
    applied_ = position.lsn.value;
    publish_state();
    publish_snapshots();
    const std::lock_guard lock{mutex_};
    tried_ = position.lsn;
    error_.reset();
    return {};
}

StoreState Applier::state() const {
    const std::lock_guard lock{mutex_};
    return state_;
}

void Applier::publish_state() {
    const Beginning& telling = catalogue_->telling();
    const std::lock_guard lock{mutex_};
    state_ = {.applied = catalogue_->applied(),
              .seeded = catalogue_->seeded(),
              .told = telling.generation,
              .resyncing = telling.resyncing != 0,
              .epoch_number = telling.epoch_number,
              .epoch_id = telling.epoch_id,
              .before_resync = Lsn{telling.before_resync}};
}

void Applier::start() {
    TS_ASSERT(!thread_.joinable());
    stop_ = Stop::kNo;
    thread_ = std::thread{[this] { run(); }};
}

void Applier::committed(Lsn limit) {
    const std::lock_guard lock{mutex_};
    if (limit <= limit_) return;
    // Its thread sleeps through most of these: it is resting, or knows that there is something to
    // do.
    const bool idle = !something_to_do();
    limit_ = limit;
    if (idle) wake_.notify_one();
}

void Applier::hurry(Lsn wanted) {
    const std::lock_guard lock{mutex_};
    hurried_ = std::max(hurried_, wanted);
    ++hurries_;
    wake_.notify_one();
}

void Applier::finish() {
    {
        const std::lock_guard lock{mutex_};
        stop_ = Stop::kAfterApplying;
    }
    stop_thread();
}

void Applier::stop_thread() {
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
}

Status Applier::error() const {
    const std::lock_guard lock{mutex_};
    return error_ ? Status{*error_} : Status{};
}

bool Applier::something_to_do() const { return limit_ > tried_; }

std::vector<Snapshot> Applier::snapshots() const {
    const std::lock_guard lock{mutex_};
    return snapshots_;
}

std::uint64_t Applier::snapshots_version() const {
    const std::lock_guard lock{mutex_};
    return snapshots_version_;
}

void Applier::publish_snapshots() {
    auto now = history_->snapshots();
    const std::lock_guard lock{mutex_};
    const bool changed = !std::equal(now.begin(), now.end(), snapshots_.begin(), snapshots_.end(),
                                     same_but_for_space);
    snapshots_ = std::move(now);
    if (changed) ++snapshots_version_;
}

void Applier::run() {
    lower_priority();
    std::unique_lock lock{mutex_};
    for (;;) {
        idle(lock);
        if (stop_ == Stop::kNo)
            (void)wake_.wait_for(lock, rest_,
                                 [&] { return stop_ != Stop::kNo || hurried_ > applied(); });
        if (stop_ == Stop::kNow) return;
        const std::uint64_t hurries = hurries_;
        if (something_to_do()) attempt(lock);
        if (stop_ != Stop::kNo) return;
        if (error_)
            (void)wake_.wait_for(lock, kRetryDelay,
                                 [&] { return stop_ != Stop::kNo || hurries_ != hurries; });
        // Under a load that never ends, too.
        lock.unlock();
        (void)tidy_up_some();
        lock.lock();
    }
}

void Applier::idle(std::unique_lock<std::mutex>& lock) {
    const auto busy = [&] { return stop_ != Stop::kNo || something_to_do(); };
    while (!busy()) {
        if (!untidy_) {
            wake_.wait(lock, busy);
            return;
        }
        lock.unlock();
        const bool more = tidy_up_some();
        lock.lock();
        if (more) continue;
        if (history_->waits_for_readers())
            (void)wake_.wait_for(lock, kLookForReaders, busy);
        else
            untidy_ = false;
    }
}

bool Applier::tidy_up_some() {
    const std::lock_guard work{work_mutex_};
    const auto more = history_->tidy_up();
    if (!more.ok()) {
        catalogue_->drop();
        history_->dropped();
        spdlog::warn("standby {}: could not {}", options_.store, more.error().text());
        return false;
    }
    const std::uint64_t version = snapshots_version();
    publish_snapshots();
    if (options_.on_applied && snapshots_version() != version) options_.on_applied(applied());
    return *more;
}

Status Applier::tidy_up() {
    const std::lock_guard work{work_mutex_};
    for (bool more = true; more;) {
        TS_ASSIGN(more, history_->tidy_up());
    }
    publish_snapshots();
    return {};
}

// Once along all that is committed now.
void Applier::attempt(std::unique_lock<std::mutex>& lock) {
    const Lsn limit = limit_;
    const std::string trouble = error_ ? error_->text() : std::string{};
    lock.unlock();
    const auto began = Clock::now();
    const Status status = run_until(limit);
    const Nanoseconds took = Clock::now() - began;
    lock.lock();
    rest_ = std::max(options_.delay, std::min(kRestFactor * took, kLongestRest));
    if ((status.ok() ? std::string{} : status.error().text()) == trouble) return;
    if (status.ok())
        spdlog::info("applying to {} goes on", options_.store);
    else
        spdlog::error("applying to {} has stopped at record {}: could not {}", options_.store,
                      applied().value, status.error().text());
    lock.unlock();
    if (options_.on_applied) options_.on_applied(applied());
    lock.lock();
}

Status Applier::run_until(Lsn limit) {
    Result<bool> more{true};
    while (more.ok() && *more) {
        more = apply_batch(limit);
        if (more.ok() && *more && options_.on_applied) options_.on_applied(applied());
        const std::lock_guard lock{mutex_};
        if (more.ok() && stop_ == Stop::kNow) break;
    }
    const std::lock_guard lock{mutex_};
    if (!more.ok()) {
        error_ = more.error();
        return more.error();
    }
    error_.reset();
    tried_ = std::max(tried_, limit);
    return {};
}

// False: no whole frame is left up to `limit`.
Result<bool> Applier::apply_batch(Lsn limit) {
    const std::lock_guard work{work_mutex_};
    if (limit <= applied()) return false;
    Delta delta;
    RangeEnd end{.position = catalogue_->applied()};
    Status status = read_batch(delta, end, limit);
    if (status.ok() && delta.empty()) return false;
    if (status.ok()) status = keep_and_apply(delta, end);
    if (!status.ok()) {
        catalogue_->drop();
        history_->dropped();
        cursor_.reset();
        return status.error();
    }
    TS_FAULT(applier_committed);
    make_checks(delta);
    seeded_ = catalogue_->seeded();
    applied_ = end.position.lsn.value;
    publish_state();
    publish_snapshots();
    return true;
}

// The position is not announced before all of it has been said: so whoever sees the position knows
// all the findings up to there. Who stops does not wait for the rest: that has not been compared.
void Applier::make_checks(const Delta& delta) {
    if (delta.checks().empty() || !options_.on_findings) return;
    Checker checker{*tree_, *catalogue_};
    bool skip = false;
    for (const PendingCheck& check : delta.checks()) {
        skip = skip || stops();
        checker.check(check, skip ? Checker::How::kSkip : Checker::How::kCompare);
        if (checker.found() >= kFindingsAtOnce) options_.on_findings(checker.take());
    }
    if (checker.found() != 0) options_.on_findings(checker.take());
}

bool Applier::stops() const {
    const std::lock_guard lock{mutex_};
    return stop_ != Stop::kNo;
}

Status Applier::read_batch(Delta& delta, RangeEnd& range, Lsn limit) {
    Position& end = range.position;
    const Lsn from = end.lsn;
    if (!cursor_) {
        TS_ASSIGN(cursor_, Cursor::open(options_.store + "/journal", options_.volume, from + 1));
    }
    while (delta.bytes() < options_.batch_bytes && delta.records() < options_.batch_records &&
           delta.check_bytes() < options_.batch_check_bytes) {
        TS_ASSIGN(auto frame, cursor_->next(limit));
        if (!frame) break;
        if (frame->last() <= end.lsn) continue;
        const bool adjacent = frame->first() == end.lsn + 1;
        if (frame->first() > end.lsn + 1 ||
            (adjacent && end.chain != Chain{} && frame->header.previous != raw(end.chain)))
            return make_error(EUCLEAN,
                              "apply record {}: it does not continue the applied record {}",
                              frame->first().value, end.lsn.value);
        end = {frame->last(), Chain{frame->header.checksum}};
        range.time = frame->header.time;
        TS_TRY(delta.add(std::move(*frame), from));
        if (!delta.ends()) continue;
        // The rest of the frame is the next range's.
        if (delta.last() != end.lsn) {
            end = {delta.last(), Chain{}};
            cursor_.reset();
        }
        break;
    }
    return {};
}

// A full disk costs the snapshots their history, not the replica its next change.
Status Applier::keep_and_apply(const Delta& delta, const RangeEnd& end) {
    // Giving up has come half-way, or has to begin.
    if (!database_->has_history() || disk_is_nearly_full(delta.bytes())) TS_TRY(make_room());
    const Status status = apply_delta(delta, end);
    if (status.ok() || status.error().code != ENOSPC || catalogue_->newest_kept() == Lsn{})
        return status;
    catalogue_->drop();
    history_->dropped();
    TS_TRY(make_room());
    return apply_delta(delta, end);
}

// `coming`: what is about to be written to the tree; as much again may have to be kept, twice,
// until the database has it in its files, and the journal needs room beside both.
bool Applier::disk_is_nearly_full(std::uint64_t coming) const {
    struct statvfs space {};
    if (catalogue_->newest_kept() == Lsn{} || ::statvfs(options_.store.c_str(), &space) != 0)
        return false;
    const std::uint64_t spare =
        std::min(kSpareBytes, space.f_blocks * space.f_frsize / kSpareShare);
    return space.f_bavail * space.f_frsize < spare + 3 * coming;
}

// First what retention allows, then all.
Status Applier::make_room() {
    const auto going =
        options_.superfluous ? options_.superfluous(history_->snapshots()) : std::vector<Lsn>{};
    for (const Lsn number : going) catalogue_->doom(number);
    Result<bool> more{!going.empty()};
    while (more.ok() && *more) more = history_->tidy_up();
    // If it fails there is no room for that either: the check says so.
    if (more.ok() && !going.empty()) (void)database_->compact_history();
    if (more.ok() && !going.empty() && !disk_is_nearly_full(0)) return {};
    catalogue_->drop();
    history_->dropped();
    return history_->give_up();
}

Status Applier::apply_delta(const Delta& delta, const RangeEnd& end) {
    const auto began = Clock::now();
    TS_TRY(catalogue_->begin(end.position.lsn));
    TS_TRY(history_->keep(delta));
    // A new seed into a tree that has had one finds every object there, unless records were missed.
    const bool resyncing = catalogue_->telling().resyncing != 0;
    const bool whole = catalogue_->seeded() != 0 && !resyncing;
    const ApplyOptions how{
        .tree = whole ? ApplyOptions::Tree::kComplete : ApplyOptions::Tree::kBeingSeeded,
        .keeper = history_.get()};
    TS_ASSIGN(const auto counters, apply(delta, *tree_, *catalogue_, how));
    if (!delta.objects().empty()) TS_TRY(tree_->sync());
    TS_FAULT(applier_synced);
    catalogue_->take(delta);
    TS_TRY(catalogue_->commit({.applied = end.position, .seeded = delta.seeded(), .time = end.time},
                              history_->totals_to_commit()));
    history_->committed();
    const bool resynced = resyncing && catalogue_->telling().resyncing == 0;
    if (resynced) spdlog::info("standby {}: the resync is complete", options_.store);
    if (!delta.unmarked().empty() || resynced) {
        const std::lock_guard lock{mutex_};
        untidy_ = true;
    }
    spdlog::debug(
        "applied {} records up to {} in {} us: {} made, {} placed, {} removed, {} parked, {} "
        "written, "
        "{} made and gone",
        delta.records(), end.position.lsn.value,
        std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began).count(),
        counters.made, counters.placed, counters.removed, counters.parked, counters.written,
        counters.elided);
    return {};
}

}  // namespace twinspool
