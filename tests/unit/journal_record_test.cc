// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <vector>

#include "journal/format/frame.h"
#include "journal/format/record.h"

namespace twinspool {
namespace {

Bytes bytes_of(std::string_view text) { return std::as_bytes(std::span{text}); }

constexpr Attributes kAttributes{
    .mode = 0100640, .uid = 8, .gid = 12, .mtime = {1700000000, 123456789}};

// One of each, with every field different from zero.
template <typename Visit>
void each_operation(Visit visit) {
    const FileTime time{1700000001, 7};
    visit(EpochOp{3, 0xabcdef});
    visit(DirectoryOp{ObjectId{2}, "/var/spool/mail", kAttributes});
    visit(AdoptOp{ObjectId{3}, ObjectId{2}, "old", kAttributes, 0x801, "target"});
    visit(CreateOp{ObjectId{4}, ObjectId{2}, "new", kAttributes, 0x802, "there", time});
    visit(LinkOp{ObjectId{4}, ObjectId{2}, "again", time});
    visit(UnlinkOp{ObjectId{4}, ObjectId{2}, "new", time});
    visit(RenameOp{ObjectId{4}, ObjectId{2}, "a", ObjectId{5}, "b", ObjectId{6}, 1, time, time});
    visit(WriteOp{ObjectId{4}, 4096, time, bytes_of("content")});
    visit(TruncateOp{ObjectId{4}, 17, time});
    visit(AllocateOp{ObjectId{4}, AllocateKind::kPunch, 1, 2, 3, time});
    visit(AttributesOp{ObjectId{4}, kAttributes});
    visit(SetXattrOp{ObjectId{4}, "user.x", bytes_of("value")});
    visit(RemoveXattrOp{ObjectId{4}, "user.x"});
    visit(EntriesOp{ObjectId{2}, "a", "z", bytes_of("names"), time});
    visit(StandbyOp{1, 1, Lsn{99}});
    visit(SeededOp{77});
    visit(ClosedOp{WallTime{1234567890}});
    visit(VoidOp{});
    visit(MarkOp{"nightly", WallTime{1234567891}, 1});
    visit(UnmarkOp{Lsn{98}});
    visit(CheckContentOp{ObjectId{4}, 16384, 20000, 36384, 1, bytes_of("hashes")});
    visit(CheckObjectOp{ObjectId{4}, kAttributes, 0x801, "target", 1, bytes_of("xattrs")});
    visit(CheckEntriesOp{ObjectId{2}, "after", "upto", 1, bytes_of("entries")});
}

std::vector<std::byte> encoded(const auto& op, Lsn lsn) {
    std::vector<std::byte> out(encoded_size(op));
    encode(op, lsn, out);
    return out;
}

TEST(Record, EveryOperationComesBackAsItWas) {
    int count = 0;
    each_operation([&](const auto& op) {
        const auto bytes = encoded(op, Lsn{42});
        const auto record = decode_record(bytes);
        ASSERT_TRUE(record.ok()) << record.error().text();
        EXPECT_EQ(record->lsn, Lsn{42});
        EXPECT_EQ(record->encoded.size(), bytes.size());
        const auto& back = std::get<std::decay_t<decltype(op)>>(record->op);
        EXPECT_EQ(encoded(back, Lsn{42}), bytes);
        ++count;
    });
    EXPECT_EQ(count, static_cast<int>(std::variant_size_v<Op>) - 1)
        << "an operation is missing here";
}

TEST(Record, NoShortenedRecordDecodes) {
    each_operation([&](const auto& op) {
        const auto bytes = encoded(op, Lsn{1});
        for (std::size_t size = 0; size < bytes.size(); ++size)
            EXPECT_FALSE(decode_record(Bytes{bytes}.first(size)).ok()) << size;
    });
}

TEST(Record, LengthsBeyondTheRecordAreRefused) {
    auto bytes = encoded(SetXattrOp{ObjectId{4}, "user.x", bytes_of("value")}, Lsn{1});
    bytes[sizeof(RecordHeader) + 8] = std::byte{0xff};  // length of the name
    EXPECT_FALSE(decode_record(bytes).ok());
}

TEST(Record, MaxEncodedSizeIsEnoughForAnyOperation) {
    each_operation([&](const auto& op) { EXPECT_LE(encoded_size(op), max_encoded_size(64)); });
}

TEST(Record, GoldenBytesAreReadAsEver) {
    // Made once by this test with TWINSPOOL_WRITE_GOLDEN=1; a change means the format has changed.
    const std::string path = std::string{TWINSPOOL_GOLDEN_DIR} + "/records/one_of_each.bin";
    std::vector<std::byte> now;
    std::uint64_t lsn = 1;
    each_operation([&](const auto& op) {
        const auto bytes = encoded(op, Lsn{lsn++});
        now.insert(now.end(), bytes.begin(), bytes.end());
    });
    if (std::getenv("TWINSPOOL_WRITE_GOLDEN") != nullptr)
        std::ofstream{path, std::ios::binary}.write(reinterpret_cast<const char*>(now.data()),
                                                    static_cast<std::streamsize>(now.size()));
    std::ifstream file{path, std::ios::binary};
    ASSERT_TRUE(file) << path;
    std::stringstream golden;
    golden << file.rdbuf();
    EXPECT_EQ(golden.str(), std::string(reinterpret_cast<const char*>(now.data()), now.size()));
}

FrameContext context() {
    return {.volume = 7,
            .epoch = {1, 2, Lsn{1}, Chain{}},
            .committed = Lsn{5},
            .checkpoint = Lsn{4},
            .time = WallTime{99},
            .previous = Chain{0x55},
            .generation = 3,
            .seeded = 2};
}

std::vector<std::byte> framed(Bytes payload, std::uint32_t count) {
    std::vector<std::byte> out(frame_room(payload.size()));
    const std::size_t size = encode_frame(context(), Lsn{10}, count, payload, out);
    out.resize(size);
    place_frame(out, {SegmentNumber{4}, 9});
    return out;
}

TEST(Frame, ComesBackPlainAndCompressed) {
    for (const std::size_t size : {std::size_t{64}, std::size_t{100000}}) {
        std::vector<std::byte> payload(size, std::byte{'x'});
        const auto frame = framed(payload, 1);
        const auto header = check_frame(frame, 7, {SegmentNumber{4}, 9});
        ASSERT_TRUE(header.ok()) << header.error().text();
        EXPECT_EQ((header->flags & kFrameLz4) != 0, size > 1000);
        const auto back = decode_frame(frame);
        ASSERT_TRUE(back.ok());
        EXPECT_EQ(back->payload, payload);
        EXPECT_EQ(back->header.committed, 5U);
    }
}

TEST(Frame, IncompressiblePayloadIsStoredPlainly) {
    std::vector<std::byte> payload(50000);
    std::uint32_t state = 1;
    for (auto& each : payload)
        each = static_cast<std::byte>((state = state * 1664525 + 1013904223) >> 24);
    const auto frame = framed(payload, 1);
    EXPECT_EQ(header_of(frame).flags & kFrameLz4, 0);
    EXPECT_EQ(decode_frame(frame)->payload, payload);
}

TEST(Frame, AnyFlippedBitIsFound) {
    const auto frame = framed(bytes_of(std::string(64, 'y')), 1);
    for (std::size_t i = 0; i < frame.size(); ++i) {
        auto damaged = frame;
        damaged[i] ^= std::byte{1};
        EXPECT_FALSE(check_frame(damaged, 7, {SegmentNumber{4}, 9}).ok()) << i;
    }
}

TEST(Frame, AnotherPlaceOrVolumeIsRefused) {
    const auto frame = framed(bytes_of("12345678"), 1);
    EXPECT_FALSE(check_frame(frame, 8, {SegmentNumber{4}, 9}).ok());
    EXPECT_FALSE(check_frame(frame, 7, {SegmentNumber{5}, 9}).ok());
    EXPECT_FALSE(check_frame(frame, 7, {SegmentNumber{4}, 10}).ok());
}

}  // namespace
}  // namespace twinspool
