// SPDX-License-Identifier: Apache-2.0
#include "journal/log/cursor.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>

#include "journal/format/frame.h"
#include "journal/log/segment.h"

namespace twinspool {
namespace {
// What is read at once: several small frames, or the greater part of a large one.
constexpr std::size_t kReadBytes = std::size_t{256} << 10;
}  // namespace

struct Cursor::Parts {
    std::string directory;
    std::uint64_t volume = 0;
    Segment segment;
    std::uint32_t block = 1;
    Lsn next;
    std::uint64_t previous = 0;
    // Blocks of `segment` from `buffer_block` on, as they were when read.
    AlignedBuffer buffer{kMaxFrameBytes + 2 * kBlockBytes};
    std::uint32_t buffer_block = 0;
    std::size_t buffered = 0;

    [[nodiscard]] FramePlace place() const { return {segment.number(), block}; }
    Result<Bytes> at_least(std::size_t bytes);
    Result<FrameHeader> whole_frame(Bytes& bytes);
    Status enter_next_segment();
    [[nodiscard]] Error damage(const Error& why) const;
};

Error Cursor::Parts::damage(const Error& why) const {
    return make_error(EBADMSG, "read segment {}: it is damaged at offset {} ({})", segment.path,
                      std::uint64_t{block} * kBlockBytes, why.doing);
}

// The bytes from the current block on, at least so many if the segment is that long.
Result<Bytes> Cursor::Parts::at_least(std::size_t bytes) {
    const std::size_t here = std::size_t{block} * kBlockBytes;
    const std::size_t start = std::size_t{buffer_block} * kBlockBytes;
    if (buffered == 0 || here < start || here + bytes > start + buffered) {
        const std::size_t left = static_cast<std::size_t>(segment.header.bytes) - here;
        const std::size_t wanted = std::min(
            std::min(std::max(blocks_for(bytes) * kBlockBytes, kReadBytes), left), buffer.size());
        const ssize_t size =
            ::pread(segment.fd.get(), buffer.data(), wanted, static_cast<off_t>(here));
        if (size < 0) return last_error("read segment {} at offset {}", segment.path, here);
        buffer_block = block;
        buffered = static_cast<std::size_t>(size);
    }
    const std::size_t skip = here - std::size_t{buffer_block} * kBlockBytes;
    return Bytes{buffer.data() + skip, buffered - skip};
}

// Reads the frame at the current block, first what is buffered, then afresh: what was read ahead
// may have been written since.
Result<FrameHeader> Cursor::Parts::whole_frame(Bytes& bytes) {
    for (int attempt = 0;; ++attempt) {
        TS_ASSIGN(bytes, at_least(kBlockBytes));
        std::uint32_t stored = 0;
        if (bytes.size() >= sizeof(FrameHeader)) {
            const FrameHeader header = header_of(bytes);
            if (header.magic == kFrameMagic && header.stored_bytes <= kMaxFramePayload)
                stored = header.stored_bytes;
        }
        TS_ASSIGN(bytes, at_least(sizeof(FrameHeader) + stored));
        auto header = check_frame(bytes, volume, place());
        const bool follows =
            header.ok() && header->first_lsn == next.value && header->previous == previous;
        if (follows || attempt == 1) {
            if (header.ok() && !follows) return make_error(EBADMSG, "the chain is broken");
            return header;
        }
        buffered = 0;
    }
}

Status Cursor::Parts::enter_next_segment() {
    const std::string path = segment_path(directory, twinspool::next(segment.number()));
    TS_ASSIGN(Segment entered, open_segment(path, volume, O_RDONLY));
    if (entered.header.first_lsn != next.value || entered.header.previous != previous)
        return make_error(EBADMSG, "segment {} does not continue record {}", path, next.value - 1);
    segment = std::move(entered);
    block = 1;
    buffered = 0;
    return {};
}

Cursor::Cursor(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Cursor::Cursor(Cursor&&) noexcept = default;
Cursor& Cursor::operator=(Cursor&&) noexcept = default;
Cursor::~Cursor() = default;

Result<Cursor> Cursor::open(const std::string& directory, std::uint64_t volume, Lsn from) {
    auto parts = std::make_unique<Parts>();
    parts->directory = directory;
    parts->volume = volume;
    TS_ASSIGN(const auto names, list_segments(directory));
    bool found = false;
    for (auto name = names.rbegin(); name != names.rend() && !found; ++name) {
        TS_ASSIGN(parts->segment, open_segment(name->path, volume, O_RDONLY));
        found = parts->segment.header.first_lsn <= from.value;
    }
    if (!found)
        return make_error(ENOENT, "read record {} from {}: it is in no segment", from.value,
                          directory);
    parts->next = Lsn{parts->segment.header.first_lsn};
    parts->previous = parts->segment.header.previous;
    Cursor cursor{std::move(parts)};
    // Frames before the one that holds `from` are stepped over.
    while (cursor.parts_->next < from) {
        Parts& at = *cursor.parts_;
        Bytes bytes;
        const auto header = at.whole_frame(bytes);
        if (!header.ok()) break;  // `from` is the next to be written
        const Lsn last{header->first_lsn + header->record_count - 1};
        if (last >= from) break;
        at.block +=
            static_cast<std::uint32_t>(blocks_for(sizeof(FrameHeader) + header->stored_bytes));
        at.next = last + 1;
        at.previous = header->checksum;
        if (at.block >= at.segment.blocks()) break;
    }
    return cursor;
}

Result<std::optional<Frame>> Cursor::next(Lsn limit) {
    Parts& at = *parts_;
    if (at.next > limit) return std::optional<Frame>{};
    Bytes bytes;
    // A record that is durable and does not stand here begins the next segment.
    auto header = at.block < at.segment.blocks()
                      ? at.whole_frame(bytes)
                      : Result<FrameHeader>{make_error(EBADMSG, "the segment is full")};
    if (!header.ok()) {
        if (auto entered = at.enter_next_segment(); !entered.ok())
            return entered.error().code == ENOENT && header.error().code == EBADMSG
                       ? at.damage(header.error())
                       : entered.error();
        header = at.whole_frame(bytes);
        if (!header.ok()) return at.damage(header.error());
    }
    const Lsn last{header->first_lsn + header->record_count - 1};
    if (last > limit) return std::optional<Frame>{};
    auto frame = decode_frame(bytes.first(sizeof(FrameHeader) + header->stored_bytes));
    if (!frame.ok()) return at.damage(frame.error());
    at.block += static_cast<std::uint32_t>(blocks_for(sizeof(FrameHeader) + header->stored_bytes));
    at.next = last + 1;
    at.previous = header->checksum;
    return std::optional<Frame>{std::move(frame).value()};
}

Lsn Cursor::position() const { return parts_->next; }
Chain Cursor::previous() const { return Chain{parts_->previous}; }
SegmentNumber Cursor::segment() const { return parts_->segment.number(); }
FramePlace Cursor::place() const { return parts_->place(); }

}  // namespace twinspool
