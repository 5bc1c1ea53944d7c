// SPDX-License-Identifier: Apache-2.0
// Writer: seals the frame that is being filled as soon as no frame is in flight and somebody waits
// (or the slot is full, or `linger` has passed), offers its bytes to the links and writes them to
// the segment at the same time.
//
// Who wants a commit while nothing is in flight seals a small frame itself, so that it is on its
// way to the standbys before any other thread has woken up; the writer's own thread only writes it.
// While a frame is in flight it does all: the next is sealed at the instant this one is durable,
// before anybody is answered. Between frames it dozes for `linger` before it sleeps, so that the
// first record of the next frame need not wake it.
//
// Invariants: at most one frame is in flight, so frames become durable in order; a frame is whole
// in the tail before it is submitted, and stays there until it is durable; the raw records are
// freed only then. Threads: start/stop by the owner; push/attach/detach/grew/wanted_rose any.
// Lock: `turn_mutex_` protects what is sealed and in flight; taken with no lock held but an
// object's; the links' locks are taken under it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "journal/format/frame.h"
#include "journal/log/commit.h"
#include "journal/log/filling.h"
#include "journal/log/journal.h"
#include "journal/log/segment.h"
#include "journal/log/uring.h"

namespace twinspool {

// The segments in use, oldest first, with the first Lsn of each. Any thread.
class SegmentLedger {
   public:
    void add(SegmentNumber number, Lsn first);
    [[nodiscard]] Lsn oldest() const;
    // Removes from the ledger, and returns, those that hold nothing from `keep_from` on. Never the
    // newest.
    std::vector<SegmentNumber> take_below(Lsn keep_from);

   private:
    struct Entry {
        SegmentNumber number;
        Lsn first;
    };
    mutable std::mutex mutex_;
    std::vector<Entry> entries_;
};

// What every frame header says; changed by others while the writer runs.
struct WriterStamp {
    std::atomic<std::uint64_t> checkpoint{0};
    std::atomic<std::uint32_t> generation{0};
    std::atomic<std::uint32_t> seeded{0};
    std::atomic<std::int64_t> suspect_from{0};
};

class Writer final : public Commit::Sealer {
   public:
    struct Start {
        Position end;
        FramePlace next;
        Epoch epoch;
        std::uint64_t volume = 0;
        Nanoseconds linger{};
    };
    Writer(TailLayout& tail, Filling& filling, Commit& commit, SegmentFolder& folder,
           SegmentLedger& ledger, const WriterStamp& stamp);
    ~Writer() override;

    Status start(const Start& start);
    // Everything appended is durable (or has failed) when it returns; the thread has ended.
    void stop();
    void push();
    void grew(Filling::Grew grew);
    void attach(FrameSink& sink);
    void detach(FrameSink& sink);
    [[nodiscard]] std::uint64_t frames() const { return frames_.load(std::memory_order_relaxed); }

   private:
    using Clock = std::chrono::steady_clock;
    void wanted_rose() override;
    void run();
    void completed(const Uring::Completion& completion);
    void fail(const Error& error);
    // The next ones with turn_mutex_ held.
    [[nodiscard]] bool should_seal();
    [[nodiscard]] bool is_small() const;
    [[nodiscard]] int free_slot() const;
    [[nodiscard]] bool is_done() const;
    void seal_for_who_waits();
    Status seal(std::uint32_t slot);
    void offer();
    Status make_room(std::size_t blocks);
    Status seal_and_submit();
    std::optional<Nanoseconds> prepare_to_rest();
    [[nodiscard]] Nanoseconds patience() const;

    TailLayout& tail_;
    Filling& filling_;
    Commit& commit_;
    SegmentFolder& folder_;
    SegmentLedger& ledger_;
    const WriterStamp& stamp_;
    std::unique_ptr<Uring> ring_;  // the writer's thread's, but for wake()

    std::mutex turn_mutex_;
    Start at_;
    std::optional<Segment> segment_;
    // Of each sealed slot: in use until the local write is complete and the links have let go.
    std::array<std::atomic<bool>, kSealedSlots> pinned_{};
    std::shared_ptr<const SealedFrame> in_flight_;
    FramePlace place_{};      // its own
    bool submitted_ = false;  // it is being written
    bool worked_ = false;     // a frame has been written since the last doze
    bool dozed_ = false;      // records that came meanwhile have waited long enough
    Lsn sealed_;
    std::optional<Clock::time_point> linger_until_;

    // A frame is in flight. Who finds that there is none has to see to what he wants himself;
    // otherwise who ends it sees that it is wanted. Hence sequentially consistent, as are the next.
    std::atomic<bool> busy_{false};
    std::atomic<bool> asleep_{false};  // until somebody wakes it
    std::atomic<bool> waits_for_slot_{false};
    std::atomic<bool> pushed_{false};
    std::atomic<bool> stopping_{false};
    std::atomic<std::uint64_t> frames_{0};
    std::mutex sinks_mutex_;  // protects sinks_; held while they are offered a frame
    std::vector<FrameSink*> sinks_;
    std::thread thread_;
};

}  // namespace twinspool
