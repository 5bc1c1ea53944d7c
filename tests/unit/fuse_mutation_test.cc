// SPDX-License-Identifier: Apache-2.0
// Act, then log: what each change leaves in the journal, and what must leave nothing there.
#include <linux/fs.h>

#include <thread>

#include "fuse/objects/xattrs.h"
#include "tests/unit/fuse_support.h"

namespace twinspool::test {
namespace {

// u::rwx,u:1:rwx,g::r-x,m::rwx,o::--- as the kernel keeps it in an xattr.
std::vector<std::uint32_t> some_acl() {
    constexpr std::uint32_t kVersion = 2;
    const auto entry = [](std::uint32_t tag, std::uint32_t permissions) {
        return tag | permissions << 16;
    };
    constexpr std::uint32_t kNobody = 0xffffffff;
    return {kVersion, entry(1, 7),    kNobody, entry(2, 7),    1,      entry(4, 5),
            kNobody,  entry(0x10, 7), kNobody, entry(0x20, 0), kNobody};
}

void set_acl(const std::string& path, const char* name) {
    const auto acl = some_acl();
    ASSERT_EQ(::setxattr(path.c_str(), name, acl.data(), acl.size() * sizeof acl[0], 0), 0);
}

class FuseMutation : public FuseTest {};

TEST_F(FuseMutation, EachChangeIsLoggedOnce) {
    const ObjectId file = create("file");
    EXPECT_EQ(logged(), Words{"create"});
    EXPECT_TRUE(write(file, "hello").ok());
    EXPECT_EQ(logged(), Words{"write"});
    EXPECT_TRUE(call(make_link, file, root(), "other").ok());
    EXPECT_EQ(logged(), Words{"link"});
    EXPECT_TRUE(rename("other", "third").ok());
    EXPECT_EQ(logged(), Words{"rename"});
    EXPECT_TRUE(unlink("third").ok());
    EXPECT_EQ(logged(), Words{"unlink"});
    EXPECT_TRUE(call(set_attributes, file, AttributeChange{.set_size = true, .size = 2}).ok());
    EXPECT_EQ(logged(), Words{"truncate"});
    EXPECT_TRUE(call(set_attributes, file, AttributeChange{.set_mode = true, .mode = 0600}).ok());
    EXPECT_EQ(logged(), Words{"attributes"});
    EXPECT_TRUE(call(allocate, file, 0, off_t{0}, off_t{8192}).ok());
    EXPECT_EQ(logged(), Words{"allocate"});
    EXPECT_TRUE(call(set_xattr, file, "user.a", Bytes{}, 0).ok());
    EXPECT_EQ(logged(), Words{"setxattr"});
    EXPECT_TRUE(call(remove_xattr, file, "user.a").ok());
    EXPECT_EQ(logged(), Words{"removexattr"});
    EXPECT_TRUE(call(make_symlink, root(), "link", "target").ok());
    EXPECT_EQ(logged(), Words{"create"});
}

TEST_F(FuseMutation, WhatFailsIsNotLogged) {
    create("file");
    create("directory", root(), S_IFDIR | 0755);
    logged();
    EXPECT_EQ(error_of(call(make_object, root(), "file", NewObject{.mode = S_IFREG | 0644})),
              EEXIST);
    EXPECT_EQ(error_of(unlink("missing")), ENOENT);
    EXPECT_EQ(error_of(rename("missing", "file")), ENOENT);
    EXPECT_EQ(error_of(rename("file", "directory")), EISDIR);
    EXPECT_EQ(error_of(rename("file", "directory", RENAME_NOREPLACE)), EEXIST);
    EXPECT_EQ(error_of(rename("file", "missing", RENAME_EXCHANGE)), ENOENT);
    EXPECT_EQ(error_of(call(remove_name, root(), "file", Removed::kDirectory)), ENOTDIR);
    EXPECT_EQ(logged(), Words{});
}

TEST_F(FuseMutation, RenamingAnObjectOntoItsOtherNameDoesNothing) {
    const ObjectId file = create("a");
    EXPECT_TRUE(call(make_link, file, root(), "b").ok());
    logged();
    EXPECT_TRUE(rename("a", "b").ok());
    EXPECT_EQ(::access(path("a").c_str(), F_OK), 0);
    EXPECT_EQ(logged(), Words{});
}

TEST_F(FuseMutation, ANewObjectIsToldAndCompleteFromTheStart) {
    const ObjectId file = create("file");
    const auto found = identity("file");
    ASSERT_TRUE(found);
    EXPECT_EQ(found->object, file);
    EXPECT_EQ(found->generation, kGeneration);
    EXPECT_TRUE(found->complete);
}

TEST_F(FuseMutation, AnUnlinkedObjectIsChangedWithoutARecord) {
    const ObjectId file = create("file");
    EXPECT_TRUE(unlink("file").ok());
    logged();
    EXPECT_TRUE(write(file, "nobody will read this").ok());
    EXPECT_TRUE(call(set_attributes, file, AttributeChange{.set_size = true, .size = 1}).ok());
    EXPECT_EQ(logged(), Words{});
}

TEST_F(FuseMutation, AnObjectThatWasNotToldIsChangedWithoutARecord) {
    const ObjectId file = create("file");
    logged();
    volume->generation = kGeneration + 1;  // a new seed
    EXPECT_TRUE(write(file, "the walker's").ok());
    EXPECT_EQ(logged(), Words{});
}

TEST_F(FuseMutation, ANameInADirectoryThatWasNotToldTellsOfItFirst) {
    const ObjectId directory = create("directory", root(), S_IFDIR | 0755);
    const ObjectId inner = create("inner", directory, S_IFDIR | 0755);
    logged();
    volume->generation = kGeneration + 1;
    create("file", inner);
    EXPECT_EQ(logged(), (Words{"directory", "adopt", "adopt", "create"}));
}

TEST_F(FuseMutation, OurOwnXattrsAreNobodysBusiness) {
    const ObjectId file = create("file");
    EXPECT_EQ(error_of(call(set_xattr, file, kIdentityXattr, Bytes{}, 0)), EPERM);
    EXPECT_EQ(error_of(call(remove_xattr, file, kIdentityXattr)), EPERM);
    EXPECT_EQ(error_of(call(get_xattr, file, kIdentityXattr, std::size_t{100})), ENODATA);
    const Answered list = call(list_xattrs, file, std::size_t{0});
    ASSERT_TRUE(list.ok());
    EXPECT_EQ(std::get<Answer::Size>(list.value().kind).size, 0U);
}

TEST_F(FuseMutation, AModeChangesTheAclAndBothAreLogged) {
    const ObjectId file = create("file");
    set_acl(path("file"), kAccessAcl);
    volume->inodes.find(file)->xattrs = Knowledge::kUnknown;
    logged();
    EXPECT_TRUE(call(set_attributes, file, AttributeChange{.set_mode = true, .mode = 0600}).ok());
    EXPECT_EQ(logged(), (Words{"attributes", "setxattr"}));
    EXPECT_TRUE(call(remove_xattr, file, kAccessAcl).ok());
    EXPECT_EQ(logged(), (Words{"removexattr", "attributes"}));
}

TEST_F(FuseMutation, AnObjectInheritsTheAclOfItsDirectory) {
    const ObjectId directory = create("directory", root(), S_IFDIR | 0755);
    set_acl(path("directory"), kDefaultAcl);
    volume->inodes.find(directory)->default_acl = Knowledge::kUnknown;
    logged();
    create("file", directory, S_IFREG | 0666);
    EXPECT_EQ(logged(), (Words{"create", "setxattr", "attributes"}));
}

TEST_F(FuseMutation, AWriteTakesSetIdBitsAwayUnlessTheWriterMayKeepThem) {
    const ObjectId file = create("file", root(), S_IFREG | 06755);
    logged();
    const std::string text = "x";
    const Bytes data{std::as_bytes(std::span{text})};
    EXPECT_TRUE(call(write_data, file, data, off_t{0}, Privileges::kKeep, Written::kByCall).ok());
    EXPECT_EQ(logged(), Words{"write"});
    EXPECT_TRUE(call(write_data, file, data, off_t{0}, Privileges::kKill, Written::kByCall).ok());
    EXPECT_EQ(logged(), (Words{"write", "attributes"}));
    struct stat now {};
    ASSERT_EQ(::stat(path("file").c_str(), &now), 0);
    EXPECT_EQ(now.st_mode & 07777, 0755U);
}

TEST_F(FuseMutation, AThreadThatMustNotWaitIsNotHeldUpByALock) {
    const ObjectId file = create("file");
    const InodeRef inode = volume->inodes.find(file);
    std::unique_lock held{inode->mutex};
    std::thread other{[&] {
        Turn turn{*journal, Turn::Waiting::kForbidden};
        const std::string text = "x";
        const Answered answered =
            write_data(*volume, turn, {}, file, Bytes{std::as_bytes(std::span{text})}, 0,
                       Privileges::kKeep, Written::kByCall);
        ASSERT_FALSE(answered.ok());
        EXPECT_TRUE(Ending{answered.error().code}.is_busy());
    }};
    other.join();
    EXPECT_EQ(logged(), Words{"create"});
}

TEST_F(FuseMutation, WithoutCreditARequestIsToComeAgain) {
    const ObjectId file = create("file");
    std::size_t taken = 0;
    while (journal->try_take_credit(1 << 20)) taken += 1 << 20;
    while (journal->try_take_credit(64)) taken += 64;
    const Answered answered = write(file, "hello");
    ASSERT_FALSE(answered.ok());
    EXPECT_TRUE(Ending{answered.error().code}.lacks_credit());
    journal->give_credit(taken);
    EXPECT_TRUE(write(file, "hello").ok());
}

}  // namespace
}  // namespace twinspool::test
