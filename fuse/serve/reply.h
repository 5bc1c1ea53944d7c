// SPDX-License-Identifier: Apache-2.0
// Reply: the answer to one request of the kernel, given exactly once, from any thread. In mode
// `every` the answer to a change waits here until commit has reached its record; a sync waits for
// all before it.
#pragma once

#include "fuse/objects/volume.h"
#include "fuse/serve/answer.h"

struct fuse_req;

namespace twinspool {

class Reply {
   public:
    Reply(Volume& volume, fuse_req* request) : volume_(&volume), request_(request) {}
    Reply(Reply&& other) noexcept
        : volume_(other.volume_), request_(std::exchange(other.request_, nullptr)) {}
    Reply(const Reply&) = delete;
    Reply& operator=(const Reply&) = delete;
    ~Reply() { TS_ASSERT(request_ == nullptr); }

    void error(int error);
    // At once, or in mode `every` when `lsn` (0: nothing was logged) is committed.
    void answer(Answer&& answer, Lsn lsn);
    // When everything appended up to now is committed.
    void when_committed();

   private:
    class Waiter;
    static void send(Volume& volume, fuse_req* request, const Answer& answer);
    Volume* volume_;
    fuse_req* request_;
};

}  // namespace twinspool
