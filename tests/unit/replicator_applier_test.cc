// SPDX-License-Identifier: Apache-2.0
// The applier on a real journal and a real catalogue: its limit, its batches, its retries, and a
// kill at each of its fault points.
#include "replicator/standby/applier.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "journal/base/fault.h"
#include "replicator_applier.h"
#include "replicator_model.h"

namespace twinspool {
namespace {

using test::kVolume;

class ApplierTest : public test::StoreTest {
   protected:
    // Everything that the model has logged so far, durable, as one frame or more.
    Lsn log_model() {
        log(model);
        EXPECT_TRUE(journal->make_durable(last).ok());
        return last;
    }
    Lsn act(int operations) {
        for (int i = 0; i < operations; ++i) model.act();
        return log_model();
    }
    [[nodiscard]] ApplierOptions applier_options() const {
        return {.store = folder.path(), .volume = kVolume};
    }
    static std::unique_ptr<Applier> open_applier(ApplierOptions wanted) {
        auto applier = Applier::open(std::move(wanted));
        EXPECT_TRUE(applier.ok()) << applier.error().text();
        return applier.ok() ? std::move(applier).value() : nullptr;
    }
    void expect_equal() { EXPECT_EQ(model.compare(folder.path()), ""); }
    static bool wait_until_applied(const Applier& applier, Lsn lsn, int milliseconds) {
        for (; applier.applied() < lsn && milliseconds > 0; --milliseconds) ::usleep(1000);
        return applier.applied() >= lsn;
    }

    test::Model model{42};
};

TEST_F(ApplierTest, StopsAtItsLimitAndGoesOnAfterAReopen) {
    const Lsn first = act(50);
    auto applier = open_applier(applier_options());
    ASSERT_TRUE(applier->run_until(first).ok());
    EXPECT_EQ(applier->applied(), first);
    expect_equal();
    const Lsn second = act(50);
    ASSERT_TRUE(applier->run_until(first).ok());
    EXPECT_EQ(applier->applied(), first);
    applier.reset();
    applier = open_applier(applier_options());
    EXPECT_EQ(applier->applied(), first);
    ASSERT_TRUE(applier->run_until(second).ok());
    expect_equal();
}

TEST_F(ApplierTest, SmallBatchesEndEqualToo) {
    auto wanted = applier_options();
    wanted.batch_records = 1;
    auto applier = open_applier(wanted);
    Lsn last;
    for (int i = 0; i < 20; ++i) last = act(10);
    ASSERT_TRUE(applier->run_until(last).ok());
    expect_equal();
}

TEST_F(ApplierTest, TheThreadAppliesWhatIsCommittedAndNoMore) {
    auto wanted = applier_options();
    std::atomic<std::uint64_t> announced{0};
    wanted.on_applied = [&](Lsn lsn) { announced = lsn.value; };
    auto applier = open_applier(wanted);
    applier->start();
    const Lsn first = act(30);
    const Lsn second = act(30);
    applier->committed(first);
    EXPECT_TRUE(wait_until_applied(*applier, first, 5000));
    ::usleep(100'000);
    EXPECT_EQ(applier->applied(), first);
    EXPECT_EQ(announced, first.value);
    applier->committed(second);
    applier->finish();
    EXPECT_EQ(applier->applied(), second);
    expect_equal();
}

TEST_F(ApplierTest, HurryTakesTheWaitingAway) {
    auto wanted = applier_options();
    wanted.delay = std::chrono::minutes{1};
    auto applier = open_applier(wanted);
    applier->start();
    const Lsn last = act(30);
    applier->committed(last);
    EXPECT_FALSE(wait_until_applied(*applier, last, 100));
    applier->hurry(last);
    EXPECT_TRUE(wait_until_applied(*applier, last, 5000));
    const Lsn next = act(1);
    applier->hurry(next);  // before it is committed
    applier->committed(next);
    EXPECT_TRUE(wait_until_applied(*applier, next, 5000));
}

TEST_F(ApplierTest, AFailedAttemptIsMadeAgain) {
    auto wanted = applier_options();
    std::atomic<bool> full{true};
    std::atomic<int> told{0};
    wanted.on_step = [&]() -> Status {
        return full ? Status{make_error(ENOSPC, "write 1 byte")} : Status{};
    };
    wanted.on_applied = [&](Lsn) { ++told; };
    auto applier = open_applier(wanted);
    applier->start();
    const Lsn last = act(30);
    applier->committed(last);
    for (int i = 0; i < 5000 && applier->error().ok(); ++i) ::usleep(1000);
    ASSERT_FALSE(applier->error().ok());
    EXPECT_EQ(applier->error().error().code, ENOSPC);
    EXPECT_EQ(applier->applied(), Lsn{});
    for (int i = 0; i < 1000 && told == 0; ++i) ::usleep(1000);
    EXPECT_GE(told, 1);
    full = false;
    applier->hurry(last);
    EXPECT_TRUE(wait_until_applied(*applier, last, 5000));
    applier->finish();
    EXPECT_TRUE(applier->error().ok());
    expect_equal();
}

TEST_F(ApplierTest, TheSeedIsRemembered) {
    auto applier = open_applier(applier_options());
    EXPECT_EQ(applier->seeded_generation(), 0u);
    append(*journal, SeededOp{.generation = 7});
    ASSERT_TRUE(applier->run_until(act(1)).ok());
    EXPECT_EQ(applier->seeded_generation(), 7u);
    applier = nullptr;
    EXPECT_EQ(open_applier(applier_options())->seeded_generation(), 7u);
}

TEST_F(ApplierTest, AnotherHistoryIsRefused) {
    const Lsn first = act(20);
    auto applier = open_applier(applier_options());
    ASSERT_TRUE(applier->begin_at({first, Chain{1234}}).ok());
    const auto status = applier->run_until(act(20));
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, EUCLEAN);
    EXPECT_EQ(applier->applied(), first);
}

TEST_F(ApplierTest, AnotherVolumesCatalogueIsRefused) {
    ASSERT_NE(open_applier(applier_options()), nullptr);
    auto wanted = applier_options();
    wanted.volume = kVolume + 1;
    const auto applier = Applier::open(wanted);
    ASSERT_FALSE(applier.ok());
    EXPECT_EQ(applier.error().code, EINVAL);
}

TEST_F(ApplierTest, ATreeWithoutItsCatalogueIsRefused) {
    auto applier = open_applier(applier_options());
    ASSERT_TRUE(applier->run_until(act(20)).ok());
    applier.reset();
    std::filesystem::remove_all(folder.path() + "/catalogue");
    EXPECT_FALSE(Applier::open(applier_options()).ok());
}

TEST_F(ApplierTest, AResetStoreTakesTheWholeJournalAgain) {
    const Lsn last = act(60);
    auto applier = open_applier(applier_options());
    ASSERT_TRUE(applier->run_until(last).ok());
    applier.reset();
    ASSERT_TRUE(reset_store(folder.path()).ok());
    // And one that was interrupted is finished by the next open.
    std::ofstream{folder.path() + "/resetting"};
    std::filesystem::create_directories(folder.path() + "/tree/left");
    applier = open_applier(applier_options());
    EXPECT_EQ(applier->applied(), Lsn{});
    EXPECT_FALSE(std::filesystem::exists(folder.path() + "/tree/left"));
    ASSERT_TRUE(applier->run_until(last).ok());
    expect_equal();
}

#ifdef TWINSPOOL_FAULTS
// Not a test of its own: the process that is killed in the one below. It is a fresh program,
// because each reads its choice of a fault point once.
TEST(ApplierChild, DISABLED_AppliesUntilItIsKilled) {
    const char* store = std::getenv("TWINSPOOL_TEST_STORE");
    const char* limit = std::getenv("TWINSPOOL_TEST_LIMIT");
    ASSERT_TRUE(store != nullptr && limit != nullptr);
    auto applier = Applier::open({.store = store, .volume = kVolume});
    ASSERT_TRUE(applier.ok()) << applier.error().text();
    const auto status = (*applier)->run_until(Lsn{std::strtoull(limit, nullptr, 10)});
    ASSERT_TRUE(status.ok()) << status.error().text();
}

// The process dies at the first passage of the point; false: it did not come by.
bool killed_at(const std::string& point, const ApplierOptions& wanted, Lsn limit) {
    const std::string number = std::to_string(limit.value);
    const pid_t child = ::fork();
    if (child == 0) {
        ::setenv("TWINSPOOL_FAULT", point.c_str(), 1);
        ::setenv("TWINSPOOL_TEST_STORE", wanted.store.c_str(), 1);
        ::setenv("TWINSPOOL_TEST_LIMIT", number.c_str(), 1);
        ::execl("/proc/self/exe", "test_replicator", "--gtest_also_run_disabled_tests",
                "--gtest_brief=1", "--gtest_filter=ApplierChild.*", nullptr);
        ::_exit(2);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << point;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

TEST_F(ApplierTest, AKillAtAnyFaultPointIsMadeGood) {
    for (const char* point : {"applier_begin", "applier_placed", "applier_removed",
                              "applier_contents", "applier_synced", "applier_committed"}) {
        const Lsn first = act(40);
        model.change_underneath(5);
        const Lsn second = log_model();
        EXPECT_TRUE(killed_at(point, applier_options(), first)) << point;
        EXPECT_TRUE(killed_at(point, applier_options(), second)) << point;
        const Lsn third = act(20);
        EXPECT_FALSE(killed_at("", applier_options(), third));
        expect_equal();
    }
}
#endif

}  // namespace
}  // namespace twinspool
