// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/history.h"

#include <dirent.h>
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <charconv>
#include <utility>

#include "journal/base/fault.h"
#include "replicator/store/before_images.h"
#include "replicator/store/hold.h"

namespace twinspool {
namespace {

constexpr std::size_t kMaxOpenFolders = 64;
// Of one step of tidying up: the applier waits for no longer than that.
constexpr int kEntriesPerStep = 4096;
constexpr std::size_t kFilesPerStep = 512;
// Given back first when the disk is full, so that the database can write that history is given up.
constexpr off_t kBallastBytes = off_t{16} << 20;
constexpr const char* kBallast = "/ballast";
constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

std::string folder_name(const Span& span) {
    return fmt::format("{:016x}-{:016x}", span.upto.value, span.after.value);
}

std::optional<Span> span_of_folder(std::string_view name) {
    Span span;
    if (name.size() != 33 || name[16] != '-') return std::nullopt;
    const auto upto = std::from_chars(name.data(), name.data() + 16, span.upto.value, 16);
    const auto after = std::from_chars(name.data() + 17, name.data() + 33, span.after.value, 16);
    if (upto.ptr != name.data() + 16 || after.ptr != name.data() + 33) return std::nullopt;
    return span;
}

// The object whose name aside this is (journal/delta/tree gives it).
ObjectId object_of_name(std::string_view name) {
    std::uint64_t id = 0;
    (void)std::from_chars(name.data(), name.data() + std::min<std::size_t>(name.size(), 16), id,
                          16);
    return ObjectId{id};
}

// Some names of a folder, which may have very many.
Result<std::vector<std::string>> some_names(int folder, std::size_t limit) {
    const int fd = ::openat(folder, ".", kFolderFlags);
    DIR* stream = fd < 0 ? nullptr : ::fdopendir(fd);
    if (stream == nullptr) return last_error("read a folder of kept files");
    std::vector<std::string> names;
    while (names.size() < limit) {
        const dirent* entry = ::readdir(stream);  // NOLINT(concurrency-mt-unsafe)
        if (entry == nullptr) break;
        const std::string_view name{entry->d_name};
        if (name != "." && name != "..") names.emplace_back(name);
    }
    (void)::closedir(stream);
    return names;
}

}  // namespace

Result<std::unique_ptr<History>> History::open(const Parts& parts) {
    std::unique_ptr<History> history{new History{parts}};
    TS_TRY(history->load());
    return history;
}

Status History::load() {
    const std::string path = parts_.store + "/kept";
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
        return last_error("make the folder {}", path);
    kept_.reset(::open(path.c_str(), kFolderFlags));
    if (!kept_.valid()) return last_error("open the folder {}", path);
    TS_ASSIGN(totals_, read_totals(parts_.database));
    // An apply that was interrupted may have kept files that were counted nowhere.
    TS_ASSIGN(const auto folders, parts_.tree.list(kept_.get()));
    for (const auto& name : folders)
        if (const auto span = span_of_folder(name)) (void)totals_[*span];
    // Giving up may have been interrupted.
    parts_.catalogue.break_upto(parts_.progress.broken_upto());
    keep_ballast();
    return {};
}

void History::drop_ballast_if_full(const std::string& store) {
    struct statvfs space {};
    if (::statvfs(store.c_str(), &space) == 0 &&
        space.f_bavail * space.f_frsize < static_cast<std::uint64_t>(kBallastBytes))
        (void)::unlink((store + kBallast).c_str());
}

void History::keep_ballast() const {
    struct statvfs space {};
    const std::string path = parts_.store + kBallast;
    if (::statvfs(path.substr(0, path.rfind('/')).c_str(), &space) != 0 ||
        space.f_bavail * space.f_frsize < 8 * static_cast<std::uint64_t>(kBallastBytes))
        return;
    const Fd fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600)};
    struct stat status {};
    if (fd.valid() && ::fstat(fd.get(), &status) == 0 && status.st_size < kBallastBytes)
        (void)::posix_fallocate(fd.get(), 0, kBallastBytes);
}

Status History::keep(const Delta& delta) {
    const Lsn newest = parts_.catalogue.newest_kept();
    if (newest == Lsn{}) return {};
    if (sizes_of_ != newest) sizes_.clear();
    sizes_of_ = newest;
    BeforeImages images{*this, delta, newest};
    TS_TRY(images.save());
    if (!images.saved_any()) return {};
    TS_FAULT(history_kept);
    TS_TRY(parts_.database.sync());
    parts_.progress.rise();
    TS_FAULT(history_synced);
    return {};
}

Result<Keeper::Place> History::place_for(const IndexEntry& object) {
    const Lsn newest = parts_.catalogue.newest_kept();
    if (object.born >= newest) return Place{};
    TS_ASSIGN(const int folder, folder_of({.born = object.born, .kept = newest}));
    return Place{.folder = folder, .kept = newest};
}

Result<int> History::folder_of(const IndexEntry& kept) {
    const Span span{.after = kept.born, .upto = kept.kept};
    const auto it = folders_.find(span);
    if (it != folders_.end()) return it->second.get();
    if (folders_.size() >= kMaxOpenFolders) folders_.clear();
    TS_ASSIGN(Fd folder, open_folder(span));
    return folders_.emplace(span, std::move(folder)).first->second.get();
}

Result<Fd> History::open_folder(const Span& span) {
    const std::string name = folder_name(span);
    if (::mkdirat(kept_.get(), name.c_str(), 0700) != 0 && errno != EEXIST)
        return last_error("make the folder kept/{}", name);
    Fd fd{::openat(kept_.get(), name.c_str(), kFolderFlags)};
    if (!fd.valid()) return last_error("open the folder kept/{}", name);
    (void)totals_[span];  // it is there, whatever comes of what is to be put into it
    return fd;
}

void History::keeps(const IndexEntry& object, std::uint64_t bytes) {
    kept_now_[{.after = object.born, .upto = object.kept}] += bytes;
}

Batch History::totals_to_commit() const {
    Batch batch;
    for (const auto& [span, bytes] : kept_now_) {
        const auto it = totals_.find(span);
        Totals totals = it == totals_.end() ? Totals{} : it->second;
        totals.kept_bytes += bytes;
        batch.put(Family::kHistory, keys::totals(span), encode(totals));
    }
    return batch;
}

void History::committed() {
    for (const auto& [span, bytes] : kept_now_) totals_[span].kept_bytes += bytes;
    kept_now_.clear();
}

void History::dropped() {
    kept_now_.clear();
    sizes_.clear();
}

bool History::is_garbage(const Span& span) const {
    for (const auto& [number, record] : parts_.catalogue.snapshots())
        if (span.holds(number) && !record.snapshot.broken) return false;
    return true;
}

Result<bool> History::destroy_doomed() {
    std::vector<Lsn> doomed;
    for (const auto& [number, record] : parts_.catalogue.snapshots())
        if (record.doomed) doomed.push_back(number);
    waits_ = false;
    bool any = false;
    for (const Lsn number : doomed) {
        TS_ASSIGN(const auto hold, hold_snapshot(parts_.store, number, HoldKind::kDestroy));
        if (!hold) {
            waits_ = true;
            continue;
        }
        parts_.catalogue.destroy(number);
        TS_TRY(parts_.catalogue.commit_in_place());
        parts_.progress.rise();
        (void)::unlink(hold_path(parts_.store, number).c_str());
        any = true;
    }
    return any;
}

Result<bool> History::tidy_up() {
    // Giving up has come half-way.
    if (!parts_.database.has_history()) TS_TRY(give_up());
    TS_ASSIGN(const bool destroyed, destroy_doomed());
    for (const auto& [span, totals] : totals_)
        if (is_garbage(span)) return purge_some(Span{span});
    return destroyed;
}

// Always true: there may be more.
Result<bool> History::purge_some(const Span& span) {
    Batch batch;
    TS_ASSIGN(const bool entries_left, purge_entries(span, batch));
    TS_ASSIGN(const bool files_left, purge_files(span));
    if (!entries_left && !files_left) {
        folders_.erase(span);
        if (::unlinkat(kept_.get(), folder_name(span).c_str(), AT_REMOVEDIR) != 0 &&
            errno != ENOENT)
            return last_error("remove the folder kept/{}", folder_name(span));
        batch.erase(Family::kHistory, keys::totals(span));
    }
    TS_TRY(parts_.catalogue.commit_in_place(std::move(batch)));
    TS_FAULT(history_purged);
    if (!entries_left && !files_left) totals_.erase(span);
    return true;
}

Result<bool> History::purge_entries(const Span& span, Batch& batch) {
    const std::string prefix = keys::in_span(span, "");
    auto range = parts_.database.range(Family::kHistory, prefix, keys::end_of(prefix));
    int left = kEntriesPerStep;
    for (range.first(); range.valid() && left > 0; range.next(), --left) {
        batch.erase(Family::kHistory, range.key());
        batch.erase(Family::kHistory, keys::key_in_span(range.key()));
    }
    TS_TRY(range.status());
    return range.valid();
}

Result<bool> History::purge_files(const Span& span) {
    const Fd folder{::openat(kept_.get(), folder_name(span).c_str(), kFolderFlags)};
    if (!folder.valid()) {
        if (errno == ENOENT) return false;
        return last_error("open the folder kept/{}", folder_name(span));
    }
    TS_ASSIGN(const auto names, some_names(folder.get(), kFilesPerStep));
    for (const auto& name : names) TS_TRY(remove_kept(folder.get(), name));
    return names.size() == kFilesPerStep;
}

// With its last name the object goes from the index, unless its id has gone to another inode.
Status History::remove_kept(int folder, const std::string& name) {
    TS_ASSIGN(const auto standing, parts_.tree.at(folder, name.c_str()));
    if (!standing) return {};
    if (standing->is_directory())
        TS_TRY(parts_.tree.remove_directory(folder, name.c_str()));
    else
        TS_TRY(parts_.tree.unlink(folder, name.c_str()));
    if (!standing->is_directory() && standing->status.st_nlink > 1) return {};
    const ObjectId object = object_of_name(name);
    TS_ASSIGN(const auto known, parts_.catalogue.find(object));
    if (!known || known->handle != standing->handle) return {};
    return parts_.catalogue.erase(object);
}

// First the word that nothing can be read any more, then the deed. Neither needs space.
Status History::give_up() {
    const Lsn newest = parts_.catalogue.newest_kept();
    if (newest != Lsn{}) {
        spdlog::error("standby {}: the disk is full: the history of its snapshots is given up",
                      parts_.store);
        TS_TRY(parts_.progress.break_upto(newest));
    }
    TS_FAULT(history_gave_up);
    (void)::unlink((parts_.store + kBallast).c_str());
    dropped();
    const std::uint64_t next = parts_.progress.history() + 1;
    TS_TRY(parts_.database.begin_history(next));
    TS_TRY(parts_.progress.begin_history(next));
    parts_.catalogue.break_upto(parts_.progress.broken_upto());
    TS_TRY(parts_.catalogue.commit_in_place());
    for (auto& [span, totals] : totals_) totals.entry_bytes = 0;
    for (bool more = true; more;) {
        TS_ASSIGN(more, tidy_up());
    }
    keep_ballast();
    return {};
}

std::vector<Snapshot> History::snapshots() const {
    return listed(parts_.catalogue.snapshots(), totals_);
}

}  // namespace twinspool
