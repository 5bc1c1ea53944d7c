// SPDX-License-Identifier: Apache-2.0
// Uring: the one place that knows liburing. Durable writes of whole blocks, and a way for other
// threads to wake who waits. Owned and used by one thread, except wake(), which any may call.
// Short writes and EINTR/EAGAIN are carried on here; a completion is whole or an error.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/format/op.h"

namespace twinspool {

class Uring {
   public:
    static constexpr std::uint32_t kDepth = 16;  // most writes in flight

    static Result<std::unique_ptr<Uring>> open();
    ~Uring();
    Uring(const Uring&) = delete;
    Uring& operator=(const Uring&) = delete;

    struct Completion {
        std::uint64_t tag = 0;
        int error = 0;  // 0, or an errno
    };

    // Starts one O_DIRECT write with RWF_DSYNC: when it completes, the bytes are on stable storage.
    // `bytes` are whole blocks in aligned memory and stay as they are until then.
    void write(int fd, Bytes bytes, std::uint64_t offset, std::uint64_t tag);
    [[nodiscard]] std::uint32_t in_flight() const { return in_flight_; }
    // Waits for a completion, a wake() or the time. Returns one completion, if that is what came.
    std::optional<Completion> wait(std::optional<Nanoseconds> timeout);
    // Makes wait() return, now or the next time.
    void wake();

   private:
    struct Ring;
    struct Write {
        int fd = -1;
        Bytes rest;
        std::uint64_t offset = 0;
        std::uint64_t tag = 0;
        bool busy = false;
    };
    explicit Uring(std::unique_ptr<Ring> ring);
    void arm_wake();
    void submit_write(std::uint32_t index);
    std::optional<Completion> reap(std::uint64_t user, int result);

    std::unique_ptr<Ring> ring_;
    std::array<Write, kDepth> writes_;
    std::uint32_t in_flight_ = 0;
};

}  // namespace twinspool
