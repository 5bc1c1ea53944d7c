// SPDX-License-Identifier: Apache-2.0
#include "replicator/applier.h"

#include <sched.h>
#include <spdlog/spdlog.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "journal/delta.h"
#include "journal/fault.h"

namespace twinspool {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kCatalogueFolder = "catalogue";
// The applier takes at most a fifth of the time unless somebody waits, and never rests longer.
constexpr int kRestFactor = 4;
constexpr Nanoseconds kLongestRest = std::chrono::seconds{1};
constexpr Nanoseconds kRetryDelay = std::chrono::seconds{2};

// Nobody waits for the replica tree as a rule: the journals and the services go first.
void lower_priority() {
    constexpr int kWhoProcess = 1;        // IOPRIO_WHO_PROCESS; 0: this thread
    constexpr int kBestEffort = 2 << 13;  // IOPRIO_CLASS_BE
    constexpr int kLowest = 7;
    const sched_param parameters{};
    (void)::sched_setscheduler(0, SCHED_BATCH, &parameters);
    (void)::syscall(SYS_ioprio_set, kWhoProcess, 0, kBestEffort | kLowest);
}

}  // namespace

Status reset_store(const std::string& store) { return reset_tree(store, {kCatalogueFolder}); }

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
    TS_ASSIGN(applier->tree_, Tree::open(store, {.on_step = applier->options_.on_step}));
    TS_ASSIGN(applier->catalogue_,
              Catalogue::open(store + "/" + kCatalogueFolder, applier->options_.volume));
    Catalogue& catalogue = *applier->catalogue_;
    if (catalogue.fresh()) {
        std::error_code code;
        if (!std::filesystem::is_empty(store + "/tree", code) || code)
            return make_error(ENOTEMPTY, "use the store {}: it has a tree and no catalogue of it",
                              store);
        TS_TRY(catalogue.commit({.applied = {}, .seeded = {}}));
    }
    applier->applied_ = catalogue.applied().lsn.value;
    applier->tried_ = catalogue.applied().lsn;
    applier->seeded_ = catalogue.seeded();
    return applier;
}

Status Applier::begin_at(Position position) {
    const std::lock_guard work{work_mutex_};
    TS_TRY(catalogue_->commit({.applied = position, .seeded = {}}));
    cursor_.reset();
    const std::lock_guard lock{mutex_};
    applied_ = position.lsn.value;
    tried_ = position.lsn;
    return {};
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

void Applier::run() {
    lower_priority();
    std::unique_lock lock{mutex_};
    for (;;) {
        wake_.wait(lock, [&] { return stop_ != Stop::kNo || something_to_do(); });
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
    }
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
    Position end = catalogue_->applied();
    Status status = read_batch(delta, end, limit);
    if (status.ok() && delta.empty()) return false;
    if (status.ok()) status = catalogue_->begin(end.lsn);
    if (status.ok()) status = apply_delta(delta, end);
    if (!status.ok()) {
        catalogue_->drop();
        cursor_.reset();
        return status.error();
    }
    TS_FAULT(applier_committed);
    seeded_ = catalogue_->seeded();
    applied_ = end.lsn.value;
    return true;
}

Status Applier::read_batch(Delta& delta, Position& end, Lsn limit) {
    const Lsn from = end.lsn;
    if (!cursor_) {
        TS_ASSIGN(cursor_, Cursor::open(options_.store + "/journal", options_.volume, from + 1));
    }
    while (delta.bytes() < options_.batch_bytes && delta.records() < options_.batch_records) {
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
        TS_TRY(delta.add(std::move(*frame), from));
    }
    return {};
}

Status Applier::apply_delta(const Delta& delta, const Position& end) {
    const auto began = Clock::now();
    // A new seed into a tree that has had one finds every object there.
    const ApplyOptions how{.tree = catalogue_->seeded() == 0 ? ApplyOptions::Tree::kBeingSeeded
                                                             : ApplyOptions::Tree::kComplete};
    TS_ASSIGN(const auto counters, apply(delta, *tree_, *catalogue_, how));
    if (!delta.objects().empty()) TS_TRY(tree_->sync());
    TS_FAULT(applier_synced);
    TS_TRY(catalogue_->commit({.applied = end, .seeded = delta.seeded()}));
    spdlog::debug(
        "applied {} records up to {} in {} us: {} made, {} placed, {} removed, {} parked, {} "
        "written, "
        "{} made and gone",
        delta.records(), end.lsn.value,
        std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began).count(),
        counters.made, counters.placed, counters.removed, counters.parked, counters.written,
        counters.elided);
    return {};
}

}  // namespace twinspool
