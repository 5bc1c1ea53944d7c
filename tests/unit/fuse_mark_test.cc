// SPDX-License-Identifier: Apache-2.0
// What a mark promises, with changes going on all the time.
#include <algorithm>
#include <array>
#include <thread>

#include "fuse/serve/mark.h"
#include "tests/unit/fuse_support.h"

namespace twinspool::test {
namespace {

using namespace std::chrono_literals;

TEST(Gate, WhoIsInsideForLongDoesNotKeepOthersOut) {
    Gate gate;
    std::atomic<bool> slow_is_in{false};
    std::atomic<bool> let_go{false};
    std::thread slow{[&] {
        const GatePass pass{gate};
        slow_is_in = true;
        while (!let_go) std::this_thread::sleep_for(1ms);
    }};
    while (!slow_is_in) std::this_thread::yield();
    const Gate::Attempt attempt = gate.try_close(1ms);
    EXPECT_FALSE(attempt.closed);
    EXPECT_GE(attempt.kept_out, 1ms);
    std::thread{[&] { const GatePass pass{gate}; }}.join();  // would hang
    std::thread closing{[&] {
        gate.close();
        EXPECT_GT(gate.open(), 0ns);
    }};
    // It waits for who waits at the gate, as for credit.
    std::thread{[&] { const GatePass pass{gate}; }}.join();
    let_go = true;
    slow.join();
    closing.join();
}

class FuseMark : public FuseTest {
   protected:
    Result<Marked> mark(std::string_view name, Incomplete incomplete = Incomplete::kRefused) {
        return append_mark(*volume, {.name = name, .incomplete = incomplete});
    }
    // The Lsn of each write, by file and offset: the number of the write.
    std::map<ObjectId, std::map<std::uint64_t, Lsn>> writes_logged() {
        const Lsn upto = journal->appended();
        EXPECT_TRUE(journal->make_durable(upto).ok());
        auto cursor = Cursor::open(options.directory, kVolume, seen + 1);
        std::map<ObjectId, std::map<std::uint64_t, Lsn>> found;
        for (auto frame = cursor->next(upto); frame.ok() && frame.value();
             frame = cursor->next(upto))
            EXPECT_TRUE(frame.value()
                            ->for_each([&](const Record& record) -> Status {
                                if (const auto* write = std::get_if<WriteOp>(&record.op))
                                    found[write->object][write->offset] = record.lsn;
                                return {};
                            })
                            .ok());
        return found;
    }
};

TEST_F(FuseMark, HasWhatWasAcknowledgedBeforeAndNothingThatBeganAfter) {
    constexpr std::size_t kThreads = 4;
    constexpr int kMarks = 100;
    struct Progress {
        ObjectId file{};
        std::atomic<std::uint64_t> begun{0};
        std::atomic<std::uint64_t> acknowledged{0};
    };
    std::array<Progress, kThreads> progress;
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < kThreads; ++i) {
        progress[i].file = create("file" + std::to_string(i));
        threads.emplace_back([&, i] {
            Progress& own = progress[i];
            for (std::uint64_t n = 0; !stop; ++n) {
                own.begun = n + 1;
                if (!write(own.file, "x", static_cast<off_t>(n)).ok()) return;
                own.acknowledged = n + 1;
            }
        });
    }
    struct Taken {
        Lsn lsn;
        std::array<std::uint64_t, kThreads> before{};
        std::array<std::uint64_t, kThreads> after{};
    };
    std::vector<Taken> all;
    for (int i = 0; i < kMarks; ++i) {
        Taken taken;
        for (std::size_t t = 0; t < kThreads; ++t) taken.before[t] = progress[t].acknowledged;
        const auto marked = mark("m" + std::to_string(i));
        ASSERT_TRUE(marked.ok());
        EXPECT_GT(marked->pause, 0ns);
        EXPECT_FALSE(marked->incomplete);
        taken.lsn = marked->lsn;
        for (std::size_t t = 0; t < kThreads; ++t) taken.after[t] = progress[t].begun;
        all.push_back(taken);
        std::this_thread::sleep_for(200us);
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    const auto writes = writes_logged();
    for (const Taken& taken : all)
        for (std::size_t t = 0; t < kThreads; ++t) {
            std::uint64_t below = 0;
            for (const auto& [number, lsn] : writes.at(progress[t].file))
                if (lsn < taken.lsn) below = number + 1;
            EXPECT_GE(below, taken.before[t]);
            EXPECT_LE(below, taken.after[t]);
        }
}

TEST_F(FuseMark, NeverStandsWithinAChangeOfSeveralRecords) {
    const std::string acl = std::string("\2\0\0\0", 4) +                    // version
                            std::string("\1\0\7\0\xff\xff\xff\xff", 8) +    // owner
                            std::string("\2\0\6\0\xe8\3\0\0", 8) +          // user 1000
                            std::string("\4\0\5\0\xff\xff\xff\xff", 8) +    // group
                            std::string("\x10\0\7\0\xff\xff\xff\xff", 8) +  // mask
                            std::string("\x20\0\5\0\xff\xff\xff\xff", 8);   // other
    if (::setxattr(tree.c_str(), "system.posix_acl_default", acl.data(), acl.size(), 0) != 0)
        GTEST_SKIP() << "no ACLs here";
    create("first");
    const Words change = logged();  // create, and the ACL that it inherits
    ASSERT_GT(change.size(), 1U);
    constexpr int kFiles = 300;
    std::atomic<int> created{0};
    std::thread creating{[&] {
        while (created < kFiles) create("file" + std::to_string(created++));
    }};
    while (created < kFiles) EXPECT_TRUE(mark("m").ok());
    creating.join();
    const Words words = logged();
    std::size_t at = 0;
    for (const std::string& word : words) {
        if (word == "mark") {
            EXPECT_EQ(at, 0U);
            continue;
        }
        EXPECT_EQ(word, change[at]);
        at = (at + 1) % change.size();
    }
}

TEST_F(FuseMark, IsRefusedWhileAWalkGoesOnUnlessAskedFor) {
    volume->walking = true;
    const auto refused = mark("m");
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, EAGAIN);
    EXPECT_EQ(logged(), Words{});
    const auto taken = mark("m", Incomplete::kAllowed);
    ASSERT_TRUE(taken.ok());
    EXPECT_TRUE(taken->incomplete);
    volume->walking = false;
    const auto whole = mark("n", Incomplete::kAllowed);
    ASSERT_TRUE(whole.ok());
    EXPECT_FALSE(whole->incomplete);
    const auto lines = logged_lines();
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_NE(lines[0].find("\"m\""), std::string::npos) << lines[0];
}

// As the walker inside, which may want credit that those at the gate have taken already.
TEST_F(FuseMark, DoesNotHangWhenWhoIsInsideWaitsForThoseOutside) {
    std::atomic<bool> outside_passed{false};
    std::atomic<bool> inside{false};
    std::thread insider{[&] {
        const GatePass pass{volume->gate};
        inside = true;
        while (!outside_passed) std::this_thread::sleep_for(100us);
    }};
    while (!inside) std::this_thread::yield();
    std::thread outsider{[&] {
        std::this_thread::sleep_for(3ms);  // the gate is being closed
        const GatePass pass{volume->gate};
        outside_passed = true;
    }};
    const auto marked = mark("m");
    outsider.join();
    insider.join();
    EXPECT_TRUE(marked.ok());
}

}  // namespace
}  // namespace twinspool::test
