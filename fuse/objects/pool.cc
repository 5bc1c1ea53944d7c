// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/pool.h"

#include <utility>

#include "fuse/kernel/process.h"

namespace twinspool {

void Pool::start(unsigned threads) {
    stopping_ = false;
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { serve(); });
}

void Pool::post(Task task, Full full) {
    {
        const std::lock_guard lock{mutex_};
        if (!stopping_ && (full == Full::kQueueAnyway || tasks_.size() < kPoolBacklog)) {
            tasks_.push_back(std::move(task));
            wake_.notify_one();
            return;
        }
    }
    task();
}

void Pool::serve() {
    name_thread("fuse-pool");
    std::unique_lock lock{mutex_};
    for (;;) {
        wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
        if (tasks_.empty()) return;
        Task task = std::move(tasks_.front());
        tasks_.pop_front();
        lock.unlock();
        task();
        task = nullptr;
        lock.lock();
    }
}

void Pool::stop() {
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
        wake_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
}

}  // namespace twinspool
