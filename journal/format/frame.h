// SPDX-License-Identifier: Apache-2.0
// Frame: records encoded for the segment and the wire, and decoded again. A frame is valid if and
// only if (1) magic and version are ours, (2) the volume is ours, (3) it names the place where it
// stands, (4) its sizes are within bounds, (5) its checksum is right, (6) its first Lsn and
// `previous` continue the frame before. (1)-(5) are checked here, (6) by who reads in order. Pure
// functions.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/format/format.h"
#include "journal/format/op.h"
#include "journal/format/record.h"

namespace twinspool {

struct FramePlace {
    SegmentNumber segment{};
    std::uint32_t block = 0;
    friend bool operator==(const FramePlace&, const FramePlace&) = default;
};

// A frame read back: its bytes as they stand in the segment, and the records in it, uncompressed.
struct Frame {
    FrameHeader header{};
    std::vector<std::byte> stored;   // header and stored payload, without the padding
    std::vector<std::byte> payload;  // raw records
    [[nodiscard]] Lsn first() const { return Lsn{header.first_lsn}; }
    [[nodiscard]] Lsn last() const { return Lsn{header.first_lsn + header.record_count - 1}; }
    // Calls `visit(const Record&)` for each; EBADMSG for a record that does not decode.
    template <typename Visit>
    Status for_each(Visit&& visit) const {
        Bytes rest{payload};
        while (!rest.empty()) {
            auto record = decode_record(rest);
            if (!record.ok()) return record.error();
            TS_TRY(visit(*record));
            rest = rest.subspan(record->encoded.size());
        }
        return {};
    }
};

// What a header says beyond the records.
struct FrameContext {
    std::uint64_t volume = 0;
    Epoch epoch;
    Lsn committed;
    Lsn checkpoint;
    WallTime time{};
    Chain previous{};
    std::uint32_t generation = 0;
    std::uint32_t seeded = 0;
    WallTime suspect_from{};
};

// Room that a frame of `payload_bytes` may need, padding included.
constexpr std::size_t frame_room(std::size_t payload_bytes) {
    return blocks_for(sizeof(FrameHeader) + payload_bytes) * kBlockBytes;
}

// Puts the payload, compressed if that pays, and the header into `out` (frame_room(payload) bytes);
// pads with zeros to whole blocks. Returns the size without the padding. The place is set by
// place_frame(), which also makes the checksum: until then the frame is not valid.
std::size_t encode_frame(const FrameContext& context, Lsn first, std::uint32_t count, Bytes payload,
                         std::span<std::byte> out);
Chain place_frame(std::span<std::byte> frame, const FramePlace& place);

// What place_frame() would give for these bytes, whatever their header says.
Chain chain_of(Bytes frame);

FrameHeader header_of(Bytes frame);
// (1)-(5) for the frame at the front of `bytes`. EBADMSG names the rule. Reads nothing beyond.
Result<FrameHeader> check_frame(Bytes bytes, std::uint64_t volume, const FramePlace& place);
// Of a frame that check_frame() passed.
Result<Frame> decode_frame(Bytes stored);

}  // namespace twinspool
