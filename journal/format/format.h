// SPDX-License-Identifier: Apache-2.0
// Format: every constant and struct of the journal on disk and on the wire. Little-endian, fixed
// width. journal/README.md has the grammar, a picture and a worked example.
#pragma once

#include <cstddef>
#include <cstdint>

namespace twinspool {

inline constexpr std::uint16_t kFormatVersion = 1;
inline constexpr std::size_t kBlockBytes = 4096;  // unit of O_DIRECT writes and of offsets
inline constexpr std::uint32_t kSegmentMagic = 0x47455354;              // "TSEG"
inline constexpr std::uint32_t kFrameMagic = 0x4D524654;                // "TFRM"
inline constexpr std::size_t kMaxDataBytes = std::size_t{1} << 20;      // of one WriteOp
inline constexpr std::size_t kMaxFramePayload = kMaxDataBytes + 65536;  // raw, all records

// One at the head of each segment, in a block of its own; frames follow from the next block on.
struct SegmentHeader {
    std::uint32_t magic;         // 0
    std::uint16_t version;       // 4
    std::uint16_t reserved;      // 6
    std::uint64_t volume;        // 8
    std::uint64_t number;        // 16
    std::uint64_t bytes;         // 24  size of the file
    std::uint64_t first_lsn;     // 32  of the first frame here
    std::uint64_t previous;      // 40  chain at first_lsn - 1
    std::uint32_t epoch_number;  // 48
    std::uint32_t reserved2;     // 52
    std::uint64_t epoch_id;      // 56
    std::uint64_t epoch_first;   // 64  first Lsn of that epoch
    std::uint64_t epoch_chain;   // 72  chain at epoch_first - 1
    std::uint64_t checksum;      // 80  XXH3-64 of the 80 bytes before
};
static_assert(sizeof(SegmentHeader) == 88 && offsetof(SegmentHeader, checksum) == 80);

inline constexpr std::uint16_t kFrameLz4 = 1;  // payload is one LZ4 block

struct FrameHeader {
    std::uint32_t magic;         // 0
    std::uint16_t version;       // 4
    std::uint16_t flags;         // 6
    std::uint64_t volume;        // 8
    std::uint64_t segment;       // 16  number of the segment it stands in
    std::uint32_t block;         // 24  where in the segment, in blocks
    std::uint32_t record_count;  // 28
    std::uint64_t first_lsn;     // 32
    std::uint32_t raw_bytes;     // 40  payload before compression
    std::uint32_t stored_bytes;  // 44  payload as it stands here
    std::uint64_t epoch_id;      // 48
    std::uint32_t epoch_number;  // 56
    std::uint32_t reserved;      // 60
    std::uint64_t committed;     // 64  Lsn durable on all that are waited for, when this was sealed
    std::uint64_t checkpoint;    // 72  Lsn up to which the backing trees are synced
    std::int64_t time;           // 80  wall clock at sealing, ns
    std::uint64_t previous;      // 88  checksum of the frame before: the chain
    std::uint32_t generation;    // 96  of the seed that objects are told in now
    std::uint32_t seeded;        // 100 newest generation whose seed is complete; 0: none
    std::int64_t suspect_from;   // 104 objects with a ctime >= this may have changed without a
                                 //     record, and no walk has been complete since; 0: none
    std::uint64_t reserved2;     // 112
    std::uint64_t checksum;      // 120 XXH3-64 of the 120 bytes before and the stored payload
};
static_assert(sizeof(FrameHeader) == 128 && offsetof(FrameHeader, checksum) == 120);

inline constexpr std::size_t kMaxFrameBytes = sizeof(FrameHeader) + kMaxFramePayload;

struct RecordHeader {
    std::uint32_t size;        // 0  of the whole record, a multiple of 8
    std::uint8_t code;         // 4  OpCode
    std::uint8_t reserved[3];  // 5
    std::uint64_t lsn;         // 8
};
static_assert(sizeof(RecordHeader) == 16);

constexpr std::size_t blocks_for(std::size_t bytes) {
    return (bytes + kBlockBytes - 1) / kBlockBytes;
}

}  // namespace twinspool
