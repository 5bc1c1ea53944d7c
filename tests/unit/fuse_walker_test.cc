// SPDX-License-Identifier: Apache-2.0
// Telling the standbys of what is already there: on the way, by the walker, and after changes that
// were made underneath.
#include <algorithm>
#include <mutex>
#include <thread>

#include "tests/unit/fuse_support.h"

namespace twinspool::test {
namespace {

class FuseWalker : public FuseTest {
   protected:
    // Down, something happens underneath, up again.
    template <typename Happening>
    void underneath(Happening&& happening) {
        stop();
        happening();
        start({.suspicion = Volume::Suspicion::kSet});
    }
    static std::ptrdiff_t count(const Words& words, const char* word) {
        return std::count(words.begin(), words.end(), word);
    }
    void know_two_names_and_begin_anew() {
        put("a", "content");
        ASSERT_EQ(::link(path("a").c_str(), path("b").c_str()), 0);
        volume->walking = true;
        look("a");
        look("b");
        volume->gate.close();
        volume->begin_generation(kGeneration + 1, false);
        volume->gate.open();
    }
    // Under the name that is left, in full.
    void expect_a_seed_tells_the_object_again() {
        logged();
        walk(Walker::Round::kSeed);
        const Words words = logged();
        EXPECT_EQ(count(words, "adopt"), 1);
        EXPECT_EQ(count(words, "write"), 1);
    }
    void seed() {
        walk(Walker::Round::kSeed);
        logged();
    }
};

TEST_F(FuseWalker, ALookupTellsOnceAndNeverTheContent) {
    put("old", "content");
    const ObjectId old = look("old");
    EXPECT_EQ(logged(), Words{"adopt"});
    EXPECT_EQ(look("old"), old);
    EXPECT_EQ(logged(), Words{});
    const auto found = identity("old");
    ASSERT_TRUE(found);
    EXPECT_EQ(found->object, old);
    EXPECT_FALSE(found->complete);
}

TEST_F(FuseWalker, ACopyThatCarriesAnIdentityGetsItsOwn) {
    const ObjectId file = create("file");
    char value[200];
    const ssize_t size = ::getxattr(path("file").c_str(), kIdentityXattr, value, sizeof value);
    put("copy", "");
    ASSERT_EQ(
        ::setxattr(path("copy").c_str(), kIdentityXattr, value, static_cast<std::size_t>(size), 0),
        0);
    logged();
    const ObjectId copy = look("copy");
    EXPECT_NE(copy, file);
    EXPECT_EQ(logged(), Words{"adopt"});
}

TEST_F(FuseWalker, WhatIsBeingMadeIsNotGivenAnotherIdentity) {
    const InodeRef parent = volume->inodes.find(root());
    std::unique_lock maker{parent->mutex};
    put("new", "");  // made, and neither marked nor in the table yet
    {
        Turn turn{*journal, Turn::Waiting::kForbidden};
        const auto found = find_entry(*volume, turn, *parent, "new");
        ASSERT_FALSE(found.ok());
        EXPECT_TRUE(Ending{found.error().code}.is_busy());
    }
    ObjectId met{};
    std::thread walker{[&] { met = look("new"); }};
    const Fd made{::open(path("new").c_str(), O_RDONLY)};
    const auto handle = handle_of(made.get());
    ASSERT_TRUE(handle.ok());
    const ObjectId id = journal->new_object_id();
    ASSERT_TRUE(write_identity(
                    made.get(),
                    {.object = id, .generation = kGeneration, .complete = true, .handle = *handle})
                    .ok());
    maker.unlock();
    walker.join();
    EXPECT_EQ(met, id);
}

TEST_F(FuseWalker, ASeedTellsEverythingWithItsContent) {
    put("file", "content");
    ASSERT_EQ(::mkdir(path("directory").c_str(), 0755), 0);
    put("directory/inner", "more");
    ASSERT_EQ(::symlink("target", path("link").c_str()), 0);
    walk(Walker::Round::kSeed);
    const Words words = logged();
    EXPECT_EQ(count(words, "adopt"), 4);
    EXPECT_EQ(count(words, "write"), 2);
    EXPECT_EQ(words.back(), "seeded");
    for (const char* name : {"file", "directory", "directory/inner", "link"}) {
        const auto found = identity(name);
        ASSERT_TRUE(found) << name;
        EXPECT_TRUE(found->complete) << name;
        EXPECT_EQ(found->generation, kGeneration) << name;
    }
    const WalkProgress progress = walker->progress();
    EXPECT_EQ(progress.objects_done, 4U);
    EXPECT_EQ(progress.objects_total, 4U);
    EXPECT_EQ(progress.bytes_done, 11U);
}

TEST_F(FuseWalker, AHoleIsNotLogged) {
    const Fd fd{::open(path("sparse").c_str(), O_CREAT | O_RDWR, 0644)};
    ASSERT_EQ(::pwrite(fd.get(), "x", 1, 100 << 20), 1);
    walk(Walker::Round::kSeed);
    EXPECT_EQ(count(logged(), "write"), 1);
}

TEST_F(FuseWalker, EachFurtherNameIsALink) {
    put("a", "content");
    ASSERT_EQ(::link(path("a").c_str(), path("b").c_str()), 0);
    walk(Walker::Round::kSeed);
    const Words words = logged();
    EXPECT_EQ(count(words, "adopt"), 1);
    EXPECT_EQ(count(words, "link"), 1);
    EXPECT_EQ(count(words, "write"), 1);
}

// The standby begins with nothing in the middle of a walk: what the walk knew counts no more.
TEST_F(FuseWalker, NamesKnownToAnEarlierGenerationAreToldAgain) {
    know_two_names_and_begin_anew();
    logged();
    walk(Walker::Round::kSeed);
    const Words words = logged();
    EXPECT_EQ(count(words, "adopt"), 1);
    EXPECT_EQ(count(words, "link"), 1);
}

TEST_F(FuseWalker, ANameOfAnEarlierGenerationDoesNotKeepAnObject) {
    know_two_names_and_begin_anew();
    look("a");
    ASSERT_TRUE(unlink("a").ok());
    expect_a_seed_tells_the_object_again();
}

TEST_F(FuseWalker, NothingIsLoggedTwice) {
    put("file", "content");
    seed();
    walk(Walker::Round::kSeed);
    EXPECT_EQ(logged(), Words{"seeded"});
}

TEST_F(FuseWalker, ANameThatGoesWhileOthersAreUntoldMakesTheObjectTold) {
    put("a", "content");
    ASSERT_EQ(::link(path("a").c_str(), path("b").c_str()), 0);
    look("a");
    volume->walking = true;
    ASSERT_TRUE(unlink("a").ok());
    expect_a_seed_tells_the_object_again();
}

TEST_F(FuseWalker, NothingWasChangedUnderneath) {
    put("file", "content");
    ASSERT_EQ(::mkdir(path("directory").c_str(), 0755), 0);
    seed();
    underneath([] {});
    walk(Walker::Round::kChanges);
    EXPECT_EQ(logged(), Words{"seeded"});
    EXPECT_EQ(walker->progress().found_changed, 0U);
}

TEST_F(FuseWalker, WhatThisReignChangesIsNotTakenForAChangeUnderneath) {
    put("file", "content");
    seed();
    underneath([] {});
    ASSERT_TRUE(write(look("file"), "new").ok());
    volume->inodes.forget(identity("file")->object, 1);
    create("fresh");
    logged();
    walk(Walker::Round::kChanges);
    EXPECT_EQ(logged(), Words{"seeded"});
    EXPECT_EQ(walker->progress().found_changed, 0U);
}

TEST_F(FuseWalker, AFileThatWasChangedUnderneathIsToldAgainWithItsContent) {
    put("file", "content");
    put("other", "same");
    seed();
    const ObjectId file = identity("file")->object;
    underneath([this] { put("file", "changed"); });
    walk(Walker::Round::kChanges);
    // The file, which is never emptied on the way; at the end the mtime of its directory.
    EXPECT_EQ(logged(),
              (Words{"adopt", "truncate", "write", "attributes", "attributes", "seeded"}));
    EXPECT_EQ(walker->progress().found_changed, 1U);
    EXPECT_EQ(identity("file")->object, file);
}

TEST_F(FuseWalker, AChangeUnderneathIsFoundEvenIfTheFileIsWrittenToFirst) {
    put("file", "0123456789");
    seed();
    underneath([this] { put("file", "abcdefghij"); });
    ASSERT_TRUE(write(look("file"), "X", 3).ok());
    logged();
    walk(Walker::Round::kChanges);
    EXPECT_EQ(count(logged(), "write"), 1);  // all of it
}

TEST_F(FuseWalker, WhatWasRemovedUnderneathIsStatedAfterAllAdditions) {
    put("gone", "x");
    put("stays", "y");
    seed();
    underneath([this] {
        ::unlink(path("gone").c_str());
        put("added", "z");
    });
    walk(Walker::Round::kChanges);
    const Words words = logged();
    const auto entries = std::find(words.begin(), words.end(), "entries");
    ASSERT_NE(entries, words.end());
    EXPECT_EQ(std::find(entries, words.end(), "adopt"), words.end());
    EXPECT_EQ(count(words, "adopt"), 1);
    EXPECT_EQ(count(words, "link"), 1);  // "stays" may stand there for the first time
}

TEST_F(FuseWalker, AnObjectMovedPastTheWalkerIsVisitedAllTheSame) {
    put("file", "content");
    ASSERT_EQ(::mkdir(path("directory").c_str(), 0755), 0);
    const ObjectId directory = look("directory");
    walker = std::make_unique<Walker>(*volume, Walker::Options{.standby_count = 0});
    volume->walk = walker.get();
    volume->walking = true;
    ASSERT_TRUE(call(rename_entry, root(), "file", directory, "file", 0U).ok());
    for (int i = 0; i < 2000 && !identity("directory/file")->complete; ++i) ::usleep(5000);
    EXPECT_TRUE(identity("directory/file")->complete);
}

}  // namespace
}  // namespace twinspool::test
