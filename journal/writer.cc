// SPDX-License-Identifier: Apache-2.0
#include "journal/writer.h"

#include <fcntl.h>

#include <algorithm>

#include "journal/clock.h"
#include "journal/fault.h"

namespace twinspool {

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
    commit_.observe(*this);
    thread_ = std::thread{[this] { run(); }};
    return {};
}

void Writer::stop() {
    if (!thread_.joinable()) return;
    stopping_ = true;
    ring_->wake();
    thread_.join();
    commit_.unobserve(*this);
}

void Writer::push() {
    pushed_ = true;
    ring_->wake();
}

void Writer::grew(Filling::Grew grew) {
    if (grew != Filling::Grew::kNo && asleep_.load()) ring_->wake();
}

void Writer::wanted_rose() {
    if (asleep_.load()) ring_->wake();
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
        pushed_ = false;
        return false;
    }
    if (commit_.wanted() > sealed_ || stopping_ || pushed_.exchange(false)) return true;
    const auto now = Clock::now();
    if (!linger_until_) linger_until_ = now + at_.linger;
    return now >= *linger_until_;
}

std::optional<Nanoseconds> Writer::patience() const {
    if (in_flight_ || !linger_until_) return std::nullopt;
    return std::max(Nanoseconds{1}, Nanoseconds{*linger_until_ - Clock::now()});
}

int Writer::free_slot() const {
    for (std::uint32_t i = 0; i < kSealedSlots; ++i)
        if (!pinned_[i].load(std::memory_order_acquire)) return static_cast<int>(i);
    return -1;
}

void Writer::run() {
    while (commit_.failure() == 0) {
        const bool sealing = should_seal();
        const int slot = sealing ? free_slot() : -1;
        if (slot >= 0) {
            if (const auto sealed = seal(static_cast<std::uint32_t>(slot)); !sealed.ok())
                fail(sealed.error());
            continue;
        }
        if (stopping_ && !in_flight_ && !filling_.has_open_records() && !filling_.has_closed())
            return;
        // Who appends or waits after this store wakes us; who did so before is seen in
        // should_seal().
        asleep_ = true;
        if (sealing || !should_seal()) {
            // When sealing, only a link that lets go of a slot can help, and that wakes us.
            if (const auto completion = ring_->wait(sealing ? std::nullopt : patience()))
                completed(*completion);
        }
        asleep_ = false;
    }
    if (in_flight_) (void)ring_->wait(std::nullopt);  // its bytes are the kernel's until then
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

Status Writer::seal(std::uint32_t slot) {
    linger_until_.reset();
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
    at_.end.chain = place_frame({sealed.bytes, size}, at_.next);
    at_.end.lsn = sealed_ = closed.first + (closed.count - 1);
    sealed.size.store(size, std::memory_order_release);
    TS_FAULT(writer_sealed);
    filling_.free_oldest();
    pinned_[slot].store(true, std::memory_order_relaxed);
    in_flight_ = std::shared_ptr<const SealedFrame>(
        new SealedFrame{closed.first, sealed_, Bytes{sealed.bytes, size}},
        [ring = ring_.get(), pinned = &pinned_[slot]](const SealedFrame* frame) {
            delete frame;  // NOLINT(cppcoreguidelines-owning-memory)
            pinned->store(false, std::memory_order_release);
            ring->wake();  // a slot may be what the writer waits for
        });
    ring_->write(segment_->fd.get(), Bytes{sealed.bytes, blocks * kBlockBytes},
                 std::uint64_t{at_.next.block} * kBlockBytes, 0);
    at_.next.block += static_cast<std::uint32_t>(blocks);
    const std::lock_guard lock{sinks_mutex_};
    for (FrameSink* sink : sinks_) sink->offer(in_flight_);
    TS_FAULT(writer_submitted);
    return {};
}

void Writer::completed(const Uring::Completion& completion) {
    if (completion.error != 0) {
        fail(make_error(completion.error, "write the journal"));
        return;
    }
    TS_FAULT(writer_durable);
    const Lsn last = in_flight_->last;
    in_flight_.reset();
    frames_.fetch_add(1, std::memory_order_relaxed);
    commit_.local_durable(last);
}

void Writer::fail(const Error& error) {
    in_flight_.reset();
    commit_.fail(error.code == 0 ? EIO : error.code);
    filling_.abandon();
}

}  // namespace twinspool
