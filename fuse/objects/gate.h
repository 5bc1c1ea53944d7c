// SPDX-License-Identifier: Apache-2.0
// Gate: every change of the volume passes it, side by side with all others; now and then somebody
// closes it for a moment, to be alone with a tree and a journal in which nothing is half done.
//
// Invariant: while it is closed no thread is inside. Threads: any; a thread is inside once at a
// time. No shared cache line on the way in: each thread counts in one of kLanes lanes. Order: the
// gate comes before every object's lock.
//
// Who is inside may be slow (a write that the disk throttles), or wait for credit that is held by
// who waits at the gate. So nobody is kept out until those inside have left, however long that
// takes: who closes it has a limited patience, lets the others pass, and tries again.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "journal/base/units.h"

namespace twinspool {

class Gate {
   public:
    void enter();
    void leave();

    struct Attempt {
        bool closed = false;     // and stays so until open(); otherwise all may pass again
        Nanoseconds kept_out{};  // how long others were kept out, if it did not succeed
    };
    // Keeps others out and waits for all who are inside, at most so long. Who has closed it must
    // not wait for a request, for credit, or for a disk.
    [[nodiscard]] Attempt try_close(Nanoseconds patience);
    // The same until it succeeds.
    void close();
    // How long others were kept out.
    Nanoseconds open();

   private:
    static constexpr std::size_t kLanes = 32;
    struct alignas(64) Lane {
        std::atomic<std::uint32_t> inside{0};
    };
    Lane& lane();
    [[nodiscard]] bool wait_empty(Nanoseconds patience) const;
    std::array<Lane, kLanes> lanes_;
    std::atomic<std::uint32_t> closed_{0};
    std::mutex closing_;  // one closes it at a time; held from try_close() to open()
    std::chrono::steady_clock::time_point closed_since_;  // closing_ held
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
