// SPDX-License-Identifier: Apache-2.0
// Filling: the frames that records are being appended to, in the tail's memory.
//
// Appending is one compare-and-swap that reserves an Lsn and the bytes, a copy, and two stores: no
// lock, no allocation. `state` of a slot packs closed:1 | serial:15 | count:16 | bytes:32. Who
// finds the slot too full closes it and opens the next; the writer closes the newest when it wants
// to seal it. Slots are taken and freed by the writer in order.
//
// Invariant: credit bounds what may be reserved, so that a free slot is always there: two slots
// closed for fullness one after the other hold more than one slot's bytes together, hence at most
// 2 * kCreditBytes / kMaxFramePayload + 1 of them wait, and kFillingSlots is larger by three.
// Threads: reserve/complete/credit any; close_newest/oldest_closed/free the writer's.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <span>

#include "journal/base/units.h"
#include "journal/format/op.h"
#include "journal/log/tail.h"

namespace twinspool {

inline constexpr std::size_t kCreditBytes = 10 * kMaxFramePayload;
static_assert(2 * kCreditBytes / kMaxFramePayload + 1 + 3 <= kFillingSlots);

class Filling {
   public:
    struct Place {
        Lsn lsn;
        std::span<std::byte> bytes;
        std::uint32_t slot = 0;
        std::uint32_t index = 0;
    };
    // A closed slot with all its records complete.
    struct Closed {
        Lsn first;
        std::uint32_t count = 0;
        Bytes payload;
    };
    enum class Grew : std::uint8_t { kNo, kFirstRecord, kClosedSlot };

    Filling(TailLayout& tail, Lsn next);

    // `grew`: what the writer may have to be woken for.
    Place reserve(std::size_t size, Grew& grew);
    void complete(const Place& place);
    [[nodiscard]] Lsn appended() const;

    // --- writer
    // Closes the newest slot if it holds anything.
    void close_newest();
    // Something closed waits to be taken.
    [[nodiscard]] bool has_closed() const;
    // Records stand in the newest slot.
    [[nodiscard]] bool has_open_records() const;
    // How much stands there.
    [[nodiscard]] std::size_t open_bytes() const;
    // The oldest closed slot; waits for appenders that are still copying. Call has_closed() first.
    Closed oldest_closed();
    // It is encoded; its bytes are credit again.
    void free_oldest();

    // --- credit
    [[nodiscard]] bool try_take_credit(std::size_t bytes);
    [[nodiscard]] bool take_credit(std::size_t bytes);
    void give_credit(std::size_t bytes);
    void when_credit(std::function<void()> resume);
    void abandon();  // the journal has failed: all who wait for credit go on (and fail)

   private:
    struct Slot {
        std::atomic<std::uint64_t> state{kClosedBit};
        std::atomic<std::uint32_t> completed{0};
        std::atomic<std::uint64_t> first_lsn{0};
    };
    static constexpr std::uint64_t kClosedBit = std::uint64_t{1} << 63;
    static constexpr std::uint64_t kSerialMask = std::uint64_t{0x7fff} << 48;
    static constexpr std::uint64_t opened(std::uint64_t serial) {
        return (serial << 48) & kSerialMask;
    }
    static std::uint32_t count_of(std::uint64_t state) {
        return static_cast<std::uint32_t>(state >> 32) & 0xffff;
    }
    static std::uint32_t bytes_of(std::uint64_t state) { return static_cast<std::uint32_t>(state); }
    Slot& slot(std::uint64_t serial) { return slots_[serial % kFillingSlots]; }
    const Slot& slot(std::uint64_t serial) const { return slots_[serial % kFillingSlots]; }
    void wake_waiting();
    void open_after(std::uint64_t serial, std::uint64_t closed_state);

    TailLayout& tail_;
    std::array<Slot, kFillingSlots> slots_;
    std::atomic<std::uint64_t> newest_{0};  // serial of the slot being filled
    std::atomic<std::uint64_t> oldest_{0};  // serial of the first not freed
    std::atomic<std::int64_t> credit_{static_cast<std::int64_t>(kCreditBytes)};
    std::atomic<bool> abandoned_{false};
    std::mutex parked_mutex_;  // protects parked_, and who sleeps in take_credit()
    std::condition_variable credit_came_;
    std::deque<std::function<void()>> parked_;
    std::atomic<std::uint32_t> waiting_{0};  // parked and sleeping
};

}  // namespace twinspool
