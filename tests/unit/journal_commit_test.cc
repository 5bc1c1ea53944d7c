// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

#include "journal/log/commit.h"

namespace twinspool {
namespace {

class Waiter final : public CommitWaiter {
   public:
    void answered(int error) override {
        ++answers;
        last_error = error;
    }
    int answers = 0;
    int last_error = -1;
};

TEST(Commit, WaitsForLocalAndStandby) {
    Commit commit{CommitMode::kFsync, 1, Lsn{0}, Lsn{0}};
    Waiter waiter;
    commit.wait(waiter, Lsn{5});
    commit.local_durable(Lsn{5});
    EXPECT_EQ(waiter.answers, 0) << "one copy is not two";
    commit.standby_durable(0, Lsn{4});
    EXPECT_EQ(waiter.answers, 0);
    commit.standby_durable(0, Lsn{5});
    EXPECT_EQ(waiter.answers, 1);
    EXPECT_EQ(waiter.last_error, 0);
}

TEST(Commit, StandbyAheadOfLocalIsNotEnough) {
    Commit commit{CommitMode::kFsync, 1, Lsn{0}, Lsn{0}};
    Waiter waiter;
    commit.wait(waiter, Lsn{5});
    commit.standby_durable(0, Lsn{9});
    EXPECT_EQ(waiter.answers, 0);
    EXPECT_EQ(commit.committed(), Lsn{0});
    commit.local_durable(Lsn{7});
    EXPECT_EQ(waiter.answers, 1);
    EXPECT_EQ(commit.committed(), Lsn{7});
}

TEST(Commit, AsyncWaitsForLocalOnly) {
    Commit commit{CommitMode::kAsync, 1, Lsn{0}, Lsn{0}};
    Waiter waiter;
    commit.wait(waiter, Lsn{5});
    commit.local_durable(Lsn{5});
    EXPECT_EQ(waiter.answers, 1);
    commit.set_waited_for(0, true);
    commit.wait(waiter, Lsn{6});
    commit.local_durable(Lsn{6});
    EXPECT_EQ(waiter.answers, 2);
}

TEST(Commit, GivingUpAStandbyAnswersWhoWaitedForIt) {
    Commit commit{CommitMode::kFsync, 1, Lsn{0}, Lsn{0}};
    Waiter waiter;
    commit.wait(waiter, Lsn{5});
    commit.local_durable(Lsn{5});
    commit.set_waited_for(0, false);
    EXPECT_EQ(waiter.answers, 1);
}

TEST(Commit, CommittedNeverFallsWhenAStandbyComesBackBehind) {
    Commit commit{CommitMode::kFsync, 1, Lsn{0}, Lsn{0}};
    commit.set_waited_for(0, false);
    commit.local_durable(Lsn{50});
    EXPECT_EQ(commit.committed(), Lsn{50});
    commit.standby_durable(0, Lsn{10});
    commit.set_waited_for(0, true);
    EXPECT_EQ(commit.committed(), Lsn{50});
    Waiter waiter;
    commit.local_durable(Lsn{51});
    commit.wait(waiter, Lsn{51});
    EXPECT_EQ(waiter.answers, 0);
    commit.standby_durable(0, Lsn{51});
    EXPECT_EQ(waiter.answers, 1);
}

TEST(Commit, AllStandbysAreWaitedFor) {
    Commit commit{CommitMode::kFsync, 2, Lsn{0}, Lsn{0}};
    Waiter waiter;
    commit.wait(waiter, Lsn{1});
    commit.local_durable(Lsn{1});
    commit.standby_durable(0, Lsn{1});
    EXPECT_EQ(waiter.answers, 0);
    commit.standby_durable(1, Lsn{1});
    EXPECT_EQ(waiter.answers, 1);
}

TEST(Commit, AnyStandbyWillDo) {
    Commit commit{CommitMode::kFsync, 2, Lsn{0}, Lsn{0}, AckRule::kAny};
    commit.local_durable(Lsn{5});
    EXPECT_EQ(commit.committed(), Lsn{0}) << "one copy is not two";
    commit.standby_durable(1, Lsn{9});
    EXPECT_EQ(commit.committed(), Lsn{5}) << "never beyond what is durable here";
    commit.local_durable(Lsn{7});
    EXPECT_EQ(commit.committed(), Lsn{7});
}

TEST(Commit, AnyIsOfThoseThatAreWaitedFor) {
    Commit commit{CommitMode::kFsync, 2, Lsn{0}, Lsn{0}, AckRule::kAny};
    commit.set_waited_for(1, false);
    commit.local_durable(Lsn{5});
    commit.standby_durable(1, Lsn{5});
    EXPECT_EQ(commit.committed(), Lsn{0}) << "nobody waits for it, so it does not count";
    commit.standby_durable(0, Lsn{3});
    EXPECT_EQ(commit.committed(), Lsn{3});
    commit.set_waited_for(0, false);
    EXPECT_EQ(commit.committed(), Lsn{5}) << "nobody is waited for any more";
}

TEST(Commit, WaitersAreAnsweredInOrderOfTheirLsn) {
    Commit commit{CommitMode::kFsync, 0, Lsn{0}, Lsn{0}};
    Waiter five;
    Waiter three;
    Waiter seven;
    commit.wait(five, Lsn{5});
    commit.wait(three, Lsn{3});
    commit.wait(seven, Lsn{7});
    commit.local_durable(Lsn{4});
    EXPECT_EQ(three.answers, 1);
    EXPECT_EQ(five.answers, 0);
    commit.local_durable(Lsn{6});
    EXPECT_EQ(five.answers, 1);
    EXPECT_EQ(seven.answers, 0);
}

TEST(Commit, FailureAnswersAllAndStays) {
    Commit commit{CommitMode::kFsync, 0, Lsn{0}, Lsn{0}};
    Waiter waiter;
    commit.wait(waiter, Lsn{5});
    commit.fail(EIO);
    EXPECT_EQ(waiter.last_error, EIO);
    Waiter late;
    commit.wait(late, Lsn{6});
    EXPECT_EQ(late.last_error, EIO);
    EXPECT_FALSE(commit.wait_local(Lsn{6}).ok());
}

TEST(Commit, TimeOutLeavesTheQueueWhole) {
    Commit commit{CommitMode::kFsync, 1, Lsn{0}, Lsn{0}};
    Waiter before;
    Waiter behind;
    commit.wait(before, Lsn{1});
    commit.wait(behind, Lsn{9});
    const auto waited = commit.wait_committed(Lsn{5}, std::chrono::milliseconds{5});
    ASSERT_TRUE(waited.ok());
    EXPECT_FALSE(waited.value());
    commit.local_durable(Lsn{9});
    commit.standby_durable(0, Lsn{9});
    EXPECT_EQ(before.answers, 1);
    EXPECT_EQ(behind.answers, 1);
}

TEST(Commit, EveryWaiterIsAnsweredOnceUnderManyThreads) {
    Commit commit{CommitMode::kFsync, 1, Lsn{0}, Lsn{0}};
    constexpr std::uint64_t kLast = 20000;
    std::vector<Waiter> waiters(kLast);
    std::thread local{[&] {
        for (std::uint64_t i = 1; i <= kLast; ++i) commit.local_durable(Lsn{i});
    }};
    std::thread standby{[&] {
        for (std::uint64_t i = 1; i <= kLast; ++i) commit.standby_durable(0, Lsn{i});
    }};
    for (std::uint64_t i = 0; i < kLast; ++i) commit.wait(waiters[i], Lsn{i + 1});
    local.join();
    standby.join();
    for (const Waiter& each : waiters) EXPECT_EQ(each.answers, 1);
}

}  // namespace
}  // namespace twinspool
