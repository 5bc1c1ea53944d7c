// SPDX-License-Identifier: Apache-2.0
// Checks against a replica: an equal tree has no findings, each damage has its own, and all of them
// are said before the position that covers them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "journal/format/block_hash.h"
#include "journal/format/check_list.h"
#include "replicator_applier.h"
#include "replicator_model.h"

namespace twinspool {
namespace {

using test::kVolume;
using test::Model;

constexpr std::uint64_t kBlock = kCheckBlockBytes;

Bytes bytes(std::string_view text) { return std::as_bytes(std::span{text}); }

class CheckTest : public test::AppliedStoreTest {
   protected:
    void wish(ApplierOptions& wanted) override {
        wanted.on_findings = [this](const std::vector<Finding>& some) {
            for (const Finding& each : some) EXPECT_LT(applier->applied(), each.check);
            findings.insert(findings.end(), some.begin(), some.end());
        };
    }
    void apply() {
        ASSERT_TRUE(journal->make_durable(last).ok());
        const auto status = applier->run_until(last);
        ASSERT_TRUE(status.ok()) << status.error().text();
        ASSERT_EQ(applier->applied(), last);
    }
    void apply(Model& model) {
        log(model);
        apply();
    }

    // A directory with a file of four blocks and a symlink.
    void make_small_tree() {
        const Attributes attributes{.mode = S_IFDIR | 0755, .uid = 0, .gid = 0, .mtime = {5, 5}};
        add(DirectoryOp{.object = kTop, .path = "/v", .attributes = attributes});
        make(kFile, "file", S_IFREG | 0640);
        make(kOther, "other", S_IFREG | 0600);
        make(kLink, "link", S_IFLNK | 0777, "to");
        add(WriteOp{.object = kFile, .offset = 0, .mtime = {8, 0}, .data = bytes(content)});
        add(AttributesOp{.object = kTop, .attributes = attributes});
        apply();
    }
    void make(ObjectId id, std::string_view name, std::uint32_t mode,
              std::string_view target = {}) {
        add(CreateOp{.object = id,
                     .parent = kTop,
                     .name = name,
                     .attributes = {.mode = mode, .uid = 1, .gid = 2, .mtime = {7, 0}},
                     .device = 0,
                     .target = target,
                     .parent_mtime = {5, 5}});
    }
    Lsn check_file(std::uint8_t exact = 0) {
        const Fd fd{::open("/var/tmp", O_TMPFILE | O_RDWR, 0600)};
        EXPECT_EQ(::write(fd.get(), content.data(), content.size()),
                  static_cast<ssize_t>(content.size()));
        const auto hashes = hash_blocks(fd.get(), 0, kMaxDataBytes, content.size());
        EXPECT_TRUE(hashes.ok());
        return add(CheckContentOp{.object = kFile,
                                  .offset = 0,
                                  .length = kMaxDataBytes,
                                  .size = content.size(),
                                  .exact = exact,
                                  .hashes = *hashes});
    }
    Lsn check_object(ObjectId id, std::uint32_t mode, FileTime mtime,
                     std::string_view target = {}) {
        return add(CheckObjectOp{.object = id,
                                 .attributes = {.mode = mode, .uid = 1, .gid = 2, .mtime = mtime},
                                 .device = 0,
                                 .target = target});
    }
    Lsn check_entries() {
        std::vector<std::byte> entries;
        add_checked_entry(entries, {"file", kFile});
        add_checked_entry(entries, {"link", kLink});
        add_checked_entry(entries, {"other", kOther});
        return add(CheckEntriesOp{.parent = kTop, .after = {}, .upto = {}, .entries = entries});
    }
    void check_small_tree() {
        check_file();
        check_object(kFile, S_IFREG | 0640, {8, 0});
        check_object(kOther, S_IFREG | 0600, {7, 0});
        check_object(kLink, S_IFLNK | 0777, {7, 0}, "to");
        check_entries();
        apply();
    }
    void expect_one(FindingKind kind, ObjectId object, std::uint64_t offset = 0,
                    std::uint64_t length = 0, const std::string& name = {}) {
        ASSERT_EQ(findings.size(), 1U);
        const Finding want{.check = findings[0].check,
                           .object = object,
                           .kind = kind,
                           .offset = offset,
                           .length = length,
                           .name = name};
        EXPECT_EQ(findings[0], want) << static_cast<int>(findings[0].kind) << " "
                                     << findings[0].offset << "+" << findings[0].length;
        findings.clear();
    }
    [[nodiscard]] std::string at(const std::string& name) const {
        return folder.path() + "/tree/v/" + name;
    }

    static constexpr ObjectId kTop{2};
    static constexpr ObjectId kFile{10};
    static constexpr ObjectId kOther{11};
    static constexpr ObjectId kLink{12};
    std::string content = std::string(kBlock, 'a') + std::string(kBlock, 'b') +
                          std::string(kBlock, 'c') + std::string(100, 'd');
    std::vector<Finding> findings;
};

TEST_F(CheckTest, AnEqualTreeHasNoFindings) {
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
        Model model{seed};
        batch_records = seed % 2 == 0 ? 20 : 200'000;
        logged = 0;
        TearDown();
        std::filesystem::remove_all(folder.path());
        std::filesystem::create_directory(folder.path());
        SetUp();
        for (int period = 0; period < 6; ++period) {
            for (int i = 0; i < 60; ++i) model.act();
            if (period % 2 == 1) model.change_underneath(6);
            model.check_all();
            apply(model);
            ASSERT_EQ(model.compare(folder.path()), "");
            ASSERT_TRUE(findings.empty())
                << "seed " << seed << ": " << findings.size() << ", the first of kind "
                << static_cast<int>(findings[0].kind) << " " << findings[0].name;
        }
    }
}

TEST_F(CheckTest, EachBlockThatDiffersIsFoundAndNeighboursAreOne) {
    make_small_tree();
    check_small_tree();
    ASSERT_TRUE(findings.empty());
    struct stat before {};
    ASSERT_EQ(::stat(at("file").c_str(), &before), 0);
    const Fd fd{::open(at("file").c_str(), O_RDWR)};
    const auto damage = [&](std::uint64_t offset, const char* byte) {
        ASSERT_EQ(::pwrite(fd.get(), byte, 1, static_cast<off_t>(offset)), 1);
    };
    const auto restore_time = [&] {
        const timespec times[2]{before.st_atim, before.st_mtim};
        ASSERT_EQ(::futimens(fd.get(), times), 0);
    };
    damage(kBlock + 7, "X");
    damage(2 * kBlock, "X");
    restore_time();
    check_small_tree();
    expect_one(FindingKind::kContent, kFile, kBlock, 2 * kBlock);
    damage(kBlock + 7, "b");
    damage(2 * kBlock, "c");
    damage(0, "X");
    damage(3 * kBlock + 99, "X");
    restore_time();
    check_file();
    apply();
    ASSERT_EQ(findings.size(), 2U);
    EXPECT_EQ(findings[0].length, kBlock);
    EXPECT_EQ(findings[1].offset, 3 * kBlock);
    EXPECT_EQ(findings[1].length, 100U);
}

TEST_F(CheckTest, WhatTheSizeMakesGoodIsNotAnotherDifference) {
    make_small_tree();
    ASSERT_EQ(::truncate(at("file").c_str(), 3 * kBlock + 4000), 0);
    check_file();
    apply();
    expect_one(FindingKind::kSize, kFile, content.size(), 3 * kBlock + 4000);
    ASSERT_EQ(::truncate(at("file").c_str(), 2 * kBlock), 0);
    check_file();
    apply();
    ASSERT_EQ(findings.size(), 2U);
    EXPECT_EQ(findings[0].kind, FindingKind::kSize);
    EXPECT_EQ(findings[1].kind, FindingKind::kContent);
    EXPECT_EQ(findings[1].offset, 2 * kBlock);
    EXPECT_EQ(findings[1].length, kBlock + 100);
    findings.clear();
    // The repair.
    add(TruncateOp{.object = kFile, .size = content.size(), .mtime = {8, 0}});
    add(WriteOp{.object = kFile,
                .offset = 2 * kBlock,
                .mtime = {8, 0},
                .data = bytes(content).subspan(2 * kBlock)});
    check_small_tree();
    EXPECT_TRUE(findings.empty());
}

TEST_F(CheckTest, AttributesXattrsAndTargetsAreCompared) {
    make_small_tree();
    const std::string file = at("file");
    ASSERT_EQ(::chmod(file.c_str(), 0641), 0);
    check_small_tree();
    expect_one(FindingKind::kAttributes, kFile);
    ASSERT_EQ(::chmod(file.c_str(), 0640), 0);
    ASSERT_EQ(::lchown(at("link").c_str(), 1, 3), 0);
    check_small_tree();
    expect_one(FindingKind::kAttributes, kLink);
    ASSERT_EQ(::lchown(at("link").c_str(), 1, 2), 0);
    ASSERT_EQ(::setxattr(file.c_str(), "user.x", "1", 1, 0), 0);
    check_small_tree();
    expect_one(FindingKind::kXattrs, kFile, 0, 0, "user.x");
    ASSERT_EQ(::removexattr(file.c_str(), "user.x"), 0);
    const timespec times[2]{{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, {.tv_sec = 8, .tv_nsec = 1}};
    ASSERT_EQ(::utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
    check_small_tree();
    expect_one(FindingKind::kAttributes, kFile);
    check_object(kLink, S_IFLNK | 0777, {7, 0}, "elsewhere");
    apply();
    expect_one(FindingKind::kAttributes, kLink);
}

TEST_F(CheckTest, EntriesAreFoundMissingExtraAndOther) {
    make_small_tree();
    ASSERT_EQ(::rename(at("other").c_str(), at("extra").c_str()), 0);
    check_entries();
    apply();
    ASSERT_EQ(findings.size(), 2U);
    EXPECT_EQ(findings[0].kind, FindingKind::kEntryExtra);
    EXPECT_EQ(findings[0].name, "extra");
    EXPECT_EQ(findings[1].kind, FindingKind::kEntryMissing);
    EXPECT_EQ(findings[1].name, "other");
    findings.clear();
    ASSERT_EQ(::rename(at("extra").c_str(), at("other").c_str()), 0);
    ASSERT_EQ(::unlink(at("link").c_str()), 0);
    ASSERT_EQ(::link(at("file").c_str(), at("link").c_str()), 0);
    check_entries();
    apply();
    expect_one(FindingKind::kEntryOther, kTop, 0, 0, "link");
    // The symlink is gone altogether.
    check_object(kLink, S_IFLNK | 0777, {7, 0}, "to");
    apply();
    expect_one(FindingKind::kMissing, kLink);
    check_object(ObjectId{99}, S_IFREG, {});
    apply();
    expect_one(FindingKind::kMissing, ObjectId{99});
}

TEST_F(CheckTest, WhatIsMadeInTheSameRangeIsCompared) {
    make_small_tree();
    make(ObjectId{30}, "new", S_IFREG | 0600);
    check_object(ObjectId{30}, S_IFREG | 0600, {7, 0});
    check_object(ObjectId{30}, S_IFREG | 0666, {7, 0});
    apply();
    expect_one(FindingKind::kAttributes, ObjectId{30});
}

TEST_F(CheckTest, WhatChangedInTheSameRangeIsSaidToHave) {
    make_small_tree();
    const Lsn check = check_file();
    add(WriteOp{.object = kFile, .offset = 1, .mtime = {9, 0}, .data = bytes("x")});
    apply();
    expect_one(FindingKind::kChangedMeanwhile, kFile, 0, kMaxDataBytes);
    // An exact one is made before that.
    content[1] = 'x';
    check_file(1);
    const Lsn second = check_object(kFile, S_IFREG | 0640, {9, 0});
    add(WriteOp{.object = kFile, .offset = 2, .mtime = {10, 0}, .data = bytes("y")});
    check_object(kFile, S_IFREG | 0640, {10, 1});
    apply();
    EXPECT_GT(second, check);
    expect_one(FindingKind::kAttributes, kFile);
}

TEST_F(CheckTest, AfterAReopenTheRangeBehindAnExactOneGoesOn) {
    make_small_tree();
    check_file(1);
    const Lsn middle = last;
    add(WriteOp{.object = kFile, .offset = 2, .mtime = {10, 0}, .data = bytes("y")});
    ASSERT_TRUE(journal->make_durable(last).ok());
    ASSERT_TRUE(applier->run_until(middle).ok());
    open_applier();
    apply();
    EXPECT_TRUE(findings.empty());
    content[2] = 'y';
    check_file();
    apply();
    EXPECT_TRUE(findings.empty());
}

TEST_F(CheckTest, AWholeFileOfHolesIsNotRead) {
    make_small_tree();
    const std::uint64_t size = std::uint64_t{1} << 40;
    add(TruncateOp{.object = kFile, .size = size, .mtime = {8, 0}});
    std::vector<std::byte> hashes;
    const Fd empty{::open("/var/tmp", O_TMPFILE | O_RDWR, 0600)};
    hashes = *hash_blocks(empty.get(), size - kMaxDataBytes, kMaxDataBytes, size);
    add(CheckContentOp{.object = kFile,
                       .offset = size - kMaxDataBytes,
                       .length = kMaxDataBytes,
                       .size = size,
                       .hashes = hashes});
    apply();
    EXPECT_TRUE(findings.empty());
}

// Whoever ends the applier does not wait for the checks; what was not made is said to be unknown.
TEST_F(CheckTest, WhoStopsDoesNotWaitForChecks) {
    make_small_tree();
    for (int i = 0; i < 1000; ++i) check_file();
    ASSERT_TRUE(journal->make_durable(last).ok());
    applier->start();
    applier->committed(last);
    applier->finish();
    EXPECT_EQ(applier->applied(), last);
    for (const Finding& each : findings) EXPECT_EQ(each.kind, FindingKind::kChangedMeanwhile);
}

}  // namespace
}  // namespace twinspool
