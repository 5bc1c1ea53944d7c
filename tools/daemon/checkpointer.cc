// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/checkpointer.h"

#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "journal/base/fault.h"

namespace twinspool {
namespace {

// How often the size of the journal is looked at: at 1 GB/s it grows by 50 MB in between.
constexpr std::chrono::milliseconds kLookEvery{50};
// Room below the limit for what is being written and prepared meanwhile.
constexpr std::uint64_t kSpareSegments = 2;

std::vector<int> one_for_each_file_system(const std::vector<int>& descriptors) {
    std::vector<int> chosen;
    std::set<dev_t> seen;
    for (const int fd : descriptors) {
        struct stat status {};
        if (::fstat(fd, &status) != 0 || seen.insert(status.st_dev).second) chosen.push_back(fd);
    }
    return chosen;
}

}  // namespace

Checkpointer::Checkpointer(Options options, Journal& journal, const std::vector<int>& backing,
                           std::vector<Sender*> senders)
    : options_(options),
      journal_(journal),
      backing_(one_for_each_file_system(backing)),
      senders_(std::move(senders)) {}

void Checkpointer::start() {
    thread_ = std::thread{[this] { run(); }};
}

void Checkpointer::stop() {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
}

void Checkpointer::run() {
    auto due = std::chrono::steady_clock::now() + options_.every;
    std::unique_lock lock{mutex_};
    while (!wake_.wait_for(lock, std::min<Nanoseconds>(kLookEvery, options_.every),
                           [this] { return stopping_; })) {
        lock.unlock();
        const auto now = std::chrono::steady_clock::now();
        if (now >= due || is_full()) {
            checkpoint();
            due = std::chrono::steady_clock::now() + options_.every;
        }
        recycle();
        while (is_full() && give_up_one()) recycle();
        lock.lock();
    }
}

// Whoever holds back most of what a checkpoint has set free. False: nobody does.
bool Checkpointer::give_up_one() const {
    const auto farthest = std::min_element(
        senders_.begin(), senders_.end(),
        [](const Sender* a, const Sender* b) { return a->needs_from() < b->needs_from(); });
    if (farthest == senders_.end() || (*farthest)->needs_from() > journal_.counters().checkpoint)
        return false;
    (*farthest)->give_up_catching_up();
    return true;
}

bool Checkpointer::is_full() const {
    const std::uint64_t spare =
        std::min(kSpareSegments * options_.segment_bytes, options_.limit_bytes / 2);
    return journal_.counters().bytes > options_.limit_bytes - spare;
}

void Checkpointer::checkpoint() {
    // Each record up to here was appended after its change had been made, so the sync covers it.
    const Lsn lsn = journal_.appended();
    if (journal_.failure() != 0 || lsn == journal_.counters().checkpoint) return;
    for (const int fd : backing_) {
        if (::syncfs(fd) == 0) continue;
        spdlog::error("no checkpoint: could not {}", last_error("sync a backing tree").text());
        return;
    }
    TS_FAULT(checkpoint_synced);
    if (const auto done = journal_.checkpoint(lsn); !done.ok())
        spdlog::error("no checkpoint: could not {}", done.error().text());
}

void Checkpointer::recycle() {
    if (journal_.failure() != 0) return;
    Lsn keep_from = journal_.appended() + 1;
    for (const Sender* sender : senders_) keep_from = std::min(keep_from, sender->needs_from());
    if (const auto done = journal_.recycle(keep_from); !done.ok())
        spdlog::error("could not {}", done.error().text());
}

}  // namespace twinspool
