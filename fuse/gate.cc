// SPDX-License-Identifier: Apache-2.0
#include "fuse/gate.h"

#include <thread>

namespace twinspool {
namespace {

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

void Gate::close() {
    closing_.lock();
    closed_.store(1, std::memory_order_seq_cst);
    for (Lane& each : lanes_)
        while (each.inside.load(std::memory_order_acquire) != 0) std::this_thread::yield();
}

void Gate::open() {
    closed_.store(0, std::memory_order_seq_cst);
    closed_.notify_all();
    closing_.unlock();
}

}  // namespace twinspool
