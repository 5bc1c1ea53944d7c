// SPDX-License-Identifier: Apache-2.0
// Notifier: tells the kernel that what it keeps of an object's attributes is old. Lives as long as
// the session; made before its first request. Threads: any, and one of its own for what must not be
// said from a request's. Lock: a leaf.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_set>

#include "fuse/kernel/attribute_cache.h"

struct fuse_session;

namespace twinspool {

class Notifier final : public AttributeCache {
   public:
    explicit Notifier(fuse_session* session);
    ~Notifier() override;
    Notifier(const Notifier&) = delete;
    Notifier& operator=(const Notifier&) = delete;

    void outdate(ObjectId object) override;
    void outdate_later(ObjectId object) override;
    // Before the session ends: what is said from here on is said to nobody.
    void stop();

   private:
    void serve();
    fuse_session* const session_;
    std::mutex mutex_;                       // protects the two below
    std::unordered_set<std::uint64_t> due_;  // at most one for each object that is open
    bool stopping_ = false;
    std::condition_variable wake_;
    std::thread thread_;
};

}  // namespace twinspool
