// SPDX-License-Identifier: Apache-2.0
// Checkpointer: keeps the journal short. Every `checkpoint_every`, and when the journal is nearly
// as large as it may get: syncs the backing file systems, records how far that goes, and recycles
// the segments that neither a restart nor a standby needs. At the limit the standbys that are
// behind lose their claim on old segments: they are seeded again when they return. One thread of
// its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "journal/log/journal.h"
#include "replicator/link/sender.h"

namespace twinspool {

class Checkpointer {
   public:
    struct Options {
        Nanoseconds every{};
        std::uint64_t limit_bytes = 0;
        std::uint64_t segment_bytes = 0;
    };
    // `backing` has one descriptor for each directory; all outlive this.
    Checkpointer(Options options, Journal& journal, const std::vector<int>& backing,
                 std::vector<Sender*> senders);
    ~Checkpointer() { stop(); }
    Checkpointer(const Checkpointer&) = delete;
    Checkpointer& operator=(const Checkpointer&) = delete;

    void start();
    void stop();

   private:
    void run();
    void checkpoint();
    void recycle();
    [[nodiscard]] bool is_full() const;
    [[nodiscard]] bool give_up_one() const;

    const Options options_;
    Journal& journal_;
    const std::vector<int> backing_;  // one for each file system
    const std::vector<Sender*> senders_;
    std::mutex mutex_;  // protects stopping_
    std::condition_variable wake_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace twinspool
