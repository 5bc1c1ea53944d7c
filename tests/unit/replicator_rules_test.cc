// SPDX-License-Identifier: Apache-2.0
// Rules of apply that random operations do not meet: what stands in the way, what is parked, access
// lists, holes, long paths; and the emptying of a store.
#include <gtest/gtest.h>

#include <sys/stat.h>
#include <sys/xattr.h>

#include <fstream>
#include <tuple>

#include "replicator_replica.h"

namespace twinspool {
namespace {

using test::Folder;
using test::Replica;

constexpr ObjectId kTop{2};
constexpr ObjectId kFolder{3};
constexpr ObjectId kOther{4};
constexpr ObjectId kFile{10};

Bytes bytes(std::string_view text) { return std::as_bytes(std::span{text.data(), text.size()}); }

class ApplyRules : public testing::Test {
   protected:
    ApplyRules() {
        log.add(DirectoryOp{.object = kTop, .path = "/top", .attributes = directory()});
    }
    static Attributes directory() {
        return {.mode = S_IFDIR | 0755, .uid = 0, .gid = 0, .mtime = {7, 7}};
    }
    static Attributes file(std::uint32_t mode = 0644) {
        return {.mode = S_IFREG | mode, .uid = 0, .gid = 0, .mtime = {8, 8}};
    }
    void create(ObjectId object, ObjectId parent, std::string_view name, Attributes attributes) {
        log.add(CreateOp{.object = object,
                         .parent = parent,
                         .name = name,
                         .attributes = attributes,
                         .device = 0,
                         .target = {},
                         .parent_mtime = {9, 9}});
    }
    void adopt(ObjectId object, ObjectId parent, std::string_view name, Attributes attributes) {
        log.add(AdoptOp{.object = object,
                        .parent = parent,
                        .name = name,
                        .attributes = attributes,
                        .device = 0,
                        .target = {}});
    }
    void state_empty(ObjectId directory) {
        log.add(EntriesOp{
            .parent = directory, .after = {}, .upto = {}, .names = {}, .parent_mtime = {9, 9}});
    }
    void unlink(ObjectId object, ObjectId parent, std::string_view name) {
        log.add(UnlinkOp{.object = object, .parent = parent, .name = name, .parent_mtime = {9, 9}});
    }
    void write(ObjectId object, std::string_view text) {
        log.add(WriteOp{.object = object, .offset = 0, .mtime = {8, 8}, .data = bytes(text)});
    }
    void apply_all() {
        const auto result = replica.apply_until(log, log.size());
        ASSERT_TRUE(result.ok()) << result.error().text();
    }
    // Interrupted before the nth change of the disk, for every n; then done in full.
    void apply_all_killed_everywhere() {
        for (std::uint64_t steps = 0; steps < 1000; ++steps)
            if (replica.apply_until(log, log.size(), steps).ok()) return;
        FAIL() << "does not end";
    }
    [[nodiscard]] std::string path(const std::string& name) const {
        return folder.path() + "/tree/top/" + name;
    }
    [[nodiscard]] struct stat status_of(const std::string& name) const {
        struct stat status {};
        EXPECT_EQ(::lstat(path(name).c_str(), &status), 0) << name;
        return status;
    }
    [[nodiscard]] std::string content(const std::string& name) const {
        std::ifstream in{path(name), std::ios::binary};
        return {std::istreambuf_iterator<char>{in}, {}};
    }
    [[nodiscard]] bool empty(const std::string& part) const {
        return std::filesystem::is_empty(folder.path() + "/" + part);
    }

    Folder folder{"/var/tmp"};
    test::Log log;
    Replica replica{folder.path()};
};

TEST_F(ApplyRules, WhatNobodyKnowsIsADivergence) {
    create(kFolder, kTop, "d", directory());
    write(kFile, "x");
    const auto result = replica.apply_until(log, log.size());
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, EUCLEAN);
    EXPECT_NE(result.error().doing.find("\"write\" at Lsn 3 to object 000000000000000a"),
              std::string::npos)
        << result.error().doing;
}

TEST_F(ApplyRules, ALinkMayComeBeforeItsObjectWhileTheTreeIsSeeded) {
    log.add(LinkOp{.object = kFile, .parent = kTop, .name = "a", .parent_mtime = {9, 9}});
    EXPECT_FALSE(replica.apply_until(log, log.size()).ok());
    replica.being_seeded();
    apply_all();
    adopt(kFile, kTop, "a", file());
    adopt(kFile, kTop, "b", file());
    apply_all();
    EXPECT_EQ(status_of("a").st_nlink, 2u);
}

TEST_F(ApplyRules, ARootThatIsToldAgainHasTheXattrsThatFollow) {
    log.add(SetXattrOp{.object = kTop, .name = "user.old", .value = bytes("1")});
    apply_all();
    log.add(DirectoryOp{.object = kTop, .path = "/top", .attributes = directory()});
    log.add(SetXattrOp{.object = kTop, .name = "user.new", .value = bytes("1")});
    apply_all();
    EXPECT_LT(::lgetxattr(path("").c_str(), "user.old", nullptr, 0), 0);
    EXPECT_EQ(::lgetxattr(path("").c_str(), "user.new", nullptr, 0), 1);
}

TEST_F(ApplyRules, AnUnlinkOfNothingIsNoDivergence) {
    unlink(kFile, kTop, "x");
    apply_all();
}

TEST_F(ApplyRules, AForeignFileInTheWayIsReplaced) {
    apply_all();
    std::ofstream{path("a")} << "foreign";
    std::filesystem::create_directories(path("b/below"));
    create(kFile, kTop, "a", file());
    write(kFile, "mine");
    create(kFolder, kTop, "b", directory());
    apply_all_killed_everywhere();
    EXPECT_EQ(content("a"), "mine");
    EXPECT_TRUE(std::filesystem::is_empty(path("b")));
    EXPECT_TRUE(empty("staging"));
}

TEST_F(ApplyRules, HolesStayHoles) {
    create(kFile, kTop, "a", file());
    const std::string data(1 << 20, 'x');
    write(kFile, data);
    log.add(AllocateOp{.object = kFile,
                       .kind = AllocateKind::kPunch,
                       .offset = 1 << 18,
                       .length = 1 << 19,
                       .size = 1 << 20,
                       .mtime = {8, 8}});
    log.add(TruncateOp{.object = kFile, .size = std::uint64_t{5} << 30, .mtime = {8, 8}});
    apply_all();
    EXPECT_EQ(status_of("a").st_size, off_t{5} << 30);
    EXPECT_LE(status_of("a").st_blocks * 512, 1 << 20);
}

TEST_F(ApplyRules, AHoleThatWasCutInsideABlockStaysAHole) {
    constexpr std::uint64_t kSize = 65536;
    create(kFile, kTop, "a", file());
    write(kFile, std::string(kSize, 'x'));
    apply_all();
    log.add(AllocateOp{.object = kFile,
                       .kind = AllocateKind::kPunch,
                       .length = kSize,
                       .size = kSize,
                       .mtime = {8, 8}});
    log.add(TruncateOp{.object = kFile, .size = 100, .mtime = {8, 8}});
    log.add(TruncateOp{.object = kFile, .size = kSize, .mtime = {8, 8}});
    apply_all();
    EXPECT_EQ(status_of("a").st_size, off_t{kSize});
    EXPECT_EQ(status_of("a").st_blocks, 0);
}

// As in the source, a truncate gives back what was reserved beyond the end, also where the size
// stays as it is: what is written behind it later leaves a hole.
TEST_F(ApplyRules, ATruncateToTheSameSizeGivesBackWhatIsBeyond) {
    create(kFile, kTop, "file", file());
    write(kFile, "12345");
    log.add(AllocateOp{.object = kFile,
                       .kind = AllocateKind::kAllocate,
                       .offset = 0,
                       .length = 1 << 20,
                       .size = 5,
                       .mtime = {8, 8}});
    apply_all();
    struct stat status {};
    ASSERT_EQ(::stat(path("file").c_str(), &status), 0);
    ASSERT_GE(status.st_blocks * 512, 1 << 20);
    log.add(TruncateOp{.object = kFile, .size = 5, .mtime = {8, 8}});
    apply_all();
    ASSERT_EQ(::stat(path("file").c_str(), &status), 0);
    EXPECT_LT(status.st_blocks * 512, 1 << 16);
    EXPECT_EQ(status.st_size, 5);
}

TEST_F(ApplyRules, ATruncateBeyondWhatIsWrittenLaterInTheRangeGivesItBackToo) {
    create(kFile, kTop, "file", file());
    log.add(AllocateOp{.object = kFile,
                       .kind = AllocateKind::kAllocate,
                       .offset = 0,
                       .length = 1 << 20,
                       .size = 0,
                       .mtime = {8, 8}});
    apply_all();
    write(kFile, "12345");
    log.add(TruncateOp{.object = kFile, .size = 5, .mtime = {8, 8}});
    apply_all();
    struct stat status {};
    ASSERT_EQ(::stat(path("file").c_str(), &status), 0);
    EXPECT_LT(status.st_blocks * 512, 1 << 16);
    EXPECT_EQ(status.st_size, 5);
}

TEST_F(ApplyRules, WritingKeepsACapabilityThatTheSourceHas) {
    const std::string none{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    create(kFile, kTop, "a", file(0755));
    log.add(SetXattrOp{.object = kFile, .name = "security.capability", .value = bytes(none)});
    apply_all();
    write(kFile, "x");
    apply_all();
    EXPECT_GT(::lgetxattr(path("a").c_str(), "security.capability", nullptr, 0), 0);
    write(kFile, "y");
    log.add(RemoveXattrOp{.object = kFile, .name = "security.capability"});
    apply_all();
    EXPECT_LT(::lgetxattr(path("a").c_str(), "security.capability", nullptr, 0), 0);
}

TEST_F(ApplyRules, NothingIsInherited) {
    // A default ACL and a set-gid bit on the directory would show on what is made in it.
    create(kFolder, kTop, "d", {.mode = S_IFDIR | 02775, .uid = 0, .gid = 5, .mtime = {7, 7}});
    const std::string acl{
        "\2\0\0\0\1\0\7\0\377\377\377\377\2\0\7\0\1\0\0\0"
        "\4\0\5\0\377\377\377\377\20\0\7\0\377\377\377\377\40\0\5\0\377\377\377\377",
        44};
    log.add(SetXattrOp{.object = kFolder, .name = "system.posix_acl_default", .value = bytes(acl)});
    apply_all();
    create(kFile, kFolder, "f", file());
    create(kOther, kFolder, "e", directory());
    apply_all();
    for (const char* name : {"d/f", "d/e"}) {
        EXPECT_EQ(status_of(name).st_gid, 0u);
        EXPECT_LT(::lgetxattr(path(name).c_str(), "system.posix_acl_access", nullptr, 0), 0);
        EXPECT_LT(::lgetxattr(path(name).c_str(), "system.posix_acl_default", nullptr, 0), 0);
    }
    EXPECT_EQ(status_of("d/e").st_mode, S_IFDIR | 0755u);
}

TEST_F(ApplyRules, AnAccessListAndTheModeAgree) {
    create(kFile, kTop, "f", file(0600));
    const std::string acl{
        "\2\0\0\0\1\0\6\0\377\377\377\377\2\0\6\0\1\0\0\0"
        "\4\0\4\0\377\377\377\377\20\0\6\0\377\377\377\377\40\0\0\0\377\377\377\377",
        44};
    log.add(SetXattrOp{.object = kFile, .name = "system.posix_acl_access", .value = bytes(acl)});
    log.add(AttributesOp{.object = kFile, .attributes = file(0660)});
    apply_all();
    EXPECT_EQ(status_of("f").st_mode & 07777, 0660u);
    log.add(AttributesOp{.object = kFile, .attributes = file(0640)});
    apply_all();
    char value[64];
    ASSERT_EQ(::lgetxattr(path("f").c_str(), "system.posix_acl_access", value, sizeof value), 44);
    EXPECT_EQ(value[30], 4) << "the mask follows the mode";
}

TEST_F(ApplyRules, CapabilitiesOutliveANewOwner) {
    create(kFile, kTop, "f", file(0755));
    const std::string capability{"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20};
    log.add(SetXattrOp{.object = kFile, .name = "security.capability", .value = bytes(capability)});
    log.add(
        AttributesOp{.object = kFile,
                     .attributes = {.mode = S_IFREG | 06755, .uid = 3, .gid = 3, .mtime = {8, 8}}});
    apply_all();
    EXPECT_EQ(status_of("f").st_mode & 07777, 06755u);
    EXPECT_EQ(::lgetxattr(path("f").c_str(), "security.capability", nullptr, 0), 20);
}

TEST_F(ApplyRules, ADirectoryThatAnAdoptedOneLeavesKeepsItsTime) {
    create(kFolder, kTop, "d", directory());
    create(kOther, kFolder, "e", directory());
    apply_all();
    adopt(kOther, kTop, "e", directory());
    apply_all_killed_everywhere();
    EXPECT_EQ(status_of("d").st_mtim.tv_sec, 9);
    EXPECT_TRUE(std::filesystem::is_empty(path("d")));
}

TEST_F(ApplyRules, WhatAStatementDropsIsKeptUntilAllIsTold) {
    create(kFolder, kTop, "d", directory());
    create(kFile, kFolder, "f", file());
    write(kFile, "content that nobody tells again");
    apply_all();
    state_empty(kTop);  // "d" was renamed underneath, and "f" out of it
    apply_all_killed_everywhere();
    EXPECT_TRUE(std::filesystem::is_empty(folder.path() + "/tree/top"));
    EXPECT_FALSE(empty("parked"));
    adopt(kFile, kTop, "g", file());
    apply_all_killed_everywhere();
    EXPECT_EQ(content("g"), "content that nobody tells again");
    adopt(kFolder, kTop, "h", directory());
    state_empty(kFolder);
    apply_all();
    EXPECT_EQ(status_of("g").st_nlink, 1u);
    EXPECT_TRUE(empty("parked"));
    EXPECT_EQ(replica.index().size(), 3u);
}

TEST_F(ApplyRules, AParkedFileThatHasANameAgainHasOnlyThat) {
    create(kFile, kTop, "f", file());
    apply_all();
    state_empty(kTop);
    apply_all();
    EXPECT_FALSE(empty("parked"));
    adopt(kFile, kTop, "g", file());
    apply_all();
    EXPECT_EQ(status_of("g").st_nlink, 1u);
    EXPECT_TRUE(empty("parked"));
}

TEST_F(ApplyRules, WhatWasNeverToldAgainIsGoneAtTheEndOfAWalk) {
    create(kFolder, kTop, "d", directory());
    create(kFile, kFolder, "f", file());
    apply_all();
    write(kFile, "logged before it went");
    state_empty(kTop);
    log.add(SeededOp{.generation = 1});
    apply_all_killed_everywhere();
    EXPECT_TRUE(empty("parked"));
    apply_all();
    EXPECT_GE(replica.index().size(), 1u);
}

TEST_F(ApplyRules, ANewWalkInTheSameRangeKeepsWhatItDrops) {
    create(kFile, kTop, "f", file());
    write(kFile, "kept");
    apply_all();
    log.add(SeededOp{.generation = 1});
    adopt(kFolder, kTop, "f", directory());  // stands where the file stood
    apply_all();
    adopt(kFile, kTop, "g", file());
    apply_all();
    EXPECT_EQ(content("g"), "kept");
}

TEST_F(ApplyRules, TheIndexForgetsWhatIsGone) {
    create(kFile, kTop, "f", file());
    create(kFolder, kTop, "d", directory());
    apply_all();
    unlink(kFile, kTop, "f");
    unlink(kFolder, kTop, "d");
    apply_all_killed_everywhere();
    EXPECT_EQ(replica.index().size(), 1u);
}

TEST_F(ApplyRules, PathsMayBeLongerThanTheKernelNames) {
    const std::string name(250, 'n');
    ObjectId parent = kTop;
    for (std::uint64_t i = 0; i < 40; ++i) {
        create(ObjectId{100 + i}, parent, name, directory());
        parent = ObjectId{100 + i};
    }
    create(kFolder, parent, "deep", directory());
    create(kFile, kFolder, "f", file());
    apply_all();
    for (const auto& [source, target, name_there] :
         {std::tuple{parent, kTop, "up"}, std::tuple{kTop, parent, "down"}}) {
        log.add(RenameOp{.object = kFolder,
                         .source_parent = source,
                         .source_name = source == kTop ? "up" : "deep",
                         .target_parent = target,
                         .target_name = name_there,
                         .replaced = kNoObject,
                         .exchange = 0,
                         .source_mtime = {3, 3},
                         .target_mtime = {4, 4}});
        apply_all_killed_everywhere();
    }
    log.add(RenameOp{.object = ObjectId{110},
                     .source_parent = ObjectId{109},
                     .source_name = name,
                     .target_parent = kTop,
                     .target_name = "top",
                     .replaced = kNoObject,
                     .exchange = 0,
                     .source_mtime = {3, 3},
                     .target_mtime = {4, 4}});
    unlink(kFile, kFolder, "f");
    apply_all();
    EXPECT_EQ(status_of("top").st_mtim.tv_sec, 9);
}

TEST_F(ApplyRules, NoLinkLeadsOutOfTheTree) {
    apply_all();
    std::filesystem::create_directory(folder.path() + "/outside");
    std::filesystem::create_directory_symlink(folder.path() + "/outside",
                                              folder.path() + "/tree/link");
    log.add(DirectoryOp{.object = kFolder, .path = "/link/inside", .attributes = directory()});
    EXPECT_FALSE(replica.apply_until(log, log.size()).ok());
    EXPECT_TRUE(empty("outside"));
}

TEST(ResetTree, EmptiesTheStoreAndNothingElse) {
    const Folder folder{"/var/tmp"};
    const std::string store = folder.path() + "/store";
    std::filesystem::create_directories(store + "/tree/a/b");
    std::filesystem::create_directories(store + "/journal");
    std::filesystem::create_directories(folder.path() + "/outside/kept");
    std::filesystem::create_directory_symlink(folder.path() + "/outside", store + "/tree/a/link");
    std::ofstream{store + "/tree/a/file"} << "x";
    std::ofstream{store + "/extra"} << "x";
    const auto status = reset_tree(store, {"extra", "missing"});
    ASSERT_TRUE(status.ok()) << status.error().text();
    EXPECT_TRUE(std::filesystem::is_empty(store + "/tree"));
    EXPECT_FALSE(std::filesystem::exists(store + "/extra"));
    EXPECT_TRUE(std::filesystem::exists(store + "/journal"));
    EXPECT_TRUE(std::filesystem::exists(folder.path() + "/outside/kept"));
    EXPECT_FALSE(reset_interrupted(store).value());
}

TEST(ResetTree, ATreeThatIsALinkIsRefused) {
    const Folder folder{"/var/tmp"};
    std::filesystem::create_directories(folder.path() + "/outside/kept");
    std::filesystem::create_directory(folder.path() + "/store");
    std::filesystem::create_directory_symlink(folder.path() + "/outside",
                                              folder.path() + "/store/tree");
    EXPECT_FALSE(reset_tree(folder.path() + "/store", {}).ok());
    EXPECT_TRUE(std::filesystem::exists(folder.path() + "/outside/kept"));
    EXPECT_TRUE(reset_interrupted(folder.path() + "/store").value());
}

}  // namespace
}  // namespace twinspool
