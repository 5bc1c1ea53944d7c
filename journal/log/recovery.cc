// SPDX-License-Identifier: Apache-2.0
#include "journal/log/recovery.h"

#include <fcntl.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "journal/base/fault.h"
#include "journal/format/record.h"

namespace twinspool {
namespace {

// More blocks than any segment has room for.
constexpr std::size_t kWholeSegment = std::size_t{1} << 40;

// A whole segment in memory: recovery reads each once.
struct LoadedSegment {
    Segment segment;
    AlignedBuffer bytes{kBlockBytes};
    [[nodiscard]] Bytes from(std::uint32_t block) const {
        const std::size_t at = block * kBlockBytes;
        return Bytes{bytes.data(), static_cast<std::size_t>(segment.header.bytes)}.subspan(at);
    }
};

Result<LoadedSegment> load(const SegmentName& name, std::uint64_t volume) {
    LoadedSegment loaded;
    TS_ASSIGN(loaded.segment, open_segment(name.path, volume, O_RDONLY));
    if (loaded.segment.number() != name.number)
        return make_error(EBADMSG, "read segment {} at offset 0: it says it is number {:016x}",
                          name.path, loaded.segment.header.number);
    loaded.bytes = AlignedBuffer{static_cast<std::size_t>(loaded.segment.header.bytes)};
    for (std::size_t at = 0; at < loaded.segment.header.bytes;) {
        const ssize_t size =
            ::pread(loaded.segment.fd.get(), loaded.bytes.data() + at,
                    std::min<std::size_t>(loaded.segment.header.bytes - at, std::size_t{8} << 20),
                    static_cast<off_t>(at));
        if (size <= 0) return last_error("read segment {} at offset {}", name.path, at);
        at += static_cast<std::size_t>(size);
    }
    return loaded;
}

Error damage(const LoadedSegment& at, std::uint32_t block, const Error& why) {
    return make_error(EBADMSG, "read segment {}: it is damaged at offset {} ({})", at.segment.path,
                      std::uint64_t{block} * kBlockBytes, why.doing);
}

// R4: the first valid frame beyond `block` that belongs after `expected`.
std::optional<std::uint32_t> later_frame(const LoadedSegment& at, std::uint64_t volume,
                                         std::uint32_t block, Lsn expected) {
    for (std::uint32_t each = block + 1; each < at.segment.blocks(); ++each) {
        const auto header = check_frame(at.from(each), volume, {at.segment.number(), each});
        if (header.ok() && header->first_lsn > expected.value) return each;
    }
    return std::nullopt;
}

void note_record(const Record& record, const Frame& frame, Chain previous, JournalEnd& end) {
    if (const auto* epoch = std::get_if<EpochOp>(&record.op)) {
        end.epoch = Epoch{epoch->number, epoch->id, frame.first(), previous};
        end.epochs.push_back(end.epoch);
    }
    if (const auto* seeded = std::get_if<SeededOp>(&record.op)) end.seeded = seeded->generation;
    // A standby may be lost, or come back, while the primary ends.
    if (std::holds_alternative<StandbyOp>(record.op)) return;
    end.closed.reset();
    if (const auto* closed = std::get_if<ClosedOp>(&record.op)) end.closed = closed->time;
}

Status take_frame(Bytes bytes, const FrameHeader& header, JournalEnd& end) {
    TS_ASSIGN(const Frame frame,
              decode_frame(bytes.first(sizeof(FrameHeader) + header.stored_bytes)));
    end.generation = header.generation;
    end.seeded = header.seeded;
    end.suspect_from = WallTime{header.suspect_from};
    Lsn next{header.first_lsn};
    TS_TRY(frame.for_each([&](const Record& record) -> Status {
        if (record.lsn != next) return make_error(EBADMSG, "read record {}", next.value);
        next = next + 1;
        note_record(record, frame, end.end.chain, end);
        return {};
    }));
    if (next != frame.last() + 1) return make_error(EBADMSG, "read a frame: records are missing");
    end.end = Position{frame.last(), Chain{header.checksum}};
    end.committed = Lsn{header.committed};
    end.checkpoint = Lsn{header.checkpoint};
    end.last_time = WallTime{header.time};
    return {};
}

// Reads the frames of one segment (R1); ends before the first that does not continue the chain.
Status read_segment(const LoadedSegment& at, std::uint64_t volume, bool newest, JournalEnd& end) {
    std::uint32_t block = 1;
    while (block < at.segment.blocks()) {
        const FramePlace place{at.segment.number(), block};
        const auto header = check_frame(at.from(block), volume, place);
        const Lsn expected = end.end.lsn + 1;
        if (!header.ok() || header->first_lsn != expected.value ||
            header->previous != raw(end.end.chain)) {
            const Error why =
                header.ok() ? make_error(EBADMSG, "the chain is broken") : header.error();
            if (header.ok() && header->first_lsn > expected.value) return damage(at, block, why);
            // Behind the last frame of a full segment stands what the file held before.
            if (newest && later_frame(at, volume, block, expected)) return damage(at, block, why);
            break;
        }
        if (auto taken = take_frame(at.from(block), *header, end); !taken.ok())
            return damage(at, block, taken.error());
        block += static_cast<std::uint32_t>(blocks_for(sizeof(FrameHeader) + header->stored_bytes));
    }
    end.next = FramePlace{at.segment.number(), block};
    return {};
}

}  // namespace

Result<JournalEnd> find_end(const std::string& directory, std::uint64_t volume) {
    JournalEnd end;
    TS_ASSIGN(const auto names, list_segments(directory));
    for (std::size_t i = 0; i < names.size(); ++i) {
        TS_ASSIGN(const LoadedSegment at, load(names[i], volume));
        const SegmentHeader& header = at.segment.header;
        const Position before{Lsn{header.first_lsn} - 1, Chain{header.previous}};
        if (i == 0) {
            end.end = before;
            end.oldest = Lsn{header.first_lsn};
            end.epoch = Epoch{header.epoch_number, header.epoch_id, Lsn{header.epoch_first},
                              Chain{header.epoch_chain}};
            end.epochs.push_back(end.epoch);
        } else if (before != end.end || raw(names[i - 1].number) + 1 != raw(names[i].number)) {
            return make_error(
                EBADMSG,
                "read segment {}: it is damaged at offset {} (the next, {}, begins after "
                "record {}, this one ends with record {})",
                names[i - 1].path, std::uint64_t{end.next.block} * kBlockBytes, names[i].path,
                before.lsn.value, end.end.lsn.value);
        }
        TS_TRY(read_segment(at, volume, i + 1 == names.size(), end));
    }
    return end;
}

Status DirectAppender::open_place(std::size_t blocks) {
    const std::string path = segment_path(folder_.directory(), end_.next.segment);
    if (!segment_ && end_.next.block != 0) {
        TS_ASSIGN(segment_, open_segment(path, volume_, O_RDWR));
    }
    if (segment_ && end_.next.block + blocks <= segment_->blocks()) return {};
    const SegmentNumber number = next(end_.next.segment);
    TS_ASSIGN(segment_, folder_.begin({.volume = volume_,
                                       .number = number,
                                       .first = end_.end.lsn + 1,
                                       .previous = end_.end.chain,
                                       .epoch = end_.epoch}));
    end_.next = FramePlace{number, 1};
    return {};
}

Status DirectAppender::write(std::span<std::byte> padded, std::size_t size) {
    const auto offset = static_cast<off_t>(std::uint64_t{end_.next.block} * kBlockBytes);
    const struct iovec vector { padded.data(), padded.size() };
    const ssize_t written = ::pwritev2(segment_->fd.get(), &vector, 1, offset, RWF_DSYNC);
    if (written != static_cast<ssize_t>(padded.size()))
        return written < 0 ? last_error("write segment {}", segment_->path)
                           : make_error(ENOSPC, "write segment {}", segment_->path);
    const FrameHeader header = header_of(padded);
    TS_TRY(take_frame(Bytes{padded}.first(size), header, end_));
    end_.next.block += static_cast<std::uint32_t>(padded.size() / kBlockBytes);
    return {};
}

Status DirectAppender::append_placed(Bytes frame) {
    const FrameHeader header = header_of(frame);
    const std::size_t blocks = blocks_for(frame.size());
    if (header.first_lsn != end_.end.lsn.value + 1 || header.previous != raw(end_.end.chain))
        return make_error(EBADMSG, "append the frame of record {}: it does not continue record {}",
                          header.first_lsn, end_.end.lsn.value);
    const FramePlace place{SegmentNumber{header.segment}, header.block};
    // The writer had begun a segment before the power was cut, and had no frame in it: it goes on
    // there although this one would fit here.
    const bool begun = end_.next.block != 0 && place == FramePlace{next(end_.next.segment), 1};
    TS_TRY(open_place(begun ? kWholeSegment : blocks));
    if (place != end_.next)
        return make_error(EBADMSG,
                          "append the frame of record {}: its place is {:x}:{}, not {:x}:{}",
                          header.first_lsn, header.segment, header.block, raw(end_.next.segment),
                          end_.next.block);
    const AlignedBuffer padded{frame.size()};
    std::memcpy(padded.data(), frame.data(), frame.size());
    return write({padded.data(), padded.size()}, frame.size());
}

Status DirectAppender::append_records(const FrameContext& context, Lsn first, std::uint32_t count,
                                      Bytes payload) {
    const AlignedBuffer room{frame_room(payload.size())};
    const std::size_t size =
        encode_frame(context, first, count, payload, {room.data(), room.size()});
    TS_TRY(open_place(blocks_for(size)));
    place_frame({room.data(), size}, end_.next);
    return write({room.data(), blocks_for(size) * kBlockBytes}, size);
}

}  // namespace twinspool
