// SPDX-License-Identifier: Apache-2.0
// Checks in the journal: their hashes and lists, and which of a range still count at its end.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <cstring>

#include "journal/base/fd.h"
#include "journal/delta/delta.h"
#include "journal/format/block_hash.h"
#include "journal/format/check_list.h"

namespace twinspool {
namespace {

constexpr ObjectId kFile{10};
constexpr ObjectId kDirectory{20};
constexpr std::uint64_t kBlock = kCheckBlockBytes;

Bytes bytes(std::string_view text) { return std::as_bytes(std::span{text}); }

std::string hash_of(std::string_view block) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(block.data(), block.size()));
    return {reinterpret_cast<const char*>(&canonical), sizeof canonical};
}

std::string text_of(const std::vector<std::byte>& some) {
    return {reinterpret_cast<const char*>(some.data()), some.size()};
}

TEST(BlockHash, IsThatOfEachBlockAndOfTheRestAtTheEnd) {
    const Fd fd{::memfd_create("hash", MFD_CLOEXEC)};
    std::string content(3 * kBlock + 100, 'x');
    for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i / 1000);
    ASSERT_EQ(::write(fd.get(), content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
    const auto all = hash_blocks(fd.get(), 0, 1 << 20, content.size());
    ASSERT_TRUE(all.ok());
    std::string want;
    for (std::size_t at = 0; at < content.size(); at += kBlock)
        want += hash_of(std::string_view{content}.substr(at, kBlock));
    EXPECT_EQ(text_of(*all), want);
    const auto part = hash_blocks(fd.get(), kBlock, kBlock, content.size());
    ASSERT_TRUE(part.ok());
    EXPECT_EQ(text_of(*part), want.substr(kBlockHashBytes, kBlockHashBytes));
    EXPECT_TRUE(hash_blocks(fd.get(), 4 * kBlock, kBlock, content.size())->empty());
    EXPECT_TRUE(hash_blocks(fd.get(), 0, 1 << 20, 0)->empty());
}

TEST(BlockHash, HolesAndWhatTheFileLacksAreZeros) {
    std::string pattern = "/var/tmp/twinspool-hash-XXXXXX";
    const Fd fd{::mkstemp(pattern.data())};
    ::unlink(pattern.c_str());
    const std::uint64_t size = std::uint64_t{1} << 20;
    std::string content(size, '\0');
    content.replace(40 * kBlock + 5, 3, "abc");
    ASSERT_EQ(::pwrite(fd.get(), "abc", 3, 40 * kBlock + 5), 3);  // the file ends here
    std::string want;
    for (std::size_t at = 0; at < size; at += kBlock)
        want += hash_of(std::string_view{content}.substr(at, kBlock));
    EXPECT_EQ(text_of(*hash_blocks(fd.get(), 0, size, size)), want);
}

TEST(CheckList, ComesBackAsItWas) {
    std::vector<std::byte> list;
    add_checked_entry(list, {"a", ObjectId{7}});
    add_checked_entry(list, {"b", ObjectId{8}});
    const auto entries = checked_entries(list);
    ASSERT_TRUE(entries.ok());
    ASSERT_EQ(entries->size(), 2U);
    EXPECT_EQ((*entries)[1].name, "b");
    EXPECT_EQ((*entries)[1].object, ObjectId{8});
    for (std::size_t size = 1; size < list.size(); ++size)
        EXPECT_EQ(checked_entries(Bytes{list}.first(size)).ok(), size == list.size() / 2) << size;
    list.clear();
    add_checked_xattr(list, {"user.b", "1"});
    add_checked_xattr(list, {"user.a", ""});
    EXPECT_FALSE(checked_xattrs(list).ok()) << "out of order";
    list.clear();
    add_checked_xattr(list, {"user.b", ""});
    EXPECT_TRUE(checked_xattrs(list).ok());
}

class ChecksTest : public testing::Test {
   protected:
    template <typename T>
    Status add(const T& op) {
        return delta.add(Record{.lsn = Lsn{++next_}, .op = op, .encoded = {}});
    }
    template <typename T>
    void ok(const T& op) {
        const Status status = add(op);
        ASSERT_TRUE(status.ok()) << status.error().text();
    }
    // Blocks 1 and 2 of a file of four blocks, and its last one.
    void check_content() {
        ok(CheckContentOp{.object = kFile,
                          .offset = kBlock,
                          .length = 2 * kBlock,
                          .size = 4 * kBlock,
                          .hashes = bytes(hashes_).first(32)});
        ok(CheckContentOp{.object = kFile,
                          .offset = 3 * kBlock,
                          .length = kBlock,
                          .size = 4 * kBlock,
                          .hashes = bytes(hashes_).first(16)});
    }
    void check_object(ObjectId id) { ok(CheckObjectOp{.object = id, .attributes = {}}); }
    void check_entries(std::string_view after, std::string_view upto) {
        ok(CheckEntriesOp{.parent = kDirectory, .after = after, .upto = upto});
    }
    // Which are superseded, as "x", or "s" if only the size changed.
    [[nodiscard]] std::string state() const {
        std::string all;
        for (const PendingCheck& check : delta.checks())
            all += check.superseded ? 'x' : check.size_changed ? 's' : '.';
        return all;
    }
    void write(std::uint64_t offset, std::size_t size) {
        ok(WriteOp{
            .object = kFile, .offset = offset, .mtime = {}, .data = bytes(data_).first(size)});
    }

    Delta delta;

   private:
    std::uint64_t next_ = 0;
    const std::string hashes_ = std::string(64, 'h');
    const std::string data_ = std::string(5 * kBlock, 'd');
};

TEST_F(ChecksTest, WhatWasWrittenBeforeOrBesideItCountsNot) {
    write(0, 4 * kBlock);
    check_content();
    write(0, kBlock);
    EXPECT_EQ(state(), "..");
    write(3 * kBlock - 1, 1);
    EXPECT_EQ(state(), "x.");
    write(4 * kBlock - 1, 1);
    EXPECT_EQ(state(), "xx");
    EXPECT_EQ(delta.checks()[1].lsn, Lsn{3});
    EXPECT_EQ(delta.check_bytes(), 3 * kBlock);
}

TEST_F(ChecksTest, AnAppendCoversTheEndAndTheSize) {
    check_content();
    write(4 * kBlock, 10);
    EXPECT_EQ(state(), "sx");
}

TEST_F(ChecksTest, ATruncateCoversWhatIsBeyondAndTheSize) {
    check_content();
    ok(TruncateOp{.object = kFile, .size = 4 * kBlock, .mtime = {}});
    EXPECT_EQ(state(), "..");
    ok(TruncateOp{.object = kFile, .size = 3 * kBlock, .mtime = {}});
    EXPECT_EQ(state(), "sx");
    ok(TruncateOp{.object = kFile, .size = 3 * kBlock - 1, .mtime = {}});
    EXPECT_EQ(state(), "xx");
}

TEST_F(ChecksTest, AllocatingChangesTheSizeAtMost) {
    check_content();
    AllocateOp op{.object = kFile,
                  .kind = AllocateKind::kAllocate,
                  .offset = 0,
                  .length = 4 * kBlock,
                  .size = 4 * kBlock,
                  .mtime = {}};
    ok(op);
    EXPECT_EQ(state(), "..");
    op.kind = AllocateKind::kPunch;
    op.length = kBlock + 1;
    ok(op);
    EXPECT_EQ(state(), "x.");
}

TEST_F(ChecksTest, AttributesXattrsAndContentCoverTheObject) {
    for (int i = 0; i < 5; ++i) {
        check_object(ObjectId{kFile});
        EXPECT_EQ(state().back(), '.');
        if (i == 0) ok(AttributesOp{.object = kFile, .attributes = {}});
        if (i == 1) ok(SetXattrOp{.object = kFile, .name = "user.a", .value = {}});
        if (i == 2) ok(RemoveXattrOp{.object = kFile, .name = "user.a"});
        if (i == 3) write(0, 1);
        if (i == 4)
            ok(AdoptOp{.object = kFile, .parent = kDirectory, .name = "f", .attributes = {}});
        EXPECT_EQ(state().back(), 'x') << i;
    }
}

TEST_F(ChecksTest, AnEntryCoversItsRangeAndTheDirectory) {
    check_entries("", "b");
    check_entries("b", "d");
    check_entries("d", "");
    check_object(kDirectory);
    ok(LinkOp{.object = kFile, .parent = kDirectory, .name = "d", .parent_mtime = {}});
    EXPECT_EQ(state(), ".x.x");
    ok(UnlinkOp{.object = kFile, .parent = kDirectory, .name = "z", .parent_mtime = {}});
    EXPECT_EQ(state(), ".xxx");
}

TEST_F(ChecksTest, AStatementCoversWhatItIsAbout) {
    check_entries("", "b");
    check_entries("b", "d");
    check_entries("d", "");
    ok(EntriesOp{.parent = kDirectory, .after = "b", .upto = "c", .names = {}, .parent_mtime = {}});
    EXPECT_EQ(state(), ".x.");
    ok(EntriesOp{.parent = kDirectory, .after = "d", .upto = "", .names = {}, .parent_mtime = {}});
    EXPECT_EQ(state(), ".xx");
}

TEST_F(ChecksTest, WhatIsGoneIsNotCompared) {
    check_content();
    check_object(kFile);
    ok(UnlinkOp{
        .object = kFile, .parent = kDirectory, .name = "f", .parent_mtime = {}, .names_left = 1});
    EXPECT_EQ(state(), "...");
    ok(RenameOp{.object = ObjectId{11},
                .source_parent = kDirectory,
                .source_name = "a",
                .target_parent = kDirectory,
                .target_name = "g",
                .replaced = kFile});
    EXPECT_EQ(state(), "xxx");
}

TEST_F(ChecksTest, WhatAStatementDroppedIsGoneWhenAllIsTold) {
    ok(LinkOp{.object = kFile, .parent = kDirectory, .name = "f", .parent_mtime = {}});
    check_object(kFile);
    ok(EntriesOp{.parent = kDirectory, .after = "", .upto = "", .names = {}, .parent_mtime = {}});
    EXPECT_EQ(state(), ".");
    ok(SeededOp{.generation = 2});
    EXPECT_EQ(state(), "x");
}

TEST_F(ChecksTest, AnExactOneEndsTheRange) {
    check_object(kFile);
    EXPECT_FALSE(delta.ends());
    ok(CheckObjectOp{.object = kFile, .attributes = {}, .device = 0, .target = {}, .exact = 1});
    EXPECT_TRUE(delta.ends());
    check_entries("", "");  // checks change nothing
    EXPECT_EQ(delta.last(), Lsn{3});
    EXPECT_EQ(state(), "...");
}

TEST_F(ChecksTest, WhatNobodyCanHaveMeantIsRefused) {
    const std::string hash(16, 'h');
    const CheckContentOp good{
        .object = kFile, .offset = 0, .length = kBlock, .size = 5, .hashes = bytes(hash)};
    CheckContentOp op = good;
    op.offset = 1;
    EXPECT_EQ(add(op).error().code, EBADMSG);
    op = good;
    op.size = kBlock + 1, op.length = kBlock + 1;
    EXPECT_EQ(add(op).error().code, EBADMSG);
    op = good;
    op.size = UINT64_MAX;
    EXPECT_EQ(add(op).error().code, EBADMSG);
    EXPECT_EQ(add(CheckEntriesOp{.parent = kDirectory, .entries = bytes("xy")}).error().code,
              EBADMSG);
    EXPECT_TRUE(add(good).ok());
}

}  // namespace
}  // namespace twinspool
