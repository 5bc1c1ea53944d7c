// SPDX-License-Identifier: Apache-2.0
// The small parts: gate, pool, known names, descriptors, table of objects, streams of entries.
#include <linux/fs.h>
#include <sys/fsuid.h>

#include <atomic>
#include <thread>

#include "fuse/kernel/process.h"
#include "fuse/serve/listing.h"
#include "tests/unit/fuse_support.h"

namespace twinspool::test {
namespace {

TEST(Gate, WhoClosesItIsAlone) {
    Gate gate;
    std::atomic<int> inside{0};
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            while (!stop) {
                const GatePass pass{gate};
                ++inside;
                --inside;
            }
        });
    for (int i = 0; i < 200; ++i) {
        gate.close();
        EXPECT_EQ(inside.load(), 0);
        gate.open();
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
}

TEST(Pool, RunsWhatIsQueuedBeforeItStops) {
    Pool pool;
    pool.start(2);
    std::atomic<int> done{0};
    for (int i = 0; i < 100; ++i) pool.post([&] { ++done; });
    pool.stop();
    EXPECT_EQ(done.load(), 100);
    pool.post([&] { ++done; });  // nobody left: at once
    EXPECT_EQ(done.load(), 101);
}

TEST(Process, AThreadActsForWhomItSaysWhoeverMadeIt) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    const auto acting = [] { return ::setfsuid(static_cast<uid_t>(-1)); };
    std::thread{[&] {
        act_as({.uid = 1000, .gid = 1000});
        EXPECT_EQ(acting(), 1000);
        std::thread{[&] {
            EXPECT_EQ(acting(), 1000);
            act_as({.uid = 0, .gid = 0});
            EXPECT_EQ(acting(), 0);
        }}.join();
    }}.join();
}

TEST(KnownNames, AnotherNameIsOneThatIsNotThis) {
    KnownNames names;
    const ObjectId object{7};
    const KnownNames::Name a{.parent = ObjectId{1}, .name = "a"};
    const KnownNames::Name b{.parent = ObjectId{1}, .name = "b"};
    names.insert(object, a);
    EXPECT_TRUE(names.contains(object, a));
    EXPECT_FALSE(names.contains_other(object, a));
    names.insert(object, b);
    EXPECT_TRUE(names.contains_other(object, a));
    names.erase(object, b);
    EXPECT_FALSE(names.contains_other(object, a));
}

class FuseParts : public FuseTest {};

TEST_F(FuseParts, AnObjectIsInTheTableAsLongAsTheKernelKnowsIt) {
    const ObjectId file = create("file");
    EXPECT_TRUE(volume->inodes.find(file));
    volume->inodes.forget(file, 1);
    EXPECT_FALSE(volume->inodes.find(file));
}

TEST_F(FuseParts, AnUnlinkedObjectIsNotFoundByItsBackingNumber) {
    const ObjectId file = create("file");
    const std::uint64_t number = volume->inodes.find(file)->number;
    EXPECT_TRUE(volume->inodes.find(0, number));
    ASSERT_TRUE(unlink("file").ok());
    EXPECT_FALSE(volume->inodes.find(0, number));
    EXPECT_TRUE(volume->inodes.find(file));
}

TEST_F(FuseParts, DescriptorsStayBelowTheirLimit) {
    restart({.limits = {.cached = 64, .pinned = 8}});
    std::vector<ObjectId> files;
    for (int i = 0; i < 500; ++i) files.push_back(create("file" + std::to_string(i)));
    EXPECT_LE(volume->descriptors.cached(), 64U);
    for (const ObjectId file : files) EXPECT_TRUE(write(file, "x").ok());
    EXPECT_LE(volume->descriptors.cached(), 64U);
}

TEST_F(FuseParts, AnUnlinkedFileStaysUsableBeyondTheLimitOfPinnedOnes) {
    restart({.limits = {.cached = 64, .pinned = 2}});
    std::vector<ObjectId> files;
    for (int i = 0; i < 10; ++i) {
        const std::string name = "file" + std::to_string(i);
        files.push_back(create(name));
        ASSERT_TRUE(unlink(name).ok());
    }
    EXPECT_EQ(volume->descriptors.pinned(), 2U);
    for (const ObjectId file : files) EXPECT_TRUE(write(file, "still here").ok());
    EXPECT_EQ(::access(path(kOrphansName).c_str(), F_OK), 0);
    const Answered hidden = call(look_up, root(), kOrphansName);
    ASSERT_TRUE(hidden.ok());
    EXPECT_TRUE(std::holds_alternative<Answer::NoEntry>(hidden.value().kind));
    EXPECT_EQ(error_of(call(make_object, root(), kOrphansName, NewObject{.mode = S_IFREG})), EPERM);
    for (const ObjectId file : files) volume->inodes.forget(file, 1);
    EXPECT_TRUE(clear_orphans(volume->directories.front()).ok());
    EXPECT_NE(::access(path(kOrphansName).c_str(), F_OK), 0);
}

TEST_F(FuseParts, AnObjectThatIsGoneIsStaleAlsoWhileItsNumberIsUsedAgain) {
    put("gone", "");
    const auto handle = handle_of(Fd{::open(path("gone").c_str(), O_RDONLY)}.get());
    ASSERT_TRUE(handle.ok());
    ASSERT_EQ(::unlink(path("gone").c_str()), 0);
    std::atomic<bool> stop{false};
    std::thread others{[&] {
        const std::string other = path("other");
        while (!stop) {
            Fd{::open(other.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0600)}.reset();
            ::unlink(other.c_str());
        }
    }};
    for (int i = 0; i < 20'000; ++i) {
        const auto opened = open_handle(backing.get(), *handle, O_PATH);
        ASSERT_FALSE(opened.ok());
        ASSERT_EQ(opened.error().code, ESTALE);
    }
    stop = true;
    others.join();
}

}  // namespace
}  // namespace twinspool::test
