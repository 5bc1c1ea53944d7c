// SPDX-License-Identifier: Apache-2.0
// Gate: every change of the volume passes it, side by side with all others; now and then somebody
// closes it for a moment, to be alone with a tree and a journal in which nothing is half done.
//
// Invariant: between close() and open() no thread is inside. Threads: any; a thread is inside once
// at a time. No shared cache line on the way in: each thread counts in one of kLanes lanes. Order:
// the gate comes before every object's lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

namespace twinspool {

class Gate {
   public:
    void enter();
    void leave();

    // Waits for all who are inside, keeps others out until open(). They are let in quickly: who
    // closes it must not wait for a request.
    void close();
    void open();

   private:
    static constexpr std::size_t kLanes = 32;
    struct alignas(64) Lane {
        std::atomic<std::uint32_t> inside{0};
    };
    Lane& lane();
    std::array<Lane, kLanes> lanes_;
    std::atomic<std::uint32_t> closed_{0};
    std::mutex closing_;  // one closes it at a time; held from close() to open()
};

class GatePass {
   public:
    explicit GatePass(Gate& gate) : gate_(gate) { gate_.enter(); }
    ~GatePass() { gate_.leave(); }
    GatePass(const GatePass&) = delete;
    GatePass& operator=(const GatePass&) = delete;

   private:
    Gate& gate_;
};

}  // namespace twinspool
