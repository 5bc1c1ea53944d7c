// SPDX-License-Identifier: Apache-2.0
#include "fuse/tell/walker.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "fuse/kernel/process.h"
#include "fuse/objects/directory_stream.h"
#include "fuse/objects/orphans.h"
#include "journal/base/fault.h"

namespace twinspool {
namespace {

constexpr std::size_t kThrottleStep = std::size_t{4} << 20;
constexpr std::size_t kThrottleSteps = 16;  // so far may a standby be behind
constexpr std::chrono::milliseconds kPause{20};
constexpr std::chrono::seconds kRetryAfter{30};

}  // namespace

Walker::Walker(Volume& volume, Options options)
    : volume_(volume),
      options_(std::move(options)),
      rate_(options_.rate_limit),
      hash_walk_(volume, hooks()) {
    thread_ = std::thread{[this] { run(); }};
}

ComparisonHooks Walker::hooks() {
    return {.interrupted = [this] { return interrupted(); },
            .throttle = [this](Lsn lsn, std::uint64_t bytes) { throttle(lsn, bytes); },
            .hurry =
                [this](Lsn lsn) {
                    volume_.journal.push();
                    if (options_.hurry) options_.hurry(lsn);
                },
            .compared = [this](std::uint64_t bytes) { counters_.bytes_done += bytes; },
            .differed = [this](std::uint64_t bytes) { counters_.bytes_different += bytes; },
            .failed = [this](int error) { note_failure("compare", "a file", error); }};
}

void Walker::begin(Round round, Contents contents, std::uint64_t standbys) {
    std::vector<Visit> dropped;  // after the lock is free
    const std::lock_guard lock{mutex_};
    dropped.swap(queue_);
    wanted_ = true;
    round_ = round;
    contents_ = contents;
    standbys_ = standbys;
    complete_ = false;
    running_ = true;
    restart_ = in_round_;
    volume_.walking = volume_.in_round = true;
    wake_.notify_all();
}

void Walker::stop() {
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
        wake_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
}

void Walker::revisit(const Inode& inode) {
    Visit visit = visit_of(inode);
    visit.kept = volume_.inodes.find(inode.id);
    const std::lock_guard lock{mutex_};
    queue_.push_back(std::move(visit));
    running_ = true;
    volume_.walking = true;
    wake_.notify_all();
}

void Walker::repeat() {
    const std::lock_guard lock{mutex_};
    if (wanted_ || (in_round_ && !complete_)) {
        repeat_ = true;
        return;
    }
    // The round has just ended: nobody would look at `repeat_` any more.
    queue_roots();
    running_ = true;
    volume_.walking = true;
    wake_.notify_all();
}

WalkProgress Walker::progress() const {
    const std::lock_guard lock{mutex_};
    return {
        .running = running_,
        .complete = complete_,
        .seeding = running_ && round_ == Round::kSeed,
        .objects_done = counters_.objects_done,
        .objects_total = std::max(counters_.objects_total.load(), counters_.objects_done.load()),
        .bytes_done = counters_.bytes_done,
        .bytes_total = std::max(counters_.bytes_total.load(), counters_.bytes_done.load()),
        .found_changed = volume_.found_changed,
        .failed = counters_.failed,
        .by_hash = running_ && round_ == Round::kSeed && contents_ == Contents::kByHash,
        .bytes_different = counters_.bytes_different,
        .seconds_left = seconds_left()};
}

// By what has been done since the round began. An object counts as much as a small file.
std::optional<double> Walker::seconds_left() const {
    constexpr double kObjectBytes = 8192;
    if (!running_ || round_ != Round::kSeed || !in_round_) return std::nullopt;
    const auto sum = [](std::uint64_t objects, std::uint64_t bytes) {
        return static_cast<double>(objects) * kObjectBytes + static_cast<double>(bytes);
    };
    const double done = sum(counters_.objects_done, counters_.bytes_done);
    const double total = sum(counters_.objects_total, counters_.bytes_total);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - began_;
    if (done <= 0 || passed.count() < 1) return std::nullopt;
    return std::max(0.0, total - done) / done * passed.count();
}

bool Walker::interrupted() const { return stopping_ || restart_ || volume_.journal.failure() != 0; }

void Walker::run() {
    name_thread("walker");
    become_background_thread();
    std::unique_lock lock{mutex_};
    while (!stopping_) {
        wake_.wait(lock, [this] { return stopping_ || wanted_ || !queue_.empty(); });
        if (stopping_) return;
        if (wanted_) {
            wanted_ = false;
            in_round_ = true;
            restart_ = false;
            began_ = std::chrono::steady_clock::now();
            by_hash_ = contents_ == Contents::kByHash && round_ == Round::kSeed;
            hash_walk_.begin(by_hash_ ? standbys_ : 0);
            lock.unlock();
            run_round();
            lock.lock();
            in_round_ = false;
        } else {
            lock.unlock();
            visit_queued();
            settle_directories();
            lock.lock();
            running_ = volume_.walking = !queue_.empty() || wanted_ || volume_.in_round;
        }
        if (volume_.journal.failure() != 0) return;
    }
}

void Walker::run_round() {
    round_generation_ = volume_.generation;
    counters_.objects_done = counters_.bytes_done = counters_.failed = 0;
    counters_.objects_total = counters_.bytes_total = counters_.bytes_different = 0;
    changed_.clear();
    touched_.clear();
    if (round_ == Round::kSeed) count_all();
    for (const Directory& directory : volume_.directories) {
        for (;;) {
            if (interrupted()) return;
            Turn turn{volume_.journal, Turn::Waiting::kAllowed};
            const Ending told = ensure_directory_told(volume_, turn, *directory.root);
            if (told.is_done()) break;
            if (!told.is_busy() && !told.lacks_credit())
                note_failure("tell of", directory.path.c_str(), told.code());
            pause(kPause);
        }
        if (!directory.root->complete) changed_.push_back(visit_of(*directory.root));
    }
    {
        const std::lock_guard lock{mutex_};
        repeat_ = false;
        queue_roots();
    }
    finish_round();
}

void Walker::queue_roots() {
    for (const Directory& directory : volume_.directories)
        queue_.push_back(visit_of(*directory.root));
}

// A quick pass for the totals that people see. What changes meanwhile does not matter.
void Walker::count_all() {
    std::vector<Fd> stack;
    for (const Directory& directory : volume_.directories)
        stack.emplace_back(::openat(directory.backing_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    constexpr std::size_t kDeep = 2000;
    while (!stack.empty() && !interrupted()) {
        DirectoryStream stream{std::move(stack.back())};
        stack.pop_back();
        if (stream.fd() < 0) continue;
        for (;;) {
            const auto entry = stream.peek();
            if (!entry.ok() || !*entry) break;
            const char* const name = (*entry)->name;
            struct statx now {};
            if (!is_dots(name) && stat_entry(stream.fd(), name, now) == 0) {
                ++counters_.objects_total;
                if (S_ISREG(now.stx_mode)) counters_.bytes_total += now.stx_size;
                if (S_ISDIR(now.stx_mode) && stack.size() < kDeep)
                    stack.emplace_back(::openat(stream.fd(), name,
                                                O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
            }
            stream.skip();
        }
    }
}

void Walker::visit_queued() {
    for (;;) {
        Visit next{};
        {
            const std::lock_guard lock{mutex_};
            if (queue_.empty()) return;
            next = std::move(queue_.back());
            queue_.pop_back();
        }
        if (interrupted()) return;
        visit(next);
    }
}

Result<InodeRef> Walker::open_visit(const Visit& visit) {
    InodeRef known = volume_.inodes.find(visit.object);
    if (known) return known;
    TS_ASSIGN(const Fd fd, open_handle(volume_.directories[visit.directory].backing_fd,
                                       visit.handle, O_PATH | O_NOFOLLOW));
    struct statx now {};
    if (const int error = stat_object(fd.get(), now)) return plain(error);
    return identify_object(volume_, visit.directory, fd.get(), now);
}

void Walker::visit(const Visit& next) {
    auto inode = open_visit(next);
    if (!inode.ok()) {
        if (!is_gone(inode.error().code)) note_failure("open", "an object", inode.error().code);
        return;
    }
    if ((*inode)->type == S_IFREG) {
        if (volume_.told(**inode) && !(*inode)->complete) {
            const Status shipped = tell_content(**inode);
            if (!shipped.ok()) note_failure("read", "a file", shipped.error().code);
        }
        return;
    }
    if ((*inode)->type != S_IFDIR) return;
    auto fd = open_handle(volume_.directories[next.directory].backing_fd, next.handle,
                          O_RDONLY | O_DIRECTORY);
    if (fd.ok())
        visit_directory(*inode, std::move(*fd));
    else if (!is_gone(fd.error().code))
        note_failure("open", "a directory", fd.error().code);
}

void Walker::visit_directory(const InodeRef& directory, Fd fd) {
    DirectoryStream stream{std::move(fd)};
    bool told = !directory->complete;
    while (!interrupted()) {
        const auto entry = stream.peek();
        if (!entry.ok()) {
            note_failure("list", "a directory", entry.error().code);
            break;
        }
        if (!*entry) break;
        const char* const name = (*entry)->name;
        if (!is_dots(name) && !is_hidden(volume_, *directory, name))
            visit_entry(directory, name, told);
        stream.skip();
    }
    if (told) touched_.push_back(visit_of(*directory));
}

void Walker::visit_entry(const InodeRef& parent, const char* name, bool& told) {
    for (;;) {
        if (interrupted()) return;
        Turn turn{volume_.journal, Turn::Waiting::kAllowed};
        auto found = find_entry(volume_, turn, *parent, name);
        throttle(turn.last(), 256);
        if (!found.ok()) {
            const Ending ending{found.error().code};
            if (ending.is_busy() || ending.lacks_credit()) {
                pause(kPause);
                continue;
            }
            if (!is_gone(ending.code())) note_failure("tell of", name, ending.code());
            return;
        }
        const Inode& inode = *found->inode;
        told = told || found->told_here;
        // A directory that was changed underneath: what is known may stand here for the first time.
        const bool other_name = !found->told_here && !parent->complete;
        const bool was_complete = inode.complete;
        Status done;
        if (other_name) done = log_name_again(*parent, name, *found->inode);
        if (done.ok() && inode.type == S_IFREG && !inode.complete)
            done = tell_content(*found->inode);
        if (!done.ok()) note_failure("read", name, done.error().code);
        ++counters_.objects_done;
        if (was_complete && inode.type == S_IFREG)
            counters_.bytes_done += found->attributes.stx_size;
        if (round_ != Round::kSeed) ++counters_.objects_total;
        if (inode.type != S_IFDIR) return;
        if (!inode.complete) changed_.push_back(visit_of(inode));
        const std::lock_guard lock{mutex_};
        queue_.push_back(visit_of(inode));
        return;
    }
}

// What must wait until all additions have been logged.
void Walker::settle_directories() {
    for (const Visit& directory : changed_) {
        if (interrupted()) return;
        const Status stated = state_entries(directory);
        if (!stated.ok() && !is_gone(stated.error().code))
            note_failure("state the names of", "a directory", stated.error().code);
    }
    changed_.clear();
    for (const Visit& directory : touched_) {
        if (interrupted()) return;
        const Status logged = log_mtime(directory);
        if (!logged.ok() && !is_gone(logged.error().code))
            note_failure("log the times of", "a directory", logged.error().code);
    }
    touched_.clear();
}

void Walker::finish_round() {
    for (;;) {
        visit_queued();
        hash_walk_.settle();
        settle_directories();
        if (interrupted()) return;
        if (counters_.failed > 0) break;
        TS_FAULT(walker_finished);
        const GatePass pass{volume_.gate};  // a new generation begins with the gate closed
        std::unique_lock lock{mutex_};
        if (wanted_ || volume_.generation != round_generation_) return;
        if (repeat_.exchange(false)) queue_roots();
        if (!queue_.empty()) continue;  // something was moved meanwhile
        volume_.suspicion = Volume::Suspicion::kNone;
        volume_.walking = volume_.in_round = volume_.by_hash = false;
        by_hash_ = false;
        running_ = false;
        complete_ = true;
        lock.unlock();
        volume_.touched.clear();
        volume_.names.clear();
        volume_.journal.generation_seeded(round_generation_);
        return;
    }
    spdlog::error("{} objects could not be told to the standby; trying again",
                  counters_.failed.load());
    {
        const std::lock_guard lock{mutex_};
        wanted_ = true;
    }
    pause(kRetryAfter);
}

void Walker::note_failure(const char* what, const char* name, int error) {
    ++counters_.failed;
    spdlog::error("could not {} {}: {}", what, name, std::strerror(error));  // NOLINT
}

void Walker::pause(Nanoseconds time) {
    std::unique_lock lock{mutex_};
    wake_.wait_for(lock, time, [this] { return interrupted(); });
}

// Leaves most of the frames to others, and never runs far ahead of a standby.
void Walker::throttle(Lsn lsn, std::size_t bytes) {
    const Nanoseconds wait = rate_.take(bytes, std::chrono::steady_clock::now());
    if (wait > Nanoseconds{0}) pause(wait);
    if (lsn.value == 0) return;
    unsynced_bytes_ += bytes;
    if (unsynced_bytes_ < kThrottleStep) return;
    unsynced_bytes_ = 0;
    sent_.push_back(lsn);
    if (!volume_.journal.make_durable(lsn).ok() || sent_.size() < kThrottleSteps) return;
    const Lsn behind = sent_.front();
    sent_.pop_front();
    while (is_ahead_of_standbys(behind) && !interrupted()) pause(kPause);
}

// Of all of them, or of one that commits wait for: who is away and was given up is not waited for
// here either, unless nobody else is there.
bool Walker::is_ahead_of_standbys(Lsn lsn) const {
    const Commit& commit = volume_.journal.commit();
    bool of_all = true;
    for (std::uint32_t standby = 0; standby < options_.standby_count; ++standby) {
        const bool behind = commit.standby(standby) < lsn;
        if (behind && commit.waited_for(standby)) return true;
        of_all = of_all && behind;
    }
    return of_all;
}

}  // namespace twinspool
