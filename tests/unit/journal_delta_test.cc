// SPDX-License-Identifier: Apache-2.0
// Rules of extents and of the delta.
#include "journal/delta/delta.h"

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <random>

namespace twinspool {
namespace {

constexpr ObjectId kDirectory{2};
constexpr ObjectId kOther{3};
constexpr ObjectId kFile{10};
constexpr ObjectId kSecond{11};

constexpr Attributes kFileAttributes{.mode = S_IFREG | 0640, .uid = 1, .gid = 2, .mtime = {5, 6}};
constexpr Attributes kDirectoryAttributes{
    .mode = S_IFDIR | 0750, .uid = 1, .gid = 2, .mtime = {5, 6}};

Bytes bytes(std::string_view text) { return std::as_bytes(std::span{text.data(), text.size()}); }

// What a file that held `old` holds after the change.
std::string changed(const ContentChange& change, std::string old) {
    if (change.cut() && old.size() > *change.cut()) old.resize(*change.cut());
    for (const auto& [offset, extent] : change.extents()) {
        const bool data = extent.kind == ExtentKind::kData;
        const std::uint64_t end = offset + extent.length;
        if (data && old.size() < end) old.resize(end);
        if (extent.kind == ExtentKind::kAllocated || offset >= old.size()) continue;
        const auto length = std::min<std::uint64_t>(extent.length, old.size() - offset);
        old.replace(offset, length,
                    data ? std::string(reinterpret_cast<const char*>(extent.data), length)
                         : std::string(length, '\0'));
    }
    if (change.size()) old.resize(*change.size());
    return old;
}

AllocateOp allocation(AllocateKind kind, std::uint64_t offset, std::uint64_t length,
                      std::uint64_t size) {
    return {.object = kFile,
            .kind = kind,
            .offset = offset,
            .length = length,
            .size = size,
            .mtime = {}};
}

TEST(Extents, LaterBytesWin) {
    ContentChange change;
    change.write(0, bytes("aaaaaaaa"));
    change.write(2, bytes("bb"));
    change.write(6, bytes("cccc"));
    EXPECT_EQ(changed(change, "................"), "aabbaacccc......");
    EXPECT_FALSE(change.size());
    EXPECT_FALSE(change.cut());
}

TEST(Extents, WhatWasCutOffDoesNotComeBack) {
    ContentChange change;
    change.truncate(3);
    change.truncate(6);
    EXPECT_EQ(changed(change, "abcdefgh"), std::string("abc\0\0\0", 6));
    change.write(8, bytes("x"));
    EXPECT_EQ(change.size(), 9u);
    EXPECT_EQ(change.cut(), 3u);
}

TEST(Extents, TruncatingDropsDataBeyond) {
    ContentChange change;
    change.write(0, bytes("abcdef"));
    change.truncate(2);
    EXPECT_EQ(changed(change, ""), "ab");
    ASSERT_EQ(change.extents().size(), 1u);
    EXPECT_EQ(change.extents().begin()->second.length, 2u);
}

TEST(Extents, PunchedHolesGrowTogether) {
    ContentChange change;
    change.allocate(allocation(AllocateKind::kPunch, 0, 10, 100));
    change.allocate(allocation(AllocateKind::kPunch, 20, 10, 100));
    change.allocate(allocation(AllocateKind::kPunch, 10, 10, 100));
    ASSERT_EQ(change.extents().size(), 1u);
    EXPECT_EQ(change.extents().begin()->second.length, 30u);
}

TEST(Extents, AllocatingChangesNoContent) {
    ContentChange change;
    change.write(4, bytes("data"));
    change.allocate(allocation(AllocateKind::kPunch, 8, 4, 12));
    change.allocate(allocation(AllocateKind::kAllocate, 0, 16, 16));
    EXPECT_EQ(changed(change, "aaaaaaaaaaaaaaaa"), std::string("aaaadata\0\0\0\0aaaa", 16));
    for (const auto& [offset, extent] : change.extents())
        EXPECT_NE(extent.kind, ExtentKind::kHole) << offset;
}

TEST(Extents, AnyOrderOfChangesGivesTheFileItself) {
    std::mt19937_64 random{4711};
    for (int round = 0; round < 3000; ++round) {
        std::string old(random() % 60, 'o');
        std::string file = old;
        std::deque<std::string> kept;
        ContentChange change;
        for (int i = 0; i < 12; ++i) {
            const std::uint64_t offset = random() % 60;
            const std::uint64_t length = 1 + random() % 20;
            switch (random() % 4) {
                case 0:
                    kept.emplace_back(length, static_cast<char>('a' + i));
                    change.write(offset, bytes(kept.back()));
                    if (file.size() < offset + length) file.resize(offset + length);
                    file.replace(offset, length, kept.back());
                    break;
                case 1:
                    file.resize(offset);
                    change.truncate(offset);
                    break;
                default: {
                    const auto kind = static_cast<AllocateKind>(random() % 3);
                    if (kind != AllocateKind::kPunch && random() % 2 == 0)
                        file.resize(std::max<std::size_t>(file.size(), offset + length));
                    if (kind != AllocateKind::kAllocate && offset < file.size()) {
                        const auto inside = std::min<std::uint64_t>(length, file.size() - offset);
                        file.replace(offset, inside, std::string(inside, '\0'));
                    }
                    change.allocate(allocation(kind, offset, length, file.size()));
                }
            }
            ASSERT_EQ(changed(change, old), file) << "round " << round << " step " << i;
        }
    }
}

// Builds a delta record by record.
class DeltaTest : public testing::Test {
   protected:
    template <typename T>
    Status add(const T& op) {
        return delta.add(Record{.lsn = Lsn{next_++}, .op = op, .encoded = {}});
    }
    void create(ObjectId object, std::string_view name, Attributes attributes = kFileAttributes) {
        ASSERT_TRUE(add(CreateOp{.object = object,
                                 .parent = kDirectory,
                                 .name = name,
                                 .attributes = attributes,
                                 .parent_mtime = {7, 8}})
                        .ok());
    }
    void unlink(ObjectId object, std::string_view name) {
        ASSERT_TRUE(
            add(UnlinkOp{
                    .object = object, .parent = kDirectory, .name = name, .parent_mtime = {9, 1}})
                .ok());
    }
    RenameOp rename(ObjectId object, std::string_view source, std::string_view target,
                    ObjectId replaced = kNoObject, std::uint8_t exchange = 0) {
        return {.object = object,
                .source_parent = kDirectory,
                .source_name = source,
                .target_parent = kOther,
                .target_name = target,
                .replaced = replaced,
                .exchange = exchange,
                .source_mtime = {20, 0},
                .target_mtime = {21, 0}};
    }
    [[nodiscard]] const EntryChange& entry(ObjectId directory, std::string_view name) const {
        return delta.find(directory)->directory->entries.at(name);
    }

    Delta delta;

   private:
    std::uint64_t next_ = 1;
};

TEST_F(DeltaTest, MadeAndGoneLeavesNothingBehind) {
    create(kFile, "tmp");
    ASSERT_TRUE(
        add(WriteOp{.object = kFile, .offset = 0, .mtime = {}, .data = bytes("mail")}).ok());
    ASSERT_TRUE(add(rename(kFile, "tmp", "new")).ok());
    ASSERT_TRUE(
        add(UnlinkOp{.object = kFile, .parent = kOther, .name = "new", .parent_mtime = {}}).ok());
    EXPECT_TRUE(delta.find(kFile)->elided());
    EXPECT_EQ(delta.elided(), 1u);
    EXPECT_EQ(entry(kDirectory, "tmp").object, kNoObject);
    EXPECT_EQ(entry(kOther, "new").object, kNoObject);
}

TEST_F(DeltaTest, RenameMovesTheEntryAndBothTimes) {
    create(kFile, "tmp");
    ASSERT_TRUE(add(rename(kFile, "tmp", "new", kSecond)).ok());
    EXPECT_EQ(entry(kOther, "new").object, kFile);
    EXPECT_EQ(delta.find(kFile)->links.size(), 1u);
    EXPECT_TRUE(delta.find(kSecond)->gone());
    EXPECT_EQ(delta.find(kDirectory)->mtime, (FileTime{20, 0}));
    EXPECT_EQ(delta.find(kOther)->mtime, (FileTime{21, 0}));
}

TEST_F(DeltaTest, ExchangeKeepsBoth) {
    ASSERT_TRUE(add(rename(kFile, "a", "b", kSecond, 1)).ok());
    EXPECT_EQ(entry(kDirectory, "a").object, kSecond);
    EXPECT_EQ(entry(kOther, "b").object, kFile);
    EXPECT_FALSE(delta.find(kSecond)->gone());
}

TEST_F(DeltaTest, OneNameLeftIsNotGone) {
    create(kFile, "a");
    ASSERT_TRUE(
        add(LinkOp{.object = kFile, .parent = kOther, .name = "b", .parent_mtime = {}}).ok());
    unlink(kFile, "a");
    EXPECT_FALSE(delta.find(kFile)->gone());
    EXPECT_FALSE(delta.find(kFile)->elided());
}

TEST_F(DeltaTest, AStatementRemovesOnlyInItsRange) {
    for (const char* name : {"a", "b", "c", "d"})
        create(ObjectId{100 + static_cast<std::uint64_t>(name[0])}, name);
    const std::string names{"\1\0\0\0b", 5};
    ASSERT_TRUE(add(EntriesOp{.parent = kDirectory,
                              .after = "a",
                              .upto = "c",
                              .names = bytes(names),
                              .parent_mtime = {30, 0}})
                    .ok());
    EXPECT_NE(entry(kDirectory, "a").object, kNoObject);
    EXPECT_NE(entry(kDirectory, "b").object, kNoObject);
    EXPECT_EQ(entry(kDirectory, "c").object, kNoObject);
    EXPECT_TRUE(entry(kDirectory, "c").by_statement);
    EXPECT_NE(entry(kDirectory, "d").object, kNoObject);
    const Statement& statement = delta.find(kDirectory)->directory->statements.front();
    EXPECT_FALSE(statement.removes("a"));
    EXPECT_FALSE(statement.removes("b"));
    EXPECT_TRUE(statement.removes("bb"));
    EXPECT_TRUE(statement.removes("c"));
    EXPECT_FALSE(statement.removes("ca"));
}

TEST_F(DeltaTest, WhatAStatementDropsIsNotGone) {
    create(kFile, "a");
    ASSERT_TRUE(add(EntriesOp{.parent = kDirectory}).ok());
    EXPECT_TRUE(delta.find(kFile)->links.empty());
    EXPECT_FALSE(delta.find(kFile)->gone());
    EXPECT_FALSE(delta.all_told());
    ASSERT_TRUE(add(SeededOp{.generation = 3}).ok());
    EXPECT_TRUE(delta.all_told());
    EXPECT_EQ(delta.seeded(), 3u);
    ASSERT_TRUE(add(EntriesOp{.parent = kOther}).ok());
    EXPECT_FALSE(delta.all_told());
}

TEST_F(DeltaTest, AnUnlinkAfterADropIsNotTheEnd) {
    create(kFile, "a");
    ASSERT_TRUE(
        add(LinkOp{.object = kFile, .parent = kOther, .name = "b", .parent_mtime = {}}).ok());
    ASSERT_TRUE(add(EntriesOp{.parent = kOther}).ok());  // "b" may have become something else
    unlink(kFile, "a");
    EXPECT_TRUE(delta.find(kFile)->links.empty());
    EXPECT_FALSE(delta.find(kFile)->gone());
}

TEST_F(DeltaTest, WhatAnAdoptedObjectReplacesIsDropped) {
    create(kFile, "a");
    ASSERT_TRUE(
        add(LinkOp{.object = kFile, .parent = kOther, .name = "b", .parent_mtime = {}}).ok());
    unlink(kFile, "a");
    ASSERT_TRUE(
        add(AdoptOp{
                .object = kSecond, .parent = kOther, .name = "b", .attributes = kFileAttributes})
            .ok());
    EXPECT_TRUE(delta.find(kFile)->links.empty());
    EXPECT_FALSE(delta.find(kFile)->gone());
    EXPECT_EQ(entry(kOther, "b").object, kSecond);
}

TEST_F(DeltaTest, AnAdoptedDirectoryStandsNowhereElse) {
    create(kFile, "a", kDirectoryAttributes);
    ASSERT_TRUE(
        add(AdoptOp{
                .object = kFile, .parent = kOther, .name = "b", .attributes = kDirectoryAttributes})
            .ok());
    ASSERT_EQ(delta.find(kFile)->links.size(), 1u);
    EXPECT_EQ(delta.find(kFile)->links[0].name, "b");
    EXPECT_EQ(entry(kDirectory, "a").object, kNoObject);
}

TEST_F(DeltaTest, AnAdoptedFileGainsAName) {
    create(kFile, "a");
    ASSERT_TRUE(add(SetXattrOp{.object = kFile, .name = "user.x", .value = bytes("1")}).ok());
    ASSERT_TRUE(
        add(WriteOp{.object = kFile, .offset = 0, .mtime = {}, .data = bytes("mail")}).ok());
    ASSERT_TRUE(
        add(AdoptOp{.object = kFile, .parent = kOther, .name = "b", .attributes = kFileAttributes})
            .ok());
    const ObjectChange& file = *delta.find(kFile);
    EXPECT_EQ(file.links.size(), 2u);
    EXPECT_TRUE(file.xattrs_cleared);
    EXPECT_TRUE(file.xattrs.empty());
    EXPECT_EQ(file.content.extents().size(), 1u);
}

TEST_F(DeltaTest, ARemovedDirectoryHasNoEntries) {
    create(kOther, "d", kDirectoryAttributes);
    ASSERT_TRUE(
        add(CreateOp{.object = kFile, .parent = kOther, .name = "x", .attributes = kFileAttributes})
            .ok());
    unlink(kOther, "d");  // "x" went underneath, before the walker came by
    EXPECT_TRUE(delta.find(kOther)->gone());
    EXPECT_TRUE(delta.find(kFile)->links.empty());
    EXPECT_FALSE(delta.find(kFile)->gone());
}

TEST_F(DeltaTest, NamesThatLeadElsewhereAreRefused) {
    for (const std::string_view name : {"", ".", "..", "a/b", "/", "../x"}) {
        const auto status =
            add(LinkOp{.object = kFile, .parent = kDirectory, .name = name, .parent_mtime = {}});
        ASSERT_FALSE(status.ok()) << name;
        EXPECT_EQ(status.error().code, EBADMSG);
    }
    for (const std::string_view path : {"", "/", "relative", "/a//b", "/a/../b", "/a/"})
        EXPECT_FALSE(add(DirectoryOp{.object = kDirectory, .path = path}).ok()) << path;
    EXPECT_FALSE(add(SetXattrOp{.object = kFile, .name = "trusted.twinspool.id"}).ok());
    EXPECT_FALSE(add(TruncateOp{.object = kFile, .size = UINT64_MAX, .mtime = {}}).ok());
    EXPECT_FALSE(add(allocation(AllocateKind::kZero, INT64_MAX, 2, 0)).ok());
}

TEST_F(DeltaTest, ABadListOfNamesIsRefused) {
    for (const std::string& names : {std::string{"\1\0", 2}, std::string{"\5\0\0\0a", 5},
                                     std::string{"\1\0\0\0b\1\0\0\0a", 10}})
        EXPECT_FALSE(add(EntriesOp{.parent = kDirectory, .names = bytes(names)}).ok());
}

}  // namespace
}  // namespace twinspool
