// SPDX-License-Identifier: Apache-2.0
// Verifier: compares the volume, or a part of it, with what the standbys have, while everything
// goes on. Walks, logs a check for every object, every directory's entries and every file's
// content, and collects what is different; what a first check finds is believed only when an exact
// one finds it, too. Then, if that is wanted, the primary's version of what differs is logged,
// parents before what is in them, and checked once more.
//
// A standby that is lost meanwhile ends it: nobody knows then what it has not answered. So does a
// seed that begins. Objects without a name are not looked at.
// Threads: begin() starts one of its own, at low priority; the public part any. Lock: `mutex_`,
// protects the report and the wishes; a leaf.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "fuse/objects/volume.h"
#include "fuse/tell/checkbook.h"
#include "fuse/tell/checks.h"
#include "fuse/tell/mending.h"
#include "fuse/tell/rate_limit.h"
#include "fuse/tell/verify.h"

namespace twinspool {

class Verifier {
   public:
    struct Setup {
        std::uint64_t standbys = 0;  // bits: who answers
        std::uint64_t rate_limit = 0;
        std::function<void(Lsn)> hurry = {};
    };
    Verifier(Volume& volume, Setup setup) : volume_(volume), setup_(std::move(setup)) {}
    ~Verifier() { stop("it was given up"); }

    // EBUSY: one is running. ENOENT: the volume has no such path.
    Status begin(const VerifyOptions& options);
    void cancel(const std::string& why);
    // The same, and waits for its end; none begins afterwards.
    void stop(const std::string& why);
    [[nodiscard]] VerifyReport report() const;
    [[nodiscard]] Checkbook& book() { return book_; }

   private:
    static constexpr std::size_t kMostOpen = 16'384;
    static constexpr std::uint64_t kMostOpenBytes = std::uint64_t{512} << 20;
    static constexpr std::size_t kMostConfirmed = 1'000;  // exact checks of what differs
    static constexpr std::uint8_t kMostAttempts = 6;

    struct Item {
        Subject subject;
        std::size_t open = 0;  // checks
        bool all_asked = false;
    };
    // One checked alone: its entry, too.
    struct Start {
        Subject subject;
        std::string parent_path;
    };

    void run(const VerifyOptions& options, Start start);
    void conclude();
    Result<Start> find_start(const std::string& path);

    // --- the walk
    void visit_all(const VerifyOptions& options, Start start);
    std::uint64_t visit(Subject subject);
    void visit_directory(Subject directory, std::vector<Subject>& inner);
    Result<std::uint64_t> visit_entry(const Subject& directory, const char* name, KnownIds& known,
                                      std::vector<Subject>& inner);
    std::uint64_t add(Subject subject);
    void asked_all(std::uint64_t number);
    Status ask_object(std::uint64_t number, const Asked& asked);
    Status ask_content(std::uint64_t number);
    Status ask_chunk(std::uint64_t number, int fd, Asked asked, ContentStep& step);
    Status ask_entries(std::uint64_t number, const KnownIds& known, const Asked& asked);
    Status log_entries(Turn& turn, Item& item, const std::vector<NamedId>& entries,
                       const Asked& asked);
    void note_failure(const std::string& path, int error);

    // --- the answers
    void answer_some(std::chrono::milliseconds patience);
    void wait_for_room();
    void settle();
    void handle(const CheckAnswer& answer);
    Status ask_again(std::uint64_t number, Asked asked);
    void differs(std::uint64_t number, Item& item, const CheckAnswer& answer);
    void note_damage(Damage& damage, const CheckAnswer& answer, const Finding& finding);
    void report_difference(const std::string& path, const Heard& heard);

    // --- mending
    void repair_all();
    Status mended_some(std::uint64_t bytes);
    [[nodiscard]] bool is_behind(Lsn lsn) const;
    void check_repaired();

    [[nodiscard]] bool ended() const;
    void work_done(std::uint64_t bytes);
    void pause(Nanoseconds time);
    void fail(const std::string& why);

    Volume& volume_;
    const Setup setup_;
    Checkbook book_;

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    VerifyReport report_;
    std::chrono::steady_clock::time_point began_;
    bool stopped_ = false;
    std::atomic<bool> cancelled_{false};
    std::thread thread_;

    // --- the thread's own
    RateLimit rate_{0};
    std::uint32_t generation_ = 0;
    std::unordered_map<std::uint64_t, Item> items_;
    std::uint64_t last_number_ = 0;
    std::unordered_set<std::uint64_t> seen_;  // objects of several names
    std::size_t confirmed_ = 0;
    std::map<std::uint64_t, Damage> damages_;  // by the number of the item: parents first
    std::set<std::pair<std::string, std::string>> known_differences_;  // word and path
    std::uint64_t unsynced_bytes_ = 0;                                 // logged by mending
    bool mended_ = false;            // what differs now was mended in vain
    std::set<std::string> in_vain_;  // its paths
};

}  // namespace twinspool
