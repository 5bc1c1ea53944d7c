// SPDX-License-Identifier: Apache-2.0
// Walker: visits every object of the directories in the background and logs what the standbys do
// not have: for a new seed everything, after a start what was changed while nothing was mounted.
// Service goes on.
//
// Each object: told if it is not (fuse/tell/finder), its content logged in chunks under its lock,
// then marked complete in its identity, so that a walk that is cut short goes on where it was. Of a
// directory that was changed underneath the names are stated at the end, when all additions have
// been logged, so that nothing that was only moved is removed on the standby. Then the directories'
// mtimes, then "seeded".
//
// Invariant: when a round ends, every object that has a name is told and complete, whatever was
// renamed meanwhile: changes that move what is not complete, or a directory, say so by revisit().
// Threads: one of its own, at low priority; the public part any. Lock: `mutex_`, protects the queue
// and the wishes; a leaf. It takes objects' locks for a chunk at a time.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "fuse/objects/volume.h"
#include "fuse/tell/finder.h"
#include "fuse/tell/hash_walk.h"
#include "fuse/tell/rate_limit.h"

namespace twinspool {

struct WalkProgress {
    bool running = false;   // a walk is going on
    bool complete = false;  // the last one that was begun has come to its end
    bool seeding = false;   // it is one for a seed
    std::uint64_t objects_done = 0;
    std::uint64_t objects_total = 0;
    std::uint64_t bytes_done = 0;
    std::uint64_t bytes_total = 0;
    std::uint64_t found_changed = 0;          // objects that were changed while nothing was mounted
    std::uint64_t failed = 0;                 // objects that could not be read; tried again
    bool by_hash = false;                     // the seed is a resync
    std::uint64_t bytes_different = 0;        // of contents, that a standby did not have so
    std::optional<double> seconds_left = {};  // while it runs, once there is a rate to go by
};

class Walker final : public WalkQueue {
   public:
    enum class Round : std::uint8_t { kChanges, kSeed };
    struct Options {
        std::uint32_t standby_count = 0;
        std::uint64_t rate_limit = 0;         // bytes a second; 0: none
        std::function<void(Lsn)> hurry = {};  // see OverlayOptions
    };
    Walker(Volume& volume, Options options);
    ~Walker() override { stop(); }

    // Begins a round; one that is going on is given up for it. `standbys` (bits) must answer if
    // contents are told by hash.
    void begin(Round round, Contents contents = Contents::kWhole, std::uint64_t standbys = 0);
    void stop();
    void revisit(const Inode& inode) override;
    void repeat() override;
    [[nodiscard]] WalkProgress progress() const;
    // For what the links hear.
    [[nodiscard]] Checkbook& book() { return hash_walk_.book(); }

   private:
    struct Visit {
        ObjectId object;
        std::uint32_t directory;
        FileHandle handle;
        InodeRef kept{};  // of one that might not be recognized when it has been forgotten
    };
    struct Counters {
        std::atomic<std::uint64_t> objects_done{0}, objects_total{0};
        std::atomic<std::uint64_t> bytes_done{0}, bytes_total{0};
        std::atomic<std::uint64_t> failed{0}, bytes_different{0};
    };
    static Visit visit_of(const Inode& inode) {
        return {.object = inode.id, .directory = inode.directory, .handle = inode.handle};
    }

    void run();
    void run_round();
    void count_all();
    void queue_roots();  // mutex_ held
    void visit_queued();
    void visit(const Visit& next);
    void visit_directory(const InodeRef& directory, Fd fd);
    // What find_entry() and its like need, on a thread that may wait.
    void visit_entry(const InodeRef& parent, const char* name, bool& told);
    Status log_name_again(Inode& parent, const char* name, Inode& object);
    [[nodiscard]] ComparisonHooks hooks();
    Status tell_content(Inode& file);
    Status ship_content(Inode& file);
    Status ship_chunk(Inode& file, int fd, std::uint64_t& offset, bool& at_end);
    Status state_entries(const Visit& directory);
    Status log_names(Turn& turn, Inode& directory, int fd);
    Status log_mtime(const Visit& directory);
    void settle_directories();
    void finish_round();
    Result<InodeRef> open_visit(const Visit& visit);
    void note_failure(const char* what, const char* name, int error);
    void throttle(Lsn lsn, std::size_t bytes);
    [[nodiscard]] bool is_ahead_of_standbys(Lsn lsn) const;
    void pause(Nanoseconds time);
    [[nodiscard]] std::optional<double> seconds_left() const;  // mutex_ held
    [[nodiscard]] bool interrupted() const;

    Volume& volume_;
    const Options options_;
    Counters counters_;

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<Visit> queue_;  // a stack, so that a whole directory's is not kept for long
    bool wanted_ = false;       // a round is to begin
    Round round_ = Round::kChanges;
    Contents contents_ = Contents::kWhole;
    std::uint64_t standbys_ = 0;
    std::chrono::steady_clock::time_point began_;
    bool in_round_ = false;
    bool complete_ = false;
    bool running_ = false;

    // --- the thread's own
    std::uint32_t round_generation_ = 0;
    std::vector<Visit> changed_;  // directories whose names are to be stated
    std::vector<Visit> touched_;  // directories whose mtime is to be logged
    std::size_t unsynced_bytes_ = 0;
    std::deque<Lsn> sent_;  // a position for each kThrottleStep appended
    RateLimit rate_;
    bool by_hash_ = false;  // this round's contents
    HashWalk hash_walk_;

    std::atomic<bool> stopping_{false};
    std::atomic<bool> restart_{false};
    std::atomic<bool> repeat_{false};  // set under mutex_
    std::thread thread_;
};

}  // namespace twinspool
