// SPDX-License-Identifier: Apache-2.0
#include "journal/log/uring.h"

#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include <utility>

#include "journal/base/fd.h"
#include "journal/format/format.h"

namespace twinspool {
namespace {
constexpr std::uint64_t kWakeUser = ~std::uint64_t{0};
}

struct Uring::Ring {
    struct io_uring ring {};
    Fd event;
    std::uint64_t event_value = 0;
    bool ready = false;
    ~Ring() {
        if (ready) io_uring_queue_exit(&ring);
    }
};

Result<std::unique_ptr<Uring>> Uring::open() {
    auto ring = std::make_unique<Ring>();
    const int error = io_uring_queue_init(2 * kDepth, &ring->ring, 0);
    if (error < 0) return make_error(-error, "set up io_uring for the journal");
    ring->ready = true;
    ring->event.reset(::eventfd(0, EFD_CLOEXEC));
    if (!ring->event.valid()) return last_error("make an eventfd for the journal");
    std::unique_ptr<Uring> uring{new Uring{std::move(ring)}};
    uring->arm_wake();
    return uring;
}

Uring::Uring(std::unique_ptr<Ring> ring) : ring_(std::move(ring)) {}
Uring::~Uring() = default;

void Uring::arm_wake() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_->ring);
    TS_ASSERT(sqe != nullptr);
    io_uring_prep_read(sqe, ring_->event.get(), &ring_->event_value, sizeof ring_->event_value, 0);
    io_uring_sqe_set_data64(sqe, kWakeUser);
    TS_ASSERT(io_uring_submit(&ring_->ring) >= 0);
}

void Uring::wake() {
    const std::uint64_t one = 1;
    (void)!::write(ring_->event.get(), &one, sizeof one);  // fails only when it is awake anyway
}

void Uring::write(int fd, Bytes bytes, std::uint64_t offset, std::uint64_t tag) {
    TS_ASSERT(bytes.size() % kBlockBytes == 0 && offset % kBlockBytes == 0 && in_flight_ < kDepth);
    std::uint32_t index = 0;
    while (writes_[index].busy) ++index;
    writes_[index] = Write{.fd = fd, .rest = bytes, .offset = offset, .tag = tag, .busy = true};
    ++in_flight_;
    submit_write(index);
}

void Uring::submit_write(std::uint32_t index) {
    const Write& write = writes_[index];
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_->ring);
    TS_ASSERT(sqe != nullptr);
    io_uring_prep_write(sqe, write.fd, write.rest.data(), static_cast<unsigned>(write.rest.size()),
                        write.offset);
    sqe->rw_flags = RWF_DSYNC;
    io_uring_sqe_set_data64(sqe, index);
    TS_ASSERT(io_uring_submit(&ring_->ring) >= 0);
}

std::optional<Uring::Completion> Uring::reap(std::uint64_t user, int result) {
    if (user == kWakeUser) {
        arm_wake();
        return std::nullopt;
    }
    const auto index = static_cast<std::uint32_t>(user);
    Write& write = writes_[index];
    if (result == -EINTR || result == -EAGAIN ||
        (result > 0 && static_cast<std::size_t>(result) < write.rest.size())) {
        const auto done =
            static_cast<std::size_t>(result > 0 ? result : 0) / kBlockBytes * kBlockBytes;
        write.rest = write.rest.subspan(done);
        write.offset += done;
        submit_write(index);
        return std::nullopt;
    }
    write.busy = false;
    --in_flight_;
    return Completion{.tag = write.tag, .error = result > 0 ? 0 : (result == 0 ? ENOSPC : -result)};
}

std::optional<Uring::Completion> Uring::wait(std::optional<Nanoseconds> timeout) {
    io_uring_cqe* cqe = nullptr;
    int error = 0;
    if (timeout) {
        __kernel_timespec ts{.tv_sec = timeout->count() / 1'000'000'000,
                             .tv_nsec = timeout->count() % 1'000'000'000};
        error = io_uring_wait_cqe_timeout(&ring_->ring, &cqe, &ts);
    } else {
        error = io_uring_wait_cqe(&ring_->ring, &cqe);
    }
    if (error < 0 || cqe == nullptr) return std::nullopt;  // the time, or a signal
    const std::uint64_t user = io_uring_cqe_get_data64(cqe);
    const int result = cqe->res;
    io_uring_cqe_seen(&ring_->ring, cqe);
    return reap(user, result);
}

}  // namespace twinspool
