// SPDX-License-Identifier: Apache-2.0
#include "journal/log/writer.h"

#include <fcntl.h>

#include <algorithm>

#include "journal/base/clock.h"
#include "journal/base/fault.h"

namespace twinspool {
namespace {
// What a thread that has other requests to serve may encode in passing.
constexpr std::size_t kSmallFrame_bytes = std::size_t{64} << 10;
}  // namespace

void SegmentLedger::add(SegmentNumber number, Lsn first) {
    const std::lock_guard lock{mutex_};
    entries_.push_back({number, first});
}

Lsn SegmentLedger::oldest() const {
    const std::lock_guard lock{mutex_};
    return entries_.empty() ? Lsn{1} : entries_.front().first;
}

std::vector<SegmentNumber> SegmentLedger::take_below(Lsn keep_from) {
    const std::lock_guard lock{mutex_};
    std::vector<SegmentNumber> taken;
    while (entries_.size() > 1 && entries_[1].first <= keep_from) {
        taken.push_back(entries_.front().number);
        entries_.erase(entries_.begin());
    }
    return taken;
}

Writer::Writer(TailLayout& tail, Filling& filling, Commit& commit, SegmentFolder& folder,
               SegmentLedger& ledger, const WriterStamp& stamp)
    : tail_(tail),
      filling_(filling),
      commit_(commit),
      folder_(folder),
      ledger_(ledger),
      stamp_(stamp) {}

Writer::~Writer() { stop(); }

Status Writer::start(const Start& start) {
    at_ = start;
    sealed_ = start.end.lsn;
    TS_ASSIGN(ring_, Uring::open());
    if (at_.next.block != 0) {
        TS_ASSIGN(segment_, open_segment(segment_path(folder_.directory(), at_.next.segment),
                                         at_.volume, O_RDWR));
    }
    commit_.seal_by(*this);
    thread_ = std::thread{[this] { run(); }};
    return {};
}

void Writer::stop() {
    if (!thread_.joinable()) return;
    stopping_ = true;
    ring_->wake();
    thread_.join();
}

void Writer::push() {
    pushed_ = true;
    ring_->wake();
}

void Writer::grew(Filling::Grew grew) {
    if (grew == Filling::Grew::kNo || busy_) return;
    // A doze ends soon enough for a first record.
    if (grew == Filling::Grew::kClosedSlot || asleep_) ring_->wake();
}

void Writer::wanted_rose() {
    if (busy_) return;
    {
        const std::lock_guard turn{turn_mutex_};
        if (in_flight_) return;
        if (!stopping_ && commit_.failure() == 0 && is_small() && should_seal())
            seal_for_who_waits();
    }
    ring_->wake();
}

// What turns out to be large, or has no slot, is left to the writer's thread: it waits for disks.
void Writer::seal_for_who_waits() {
    const int slot = free_slot();
    if (slot < 0) return;
    filling_.close_newest();
    if (filling_.oldest_closed().payload.size() > kSmallFrame_bytes) return;
    TS_ASSERT(seal(static_cast<std::uint32_t>(slot)).ok());  // there is room in the segment
    offer();
}

void Writer::attach(FrameSink& sink) {
    const std::lock_guard lock{sinks_mutex_};
    sinks_.push_back(&sink);
}

void Writer::detach(FrameSink& sink) {
    const std::lock_guard lock{sinks_mutex_};
    std::erase(sinks_, &sink);
}

bool Writer::should_seal() {
    if (in_flight_) return false;
    if (filling_.has_closed()) return true;
    if (!filling_.has_open_records()) {
        linger_until_.reset();
        dozed_ = pushed_ = false;
        return false;
    }
    if (commit_.wanted() > sealed_ || stopping_ || pushed_) return true;
    const auto now = Clock::now();
    if (!linger_until_) linger_until_ = dozed_ ? now : now + at_.linger;
    return now >= *linger_until_;
}

// Made in a moment, and it needs no new segment: whoever waits for it may make it.
bool Writer::is_small() const {
    const std::size_t bytes = filling_.open_bytes();
    return segment_ && !filling_.has_closed() && bytes <= kSmallFrame_bytes &&
           at_.next.block + blocks_for(sizeof(FrameHeader) + 2 * kSmallFrame_bytes) <=
               segment_->blocks();
}

Nanoseconds Writer::patience() const {
    return std::max(Nanoseconds{1}, Nanoseconds{*linger_until_ - Clock::now()});
}

int Writer::free_slot() const {
    for (std::uint32_t i = 0; i < kSealedSlots; ++i)
        if (!pinned_[i]) return static_cast<int>(i);
    return -1;
}

bool Writer::is_done() const {
    return stopping_ && !in_flight_ && !filling_.has_open_records() && !filling_.has_closed();
}

void Writer::run() {
    while (commit_.failure() == 0) {
        Status status;
        std::optional<Nanoseconds> limit;
        {
            const std::lock_guard turn{turn_mutex_};
            status = seal_and_submit();
            if (is_done()) return;
            if (status.ok()) limit = prepare_to_rest();
        }
        if (!status.ok()) {
            fail(status.error());
            break;
        }
        const auto completion = ring_->wait(limit);
        asleep_ = false;
        if (completion) completed(*completion);
    }
    while (ring_->in_flight() > 0) (void)ring_->wait(std::nullopt);  // the bytes are the kernel's
}

Status Writer::seal_and_submit() {
    waits_for_slot_ = false;
    const bool sealing = should_seal();
    if (sealing) {
        waits_for_slot_ = true;  // before looking: who lets go of one looks at it afterwards
        const int slot = free_slot();
        if (slot < 0) return {};
        waits_for_slot_ = false;
        TS_TRY(seal(static_cast<std::uint32_t>(slot)));
    }
    if (!in_flight_ || submitted_) return {};
    submitted_ = true;
    const std::size_t bytes = blocks_for(in_flight_->bytes.size()) * kBlockBytes;
    ring_->write(segment_->fd.get(), Bytes{in_flight_->bytes.data(), bytes},
                 std::uint64_t{place_.block} * kBlockBytes, 0);
    if (sealing) offer();
    TS_FAULT(writer_submitted);
    return {};
}

void Writer::offer() {
    const std::lock_guard lock{sinks_mutex_};
    for (FrameSink* sink : sinks_) sink->offer(in_flight_);
}

// How long at most; nothing: until somebody wakes us or the frame is durable.
std::optional<Nanoseconds> Writer::prepare_to_rest() {
    if (in_flight_ || waits_for_slot_) return std::nullopt;
    if (linger_until_) return patience();
    dozed_ = std::exchange(worked_, false);
    if (dozed_) return at_.linger;
    // Who appends or waits after this store wakes us; who did so before is seen here.
    asleep_ = true;
    if (should_seal()) return Nanoseconds{1};
    if (linger_until_) return patience();
    return std::nullopt;
}

Status Writer::make_room(std::size_t blocks) {
    if (segment_ && at_.next.block + blocks <= segment_->blocks()) return {};
    const SegmentNumber number = next(at_.next.segment);
    TS_ASSIGN(segment_, folder_.begin({.volume = at_.volume,
                                       .number = number,
                                       .first = sealed_ + 1,
                                       .previous = at_.end.chain,
                                       .epoch = at_.epoch}));
    ledger_.add(number, sealed_ + 1);
    at_.next = FramePlace{number, 1};
    TS_FAULT(writer_new_segment);
    return {};
}

// From here on the frame is in flight: the writer's thread submits it, who sealed it offers it.
Status Writer::seal(std::uint32_t slot) {
    busy_ = true;  // nobody waits for the turn of who may be waiting for a disk
    linger_until_.reset();
    dozed_ = pushed_ = false;
    if (!filling_.has_closed()) filling_.close_newest();
    const Filling::Closed closed = filling_.oldest_closed();
    SealedSlot& sealed = tail_.sealed[slot];
    sealed.size.store(0, std::memory_order_release);
    const FrameContext context{.volume = at_.volume,
                               .epoch = at_.epoch,
                               .committed = commit_.committed(),
                               .checkpoint = Lsn{stamp_.checkpoint},
                               .time = wall_time(),
                               .previous = at_.end.chain,
                               .generation = stamp_.generation,
                               .seeded = stamp_.seeded,
                               .suspect_from = WallTime{stamp_.suspect_from.load()}};
    const std::size_t size =
        encode_frame(context, closed.first, closed.count, closed.payload, sealed.bytes);
    const std::size_t blocks = blocks_for(size);
    TS_TRY(make_room(blocks));
    place_ = at_.next;
    at_.end.chain = place_frame({sealed.bytes, size}, place_);
    at_.end.lsn = sealed_ = closed.first + (closed.count - 1);
    at_.next.block += static_cast<std::uint32_t>(blocks);
    sealed.size.store(size, std::memory_order_release);
    TS_FAULT(writer_sealed);
    pinned_[slot] = true;
    in_flight_ = std::shared_ptr<const SealedFrame>(
        new SealedFrame{closed.first, sealed_, Bytes{sealed.bytes, size}},
        [this, pinned = &pinned_[slot]](const SealedFrame* frame) {
            delete frame;  // NOLINT(cppcoreguidelines-owning-memory)
            *pinned = false;
            if (waits_for_slot_) ring_->wake();
        });
    submitted_ = false;
    filling_.free_oldest();  // what waited for credit may go on here, and finds us busy
    return {};
}

void Writer::completed(const Uring::Completion& completion) {
    if (completion.error != 0) {
        fail(make_error(completion.error, "write the journal"));
        return;
    }
    TS_FAULT(writer_durable);
    Lsn last;
    Status status;
    {
        // The next one goes before those who waited for this one are answered, if it is made at
        // once.
        const std::lock_guard turn{turn_mutex_};
        last = in_flight_->last;
        in_flight_.reset();
        worked_ = true;
        busy_ = false;
        if (is_small()) status = seal_and_submit();
    }
    frames_.fetch_add(1, std::memory_order_relaxed);
    commit_.local_durable(last);
    if (!status.ok()) fail(status.error());
}

void Writer::fail(const Error& error) {
    commit_.fail(error.code == 0 ? EIO : error.code);
    {
        const std::lock_guard turn{turn_mutex_};
        in_flight_.reset();
        busy_ = false;
    }
    filling_.abandon();
}

}  // namespace twinspool
