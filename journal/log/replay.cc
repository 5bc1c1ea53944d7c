// SPDX-License-Identifier: Apache-2.0
// The part of recovery that reads the tail of a killed process.
#include <algorithm>
#include <cstring>
#include <map>

#include "journal/base/clock.h"
#include "journal/base/fault.h"
#include "journal/format/record.h"
#include "journal/log/recovery.h"

namespace twinspool {
namespace {

void inherit_notes(TailLayout& tail) {
    // Already there: a recovery that was itself killed; nothing has been done since.
    if (tail.header.inherited_count == 0) {
        std::uint32_t count = 0;
        for (const Note& note : tail.notes) {
            if (note.active.load() == 0) continue;
            tail.inherited[count++] = note;
        }
        tail.header.inherited_count = count;
    }
    for (Note& note : tail.notes) note.active = 0;
}

Status replay_sealed(TailLayout& tail, std::uint64_t volume, DirectAppender& appender,
                     const JournalEnd& end) {
    std::map<std::uint64_t, Bytes> frames;  // by first Lsn
    for (const SealedSlot& slot : tail.sealed) {
        const std::uint64_t size = slot.size.load(std::memory_order_acquire);
        if (size < sizeof(FrameHeader) || size > kMaxFrameBytes) continue;
        const Bytes bytes{slot.bytes, static_cast<std::size_t>(size)};
        const FrameHeader header = header_of(bytes);
        const FramePlace place{SegmentNumber{header.segment}, header.block};
        if (check_frame(bytes, volume, place).ok()) frames[header.first_lsn] = bytes;
    }
    for (const auto& [first, bytes] : frames)
        if (first == end.end.lsn.value + 1) TS_TRY(appender.append_placed(bytes));
    return {};
}

// The complete records beyond the journal's end, by Lsn.
std::map<std::uint64_t, Bytes> filling_records(const TailLayout& tail, Lsn end) {
    std::map<std::uint64_t, Bytes> records;
    for (const FillingFrame& frame : tail.filling) {
        if (frame.first_lsn == 0) continue;
        for (std::uint32_t i = 0; i < kMaxRecordsPerFrame; ++i) {
            const std::uint64_t stamp = frame.complete[i].load(std::memory_order_acquire);
            const std::uint64_t offset = stamp & 0xffffff;
            if (stamp >> 24 != frame.first_lsn || offset >= kMaxFramePayload) continue;
            const auto record = decode_record(Bytes{frame.payload}.subspan(offset));
            const std::uint64_t lsn = frame.first_lsn + i;
            if (record.ok() && record->lsn.value == lsn && lsn > end.value)
                records[lsn] = record->encoded;
        }
    }
    return records;
}

}  // namespace

Status replay_tail(TailLayout& tail, SegmentFolder& folder, std::uint64_t volume, JournalEnd& end) {
    inherit_notes(tail);
    DirectAppender appender{folder, volume, end};
    TS_TRY(replay_sealed(tail, volume, appender, end));
    TS_FAULT(recovery_replayed);
    // The records of the dead are framed now, but what they say happened before it died.
    const WallTime last_time = end.last_time;
    const auto records = filling_records(tail, end.end.lsn);
    std::vector<std::byte> payload;
    Lsn first = end.end.lsn + 1;
    Lsn next = first;
    const auto flush = [&]() -> Status {
        if (next == first) return {};
        const FrameContext context{.volume = volume,
                                   .epoch = end.epoch,
                                   .committed = end.committed,
                                   .checkpoint = end.checkpoint,
                                   .time = last_time,  // of what is replayed, not of the replay
                                   .previous = end.end.chain,
                                   .generation = end.generation,
                                   .seeded = end.seeded,
                                   .suspect_from = end.suspect_from};
        TS_TRY(appender.append_records(context, first, static_cast<std::uint32_t>(next - first),
                                       payload));
        end.last_time = last_time;
        first = next;
        payload.clear();
        return {};
    };
    for (const auto& [lsn, encoded] : records) {
        for (; next.value < lsn; next = next + 1) {  // cut off while being copied
            const std::size_t at = payload.size();
            payload.resize(at + encoded_size(VoidOp{}));
            encode(VoidOp{}, next, std::span{payload}.subspan(at));
        }
        if (payload.size() + encoded.size() > kMaxFramePayload) TS_TRY(flush());
        payload.insert(payload.end(), encoded.begin(), encoded.end());
        next = next + 1;
    }
    return flush();
}

}  // namespace twinspool
