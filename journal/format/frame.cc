// SPDX-License-Identifier: Apache-2.0
#include "journal/format/frame.h"

#include <lz4.h>
#define XXH_STATIC_LINKING_ONLY  // for a state on the stack
#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace twinspool {
namespace {

// Below this a frame fits into one block anyway.
constexpr std::size_t kCompressFrom = 2048;

std::uint64_t checksum_of(Bytes frame) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, frame.data(), offsetof(FrameHeader, checksum));
    XXH3_64bits_update(&state, frame.data() + sizeof(FrameHeader),
                       frame.size() - sizeof(FrameHeader));
    return XXH3_64bits_digest(&state);
}

// Compressed size, or 0 where it does not pay: less than an eighth saved.
std::size_t compress(Bytes payload, std::span<std::byte> out) {
    if (payload.size() < kCompressFrom) return 0;
    const std::size_t most = payload.size() - payload.size() / 8;
    const int size = LZ4_compress_default(reinterpret_cast<const char*>(payload.data()),
                                          reinterpret_cast<char*>(out.data()),
                                          static_cast<int>(payload.size()), static_cast<int>(most));
    return static_cast<std::size_t>(std::max(size, 0));
}

}  // namespace

std::size_t encode_frame(const FrameContext& context, Lsn first, std::uint32_t count, Bytes payload,
                         std::span<std::byte> out) {
    TS_ASSERT(payload.size() <= kMaxFramePayload && out.size() >= frame_room(payload.size()));
    const auto body = out.subspan(sizeof(FrameHeader));
    std::size_t stored = compress(payload, body);
    const bool compressed = stored != 0;
    if (!compressed) {
        std::memcpy(body.data(), payload.data(), payload.size());
        stored = payload.size();
    }
    const FrameHeader header{
        .magic = kFrameMagic,
        .version = kFormatVersion,
        .flags = compressed ? kFrameLz4 : std::uint16_t{0},
        .volume = context.volume,
        .segment = 0,
        .block = 0,
        .record_count = count,
        .first_lsn = first.value,
        .raw_bytes = static_cast<std::uint32_t>(payload.size()),
        .stored_bytes = static_cast<std::uint32_t>(stored),
        .epoch_id = context.epoch.id,
        .epoch_number = context.epoch.number,
        .reserved = 0,
        .committed = context.committed.value,
        .checkpoint = context.checkpoint.value,
        .time = raw(context.time),
        .previous = raw(context.previous),
        .generation = context.generation,
        .seeded = context.seeded,
        .suspect_from = raw(context.suspect_from),
        .reserved2 = 0,
        .checksum = 0,
    };
    std::memcpy(out.data(), &header, sizeof header);
    const std::size_t size = sizeof header + stored;
    std::memset(out.data() + size, 0, blocks_for(size) * kBlockBytes - size);
    return size;
}

Chain place_frame(std::span<std::byte> frame, const FramePlace& place) {
    FrameHeader header = header_of(frame);
    header.segment = raw(place.segment);
    header.block = place.block;
    std::memcpy(frame.data(), &header, sizeof header);
    header.checksum = checksum_of(frame);
    std::memcpy(frame.data(), &header, sizeof header);
    return Chain{header.checksum};
}

Chain chain_of(Bytes frame) { return Chain{checksum_of(frame)}; }

FrameHeader header_of(Bytes frame) {
    FrameHeader header;
    TS_ASSERT(frame.size() >= sizeof header);
    std::memcpy(&header, frame.data(), sizeof header);
    return header;
}

Result<FrameHeader> check_frame(Bytes bytes, std::uint64_t volume, const FramePlace& place) {
    if (bytes.size() < sizeof(FrameHeader)) return make_error(EBADMSG, "read a frame: cut off");
    const FrameHeader header = header_of(bytes);
    if (header.magic != kFrameMagic) return make_error(EBADMSG, "read a frame: no magic number");
    if (header.version != kFormatVersion)
        return make_error(EBADMSG, "read a frame: version {} is not {}", header.version,
                          kFormatVersion);
    if (header.volume != volume)
        return make_error(EBADMSG, "read a frame: it is of volume {:016x}, not {:016x}",
                          header.volume, volume);
    if (header.segment != raw(place.segment) || header.block != place.block)
        return make_error(EBADMSG, "read a frame: it belongs to segment {} block {}",
                          header.segment, header.block);
    if (header.raw_bytes > kMaxFramePayload || header.stored_bytes > header.raw_bytes ||
        header.record_count == 0 || header.first_lsn == 0 ||
        header.stored_bytes > bytes.size() - sizeof header)
        return make_error(EBADMSG, "read a frame: sizes out of bounds");
    if (checksum_of(bytes.first(sizeof header + header.stored_bytes)) != header.checksum)
        return make_error(EBADMSG, "read a frame: wrong checksum");
    return header;
}

Result<Frame> decode_frame(Bytes stored) {
    Frame frame;
    frame.header = header_of(stored);
    frame.stored.assign(stored.begin(), stored.end());
    const Bytes body = stored.subspan(sizeof(FrameHeader));
    if ((frame.header.flags & kFrameLz4) == 0) {
        if (frame.header.raw_bytes != frame.header.stored_bytes)
            return make_error(EBADMSG, "read a frame: stored plainly with two sizes");
        frame.payload.assign(body.begin(), body.end());
        return frame;
    }
    frame.payload.resize(frame.header.raw_bytes);
    const int size = LZ4_decompress_safe(
        reinterpret_cast<const char*>(body.data()), reinterpret_cast<char*>(frame.payload.data()),
        static_cast<int>(body.size()), static_cast<int>(frame.payload.size()));
    if (size < 0 || static_cast<std::uint32_t>(size) != frame.header.raw_bytes)
        return make_error(EBADMSG, "read a frame: its LZ4 block is damaged");
    return frame;
}

}  // namespace twinspool
