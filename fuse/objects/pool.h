// SPDX-License-Identifier: Apache-2.0
// Pool: the threads that may wait for a disk, so that those that serve a queue of the kernel need
// not. Invariant: at most kPoolBacklog tasks wait; beyond that who brings one runs it. Threads:
// any.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace twinspool {

inline constexpr unsigned kPoolThreads = 16;
inline constexpr std::size_t kPoolBacklog = 4096;

class Pool {
   public:
    using Task = std::function<void()>;
    enum class Full : std::uint8_t { kRunHere, kQueueAnyway };

    void start(unsigned threads);
    // kQueueAnyway: for callers that must not be held up whatever happens (the journal's writer);
    // what they bring is bounded by the requests in flight.
    void post(Task task, Full full = Full::kRunHere);
    // Runs what is queued, then ends the threads. Tasks posted afterwards run at once.
    void stop();
    ~Pool() { stop(); }

   private:
    void serve();
    std::mutex mutex_;  // protects the two below; taken last
    std::deque<Task> tasks_;
    bool stopping_ = true;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

}  // namespace twinspool
