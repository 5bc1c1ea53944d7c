// SPDX-License-Identifier: Apache-2.0
#include "fuse/kernel/notifier.h"

#include "fuse/kernel/libfuse.h"
#include "fuse/kernel/process.h"

namespace twinspool {

Notifier::Notifier(fuse_session* session) : session_(session), thread_([this] { serve(); }) {}

Notifier::~Notifier() { stop(); }

// Attributes only: a negative offset leaves the pages alone. What the kernel does not know (ENOENT)
// it does not keep.
void Notifier::outdate(ObjectId object) {
    (void)fuse_lowlevel_notify_inval_inode(session_, raw(object), -1, 0);
}

void Notifier::outdate_later(ObjectId object) {
    const std::lock_guard lock{mutex_};
    if (due_.insert(raw(object)).second && due_.size() == 1) wake_.notify_one();
}

void Notifier::serve() {
    name_thread("notifier");
    std::unique_lock lock{mutex_};
    for (;;) {
        wake_.wait(lock, [this] { return stopping_ || !due_.empty(); });
        if (stopping_) return;
        const std::unordered_set<std::uint64_t> now = std::exchange(due_, {});
        lock.unlock();
        for (const std::uint64_t object : now) outdate(ObjectId{object});
        lock.lock();
    }
}

void Notifier::stop() {
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
}

}  // namespace twinspool
