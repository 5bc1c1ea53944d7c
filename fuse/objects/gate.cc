// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/gate.h"

#include <thread>

namespace twinspool {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// Most who are inside leave within microseconds; whoever has not by then gets the processor.
constexpr Nanoseconds kYieldFor = 200us;
constexpr Nanoseconds kNap = 50us;
// close(): so long others are kept out at once, and so long they may pass in between.
constexpr Nanoseconds kPatience = 100ms;
constexpr Nanoseconds kRespite = 10ms;

std::atomic<std::uint32_t> next_lane{0};
thread_local const std::uint32_t own_lane = next_lane.fetch_add(1, std::memory_order_relaxed);

}  // namespace

Gate::Lane& Gate::lane() { return lanes_[own_lane % kLanes]; }

void Gate::enter() {
    Lane& own = lane();
    for (;;) {
        own.inside.fetch_add(1, std::memory_order_seq_cst);
        if (closed_.load(std::memory_order_seq_cst) == 0) return;
        own.inside.fetch_sub(1, std::memory_order_release);
        closed_.wait(1);
    }
}

void Gate::leave() { lane().inside.fetch_sub(1, std::memory_order_release); }

bool Gate::wait_empty(Nanoseconds patience) const {
    for (const Lane& each : lanes_)
        while (each.inside.load(std::memory_order_acquire) != 0) {
            const Nanoseconds waited = Clock::now() - closed_since_;
            if (waited >= patience) return false;
            if (waited < kYieldFor)
                std::this_thread::yield();
            else
                std::this_thread::sleep_for(kNap);
        }
    return true;
}

Gate::Attempt Gate::try_close(Nanoseconds patience) {
    closing_.lock();
    closed_since_ = Clock::now();
    closed_.store(1, std::memory_order_seq_cst);
    if (wait_empty(patience)) return {.closed = true};
    return {.closed = false, .kept_out = open()};
}

void Gate::close() {
    while (!try_close(kPatience).closed) std::this_thread::sleep_for(kRespite);
}

Nanoseconds Gate::open() {
    closed_.store(0, std::memory_order_seq_cst);
    closed_.notify_all();
    const Nanoseconds kept_out = Clock::now() - closed_since_;
    closing_.unlock();
    return kept_out;
}

}  // namespace twinspool
