// SPDX-License-Identifier: Apache-2.0
#include "journal/log/filling.h"

#include <thread>
#include <utility>

namespace twinspool {

Filling::Filling(TailLayout& tail, Lsn next) : tail_(tail) {
    slots_[0].first_lsn = next.value;
    tail_.filling[0].first_lsn = next.value;
    slots_[0].state = opened(0);
}

Filling::Place Filling::reserve(std::size_t size, Grew& grew) {
    TS_ASSERT(size <= kMaxFramePayload);
    grew = Grew::kNo;
    for (;;) {
        const std::uint64_t serial = newest_.load(std::memory_order_acquire);
        Slot& at = slot(serial);
        std::uint64_t state = at.state.load(std::memory_order_acquire);
        const std::uint64_t first = at.first_lsn.load(std::memory_order_acquire);
        // Closed, and perhaps freed and opened again meanwhile: its serial tells.
        if ((state & (kClosedBit | kSerialMask)) != opened(serial)) {
            std::this_thread::yield();
            continue;
        }
        const std::uint32_t count = count_of(state);
        const std::uint32_t used = bytes_of(state);
        if (used + size > kMaxFramePayload || count == kMaxRecordsPerFrame) {
            if (at.state.compare_exchange_strong(state, state | kClosedBit)) {
                open_after(serial, state);
                grew = Grew::kClosedSlot;
            }
            continue;
        }
        const std::uint64_t next = state + (std::uint64_t{1} << 32) + size;
        if (!at.state.compare_exchange_weak(state, next)) continue;
        if (count == 0 && grew == Grew::kNo) grew = Grew::kFirstRecord;
        const auto index = static_cast<std::uint32_t>(serial % kFillingSlots);
        return {.lsn = Lsn{first + count},
                .bytes = {tail_.filling[index].payload + used, size},
                .slot = index,
                .index = count};
    }
}

void Filling::complete(const Place& place) {
    FillingFrame& frame = tail_.filling[place.slot];
    const auto offset = static_cast<std::uint64_t>(place.bytes.data() - frame.payload);
    frame.complete[place.index].store((frame.first_lsn << 24) | offset, std::memory_order_release);
    slots_[place.slot].completed.fetch_add(1, std::memory_order_release);
}

// Only who closed `serial` calls this, so there is one at a time.
void Filling::open_after(std::uint64_t serial, std::uint64_t closed_state) {
    TS_ASSERT(serial + 1 - oldest_.load(std::memory_order_acquire) < kFillingSlots);
    const std::uint64_t first = slot(serial).first_lsn + count_of(closed_state);
    Slot& next = slot(serial + 1);
    next.first_lsn.store(first, std::memory_order_release);
    next.completed.store(0, std::memory_order_release);
    tail_.filling[(serial + 1) % kFillingSlots].first_lsn = first;
    next.state.store(opened(serial + 1), std::memory_order_release);
    newest_.store(serial + 1);  // sequentially consistent: the writer looks when it is not busy
}

Lsn Filling::appended() const {
    for (;;) {
        const std::uint64_t serial = newest_.load(std::memory_order_acquire);
        const std::uint64_t state = slot(serial).state.load(std::memory_order_acquire);
        const std::uint64_t first = slot(serial).first_lsn.load(std::memory_order_acquire);
        if (newest_.load(std::memory_order_acquire) == serial)
            return Lsn{first + count_of(state) - 1};
    }
}

void Filling::close_newest() {
    const std::uint64_t serial = newest_.load(std::memory_order_acquire);
    Slot& at = slot(serial);
    std::uint64_t state = at.state.load(std::memory_order_acquire);
    while ((state & kClosedBit) == 0 && count_of(state) > 0)
        if (at.state.compare_exchange_weak(state, state | kClosedBit)) {
            open_after(serial, state);
            return;
        }
}

bool Filling::has_closed() const { return oldest_.load() < newest_.load(); }

bool Filling::has_open_records() const {
    // One that is closed has a successor in a moment; until then there is nothing to close.
    const std::uint64_t state = slot(newest_.load(std::memory_order_acquire)).state.load();
    return (state & kClosedBit) == 0 && count_of(state) > 0;
}

std::size_t Filling::open_bytes() const {
    return bytes_of(slot(newest_.load(std::memory_order_acquire)).state.load());
}

Filling::Closed Filling::oldest_closed() {
    const std::uint64_t serial = oldest_.load(std::memory_order_relaxed);
    Slot& at = slot(serial);
    const std::uint64_t state = at.state.load(std::memory_order_acquire);
    TS_ASSERT((state & (kClosedBit | kSerialMask)) == (opened(serial) | kClosedBit));
    while (at.completed.load(std::memory_order_acquire) < count_of(state))
        std::this_thread::yield();
    return {.first = Lsn{at.first_lsn},
            .count = count_of(state),
            .payload = {tail_.filling[serial % kFillingSlots].payload, bytes_of(state)}};
}

void Filling::free_oldest() {
    const std::uint64_t serial = oldest_.load(std::memory_order_relaxed);
    const std::uint32_t bytes = bytes_of(slot(serial).state.load());
    oldest_.store(serial + 1, std::memory_order_release);
    give_credit(bytes);
}

bool Filling::try_take_credit(std::size_t bytes) {
    const auto amount = static_cast<std::int64_t>(bytes);
    std::int64_t there = credit_.load();
    while (!abandoned_.load(std::memory_order_acquire) && there >= amount)
        if (credit_.compare_exchange_weak(there, there - amount)) return true;
    return false;
}

bool Filling::take_credit(std::size_t bytes) {
    while (!try_take_credit(bytes)) {
        std::unique_lock lock{parked_mutex_};
        ++waiting_;
        if (!abandoned_ && credit_.load() < static_cast<std::int64_t>(bytes))
            credit_came_.wait(lock);
        --waiting_;
        if (abandoned_) return false;
    }
    return true;
}

void Filling::give_credit(std::size_t bytes) {
    credit_.fetch_add(static_cast<std::int64_t>(bytes));
    if (waiting_.load() != 0) wake_waiting();
}

// Parked requests try again; so do sleeping threads.
void Filling::wake_waiting() {
    std::deque<std::function<void()>> resumed;
    {
        const std::lock_guard lock{parked_mutex_};
        resumed.swap(parked_);
        waiting_ -= static_cast<std::uint32_t>(resumed.size());
        credit_came_.notify_all();
    }
    for (const auto& resume : resumed) resume();
}

void Filling::when_credit(std::function<void()> resume) {
    {
        const std::lock_guard lock{parked_mutex_};
        ++waiting_;
        // Looked at after being counted, so that credit that comes now either is seen or wakes us.
        // Less than enough for any record means that somebody holds some, who will give it back.
        if (!abandoned_ && credit_.load() < static_cast<std::int64_t>(kMaxFramePayload)) {
            parked_.push_back(std::move(resume));
            return;
        }
        --waiting_;
    }
    resume();
}

void Filling::abandon() {
    abandoned_ = true;
    wake_waiting();
}

}  // namespace twinspool
