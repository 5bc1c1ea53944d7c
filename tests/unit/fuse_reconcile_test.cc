// SPDX-License-Identifier: Apache-2.0
// What a killed process had noted but not logged: looked at as it stands, and logged.
#include <csignal>

#include "fuse/serve/change.h"
#include "tests/unit/fuse_support.h"

namespace twinspool::test {
namespace {

// A child process notes `change`, does half of it past the journal, and is killed; then the next
// start.
class FuseReconcile : public FuseTest {
   protected:
    template <typename Prepare, typename Act>
    void killed_while(Prepare&& prepare, Act&& act) {
        stop();
        const pid_t child = ::fork();
        if (child == 0) {
            start({});
            prepare();
            Turn turn{*journal, Turn::Waiting::kAllowed};
            Change change{*volume, turn};
            if (!change.begin({volume->directories.front().root.get()}).is_done()) ::_exit(1);
            act(change);
            ::kill(::getpid(), SIGKILL);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status));
        start({});
        ASSERT_EQ(journal->predecessor().notes.size(), 1U);
        const Status done = reconcile(*volume);
        ASSERT_TRUE(done.ok()) << done.error().text();
    }
    [[nodiscard]] Inode& root_inode() { return *volume->directories.front().root; }
};

TEST_F(FuseReconcile, AnObjectThatWasMadeIsAdoptedUnderTheNotedId) {
    killed_while([] {},
                 [this](Change& change) {
                     change.note(root_inode(), "made", ObjectId{777}).noted();
                     put("made", "content");
                 });
    EXPECT_EQ(logged(), (Words{"adopt", "truncate", "write", "attributes"}));
    EXPECT_EQ(identity("made")->object, ObjectId{777});
}

TEST_F(FuseReconcile, AnObjectThatWasNotMadeIsNotThere) {
    killed_while(
        [] {},
        [this](Change& change) { change.note(root_inode(), "made", ObjectId{777}).noted(); });
    EXPECT_EQ(logged(), (Words{"unlink", "attributes"}));
}

TEST_F(FuseReconcile, AWriteIsLoggedAsFarAsItsRange) {
    killed_while(
        [this] { (void)write(create("file"), "0123456789"); },
        [this](Change& change) {
            change.note(*volume->inodes.find(identity("file")->object)).note_range(2, 3).noted();
            const Fd fd{::open(path("file").c_str(), O_WRONLY)};
            ASSERT_EQ(::pwrite(fd.get(), "abc", 3, 2), 3);
        });
    const auto lines = logged_lines();
    ASSERT_EQ(lines.size(), 4U);
    EXPECT_NE(lines[1].find("write"), std::string::npos);
    EXPECT_NE(lines[1].find('3'), std::string::npos);
    // What a write may have cost it.
    EXPECT_NE(lines[3].find("security.capability"), std::string::npos);
}

TEST_F(FuseReconcile, ARenameThatHappenedIsOneRecord) {
    killed_while([this] { create("from"); },
                 [this](Change& change) {
                     change.note(root_inode(), "from").note(root_inode(), "to").noted();
                     ASSERT_EQ(::rename(path("from").c_str(), path("to").c_str()), 0);
                 });
    const Words words = logged();
    ASSERT_FALSE(words.empty());
    EXPECT_EQ(words.front(), "rename");
}

TEST_F(FuseReconcile, ARenameThatDidNotHappenKeepsTheName) {
    killed_while([this] { create("from"); },
                 [this](Change& change) {
                     change.note(root_inode(), "from").note(root_inode(), "to").noted();
                 });
    const Words words = logged();
    ASSERT_GE(words.size(), 2U);
    EXPECT_EQ(words[0], "adopt");
    EXPECT_EQ(words[1], "unlink");
}

TEST_F(FuseReconcile, AnXattrThatWasRemovedIsNotThere) {
    killed_while([this] { (void)call(set_xattr, create("file"), "user.a", Bytes{}, 0); },
                 [this](Change& change) {
                     change.note(*volume->inodes.find(identity("file")->object))
                         .note_xattr("user.a")
                         .noted();
                     ASSERT_EQ(::removexattr(path("file").c_str(), "user.a"), 0);
                 });
    const auto lines = logged_lines();
    ASSERT_FALSE(lines.empty());
    EXPECT_NE(lines.back().find("user.a"), std::string::npos);
}

TEST_F(FuseReconcile, WhatIsLoggedAgainIsForgottenThen) {
    killed_while(
        [] {},
        [this](Change& change) { change.note(root_inode(), "made", ObjectId{777}).noted(); });
    restart({});
    EXPECT_TRUE(journal->predecessor().notes.empty());
}

}  // namespace
}  // namespace twinspool::test
