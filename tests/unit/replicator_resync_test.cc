// SPDX-License-Identifier: Apache-2.0
// A resync on the standby's store: records are missed, all is told anew by hash into the old tree,
// with kills between any two system calls. What was there before stays readable until the end, and
// the end is the model's tree.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "replicator/past/past.h"
#include "replicator_applier.h"
#include "replicator_comparison.h"
#include "replicator_model.h"

namespace twinspool {
namespace {

using test::Comparison;
using test::kVolume;
using test::Model;

class ResyncTest : public test::AppliedStoreTest {
   protected:
    void wish(ApplierOptions& wanted) override {
        wanted.on_findings = [this](const std::vector<Finding>& some) {
            findings.insert(findings.end(), some.begin(), some.end());
            found += some.size();
        };
        wanted.on_step = [this]() -> Status {
            if (steps == 0) return make_error(EINTR, "go on: killed");
            --steps;
            return {};
        };
    }
    void durable() {
        log(*model);
        ASSERT_TRUE(journal->make_durable(last).ok());
    }
    void mark(const std::string& name) {
        durable();
        last = append(*journal, MarkOp{.name = name, .time = WallTime{5}});
        pictures[last] = model->picture();
    }
    // Killed now and then if `random` says so.
    void apply(std::mt19937_64* random = nullptr) {
        durable();
        for (bool done = false; !done;) {
            steps = random == nullptr || (*random)() % 2 == 0 ? UINT64_MAX : (*random)() % 120;
            const auto status = applier->run_until(last);
            done = status.ok();
            ASSERT_TRUE(done || status.error().code == EINTR) << status.error().text() << when;
            steps = UINT64_MAX;
            kills += done ? 0 : 1;
            ASSERT_NO_FATAL_FAILURE(expect_past(done ? "" : " killed"));
            if (!done && (*random)() % 2 == 0) open_applier();
        }
        ASSERT_EQ(applier->applied(), last);
    }
    // The standby never gets what is logged since it has applied last.
    void begin_resync(std::uint32_t generation) {
        durable();
        const auto begun = applier->begin_resync({.position = {.lsn = last},
                                                  .generation = generation,
                                                  .epoch_number = 7,
                                                  .epoch_id = 77});
        ASSERT_TRUE(begun.ok()) << begun.error().text();
        ASSERT_EQ(applier->applied(), last);
    }
    // Until there is nothing left to be said.
    void answer_all(std::mt19937_64* random = nullptr) {
        while (model->answer(std::exchange(findings, {}))) ASSERT_NO_FATAL_FAILURE(apply(random));
    }
    void expect_past(const std::string& what) {
        auto past = Past::open(
            {.store = folder.path(), .volume = kVolume, .scratch = folder.path() + "/scratch"});
        ASSERT_TRUE(past.ok()) << past.error().text();
        const auto listed = (*past)->snapshots();
        ASSERT_TRUE(listed.ok()) << listed.error().text();
        std::size_t checked = 0;
        for (const Snapshot& each : *listed) {
            if (!pictures.contains(each.number)) continue;
            auto image = (*past)->image(each.number);
            ASSERT_TRUE(image.ok()) << image.error().text() << when << what;
            ASSERT_EQ(Comparison(**image, pictures[each.number]).run(), "")
                << when << what << " snapshot " << each.name;
            EXPECT_FALSE(each.incomplete) << each.name;
            ++checked;
        }
        std::size_t wanted = 0;
        for (const auto& [number, picture] : pictures) wanted += number <= applier->applied();
        ASSERT_EQ(checked, wanted) << when << what;
    }
    [[nodiscard]] std::vector<std::string> names() const {
        std::vector<std::string> all;
        for (const Snapshot& each : applier->snapshots()) all.push_back(each.name);
        return all;
    }
    // A store that has been told all, at `last`.
    void seed(std::uint64_t number) {
        model = std::make_unique<Model>(number);
        for (int i = 0; i < 120; ++i) model->act();
        model->seeded(1);
        ASSERT_NO_FATAL_FAILURE(apply());
    }
    void act(int operations) {
        for (int i = 0; i < operations; ++i) model->act();
    }

    std::unique_ptr<Model> model;
    std::map<Lsn, Model::Picture> pictures;
    std::vector<Finding> findings;
    std::size_t found = 0;
    std::uint64_t steps = UINT64_MAX;
    int kills = 0;
    std::string when;
};

TEST_F(ResyncTest, KeepsWhatWasThereUntilAllIsTold) {
    seed(1);
    const Lsn old = last;
    const auto before = model->picture();
    act(60);
    begin_resync(2);
    pictures[old + 1] = before;
    EXPECT_EQ(names(), (std::vector{fmt::format("before-resync-{}", old.value)}));
    for (int i = 0; i < 2; ++i) {  // it is durable
        const StoreState state = applier->state();
        EXPECT_TRUE(state.resyncing);
        EXPECT_EQ(state.told, 2U);
        EXPECT_EQ(state.seeded, 1U);
        EXPECT_EQ(state.epoch_number, 7U);
        EXPECT_EQ(state.epoch_id, 77U);
        EXPECT_EQ(state.applied.lsn, last);
        EXPECT_EQ(state.before_resync, old + 1);
        open_applier();
    }
    ASSERT_NO_FATAL_FAILURE(expect_past(""));
    model->tell_anew();
    ASSERT_NO_FATAL_FAILURE(apply());
    ASSERT_NO_FATAL_FAILURE(answer_all());
    EXPECT_TRUE(applier->resyncing());
    model->seeded(2);
    pictures.clear();
    ASSERT_NO_FATAL_FAILURE(apply());
    EXPECT_EQ(model->compare(folder.path()), "");
    EXPECT_FALSE(applier->resyncing());
    EXPECT_EQ(applier->state().before_resync, Lsn{});
    EXPECT_TRUE(names().empty());
    ASSERT_TRUE(applier->tidy_up().ok());
    EXPECT_TRUE(std::filesystem::is_empty(folder.path() + "/kept"));
    open_applier();
    EXPECT_FALSE(applier->resyncing());
    EXPECT_EQ(applier->state().seeded, 2U);
}

TEST_F(ResyncTest, ASecondOneKeepsTheFirstSnapshot) {
    seed(2);
    const Lsn old = last;
    pictures[old + 1] = model->picture();
    act(40);
    begin_resync(2);
    model->tell_anew();
    ASSERT_NO_FATAL_FAILURE(apply());
    act(40);
    begin_resync(3);
    EXPECT_EQ(names().size(), 1U);
    EXPECT_EQ(applier->state().before_resync, old + 1);
    model->seeded(2);  // of the telling that was given up
    ASSERT_NO_FATAL_FAILURE(apply());
    EXPECT_TRUE(applier->resyncing());
    findings.clear();
    model->tell_anew();
    ASSERT_NO_FATAL_FAILURE(apply());
    ASSERT_NO_FATAL_FAILURE(answer_all());
    model->seeded(3);
    pictures.clear();
    ASSERT_NO_FATAL_FAILURE(apply());
    EXPECT_FALSE(applier->resyncing());
    EXPECT_EQ(model->compare(folder.path()), "");
}

TEST_F(ResyncTest, WhatWasNotToldCompletelyIsNotKept) {
    model = std::make_unique<Model>(3);
    act(100);
    ASSERT_NO_FATAL_FAILURE(apply());
    begin_resync(1);
    EXPECT_TRUE(names().empty());
    EXPECT_TRUE(applier->resyncing());
    model->tell_anew();
    ASSERT_NO_FATAL_FAILURE(apply());
    ASSERT_NO_FATAL_FAILURE(answer_all());
    model->seeded(1);
    ASSERT_NO_FATAL_FAILURE(apply());
    EXPECT_EQ(model->compare(folder.path()), "");
    EXPECT_FALSE(applier->resyncing());
}

TEST_F(ResyncTest, MarksMeanwhileAreIncomplete) {
    seed(4);
    act(30);
    begin_resync(2);
    mark("meanwhile");
    pictures.clear();
    ASSERT_NO_FATAL_FAILURE(apply());
    ASSERT_EQ(applier->snapshots().size(), 2U);
    EXPECT_TRUE(applier->snapshots().back().incomplete);
    model->tell_anew();
    ASSERT_NO_FATAL_FAILURE(apply());
    ASSERT_NO_FATAL_FAILURE(answer_all());
    model->seeded(2);
    mark("after");
    ASSERT_NO_FATAL_FAILURE(apply());
    EXPECT_EQ(names(), (std::vector<std::string>{"meanwhile", "after"}));
    EXPECT_FALSE(applier->snapshots().back().incomplete);
}

TEST_F(ResyncTest, APositionThatIsPastIsRefused) {
    seed(5);
    const auto begun = applier->begin_resync({.position = {.lsn = last - 1}, .generation = 2});
    EXPECT_EQ(begun.error().code, EINVAL);
    EXPECT_FALSE(applier->resyncing());
    EXPECT_TRUE(names().empty());
}

TEST_F(ResyncTest, AnApplyThatWasInterruptedIsMadeGoodFirst) {
    seed(6);
    act(50);
    durable();
    const Lsn old = last;
    steps = 10;
    ASSERT_FALSE(applier->run_until(last).ok());
    steps = UINT64_MAX;
    ASSERT_EQ(applier->begun(), old);
    open_applier();
    pictures[old + 1] = model->picture();
    act(50);
    begin_resync(2);
    EXPECT_EQ(names(), (std::vector{fmt::format("before-resync-{}", old.value)}));
    ASSERT_NO_FATAL_FAILURE(expect_past(""));
}

TEST_F(ResyncTest, WhoeverDestroysWhatWasThereMayDoSo) {
    seed(7);
    const Lsn old = last;
    act(20);
    begin_resync(2);
    durable();
    last = append(*journal, UnmarkOp{old + 1});
    ASSERT_NO_FATAL_FAILURE(apply());
    ASSERT_TRUE(applier->tidy_up().ok());
    EXPECT_TRUE(applier->snapshots().empty());
    open_applier();
    EXPECT_EQ(applier->state().before_resync, Lsn{});
    EXPECT_TRUE(applier->resyncing());
}

#ifdef TWINSPOOL_FAULTS
// Not a test of its own: the process that is killed in the one below.
TEST(ResyncChild, DISABLED_BeginsUntilItIsKilled) {
    const char* store = std::getenv("TWINSPOOL_TEST_STORE");
    const char* position = std::getenv("TWINSPOOL_TEST_LIMIT");
    ASSERT_TRUE(store != nullptr && position != nullptr);
    auto applier = Applier::open({.store = store, .volume = kVolume});
    ASSERT_TRUE(applier.ok()) << applier.error().text();
    const Lsn lsn{std::strtoull(position, nullptr, 10)};
    ASSERT_TRUE((*applier)->begin_resync({.position = {.lsn = lsn}, .generation = 2}).ok());
}

TEST_F(ResyncTest, KilledWhenItHasBegunItGoesOn) {
    seed(8);
    const Lsn old = last;
    pictures[old + 1] = model->picture();
    act(30);
    durable();
    applier.reset();
    const pid_t child = ::fork();
    if (child == 0) {
        ::setenv("TWINSPOOL_FAULT", "resync_begun", 1);
        ::setenv("TWINSPOOL_TEST_STORE", folder.path().c_str(), 1);
        ::setenv("TWINSPOOL_TEST_LIMIT", std::to_string(last.value).c_str(), 1);
        ::execl("/proc/self/exe", "test_replicator", "--gtest_also_run_disabled_tests",
                "--gtest_brief=1", "--gtest_filter=ResyncChild.*", nullptr);
        ::_exit(2);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    open_applier();
    EXPECT_EQ(applier->applied(), last);
    EXPECT_TRUE(applier->resyncing());
    ASSERT_NO_FATAL_FAILURE(expect_past(""));
}
#endif

TEST_F(ResyncTest, ASeedKnowsItsGeneration) {
    const auto begun = applier->begin_seed(
        {.position = {.lsn = Lsn{0}}, .generation = 4, .epoch_number = 3, .epoch_id = 33});
    ASSERT_TRUE(begun.ok());
    open_applier();
    EXPECT_EQ(applier->state().told, 4U);
    EXPECT_EQ(applier->state().epoch_id, 33U);
    EXPECT_FALSE(applier->resyncing());
}

std::uint64_t number_from(const char* name, std::uint64_t standard) {
    const char* text = std::getenv(name);
    return text == nullptr ? standard : std::strtoull(text, nullptr, 10);
}

class ResyncModelTest : public ResyncTest, public ::testing::WithParamInterface<int> {};

TEST_P(ResyncModelTest, AnyGapAnyKillEndsEqual) {
    const std::uint64_t number =
        number_from("TWINSPOOL_SEED", 1) + static_cast<std::uint64_t>(GetParam());
    when = fmt::format(" seed={}", number);
    std::mt19937_64 random{number * 7919};
    batch_records = random() % 3 == 0 ? 20 : 200'000;
    open_applier();
    ASSERT_NO_FATAL_FAILURE(seed(number));
    for (std::uint32_t generation = 2; generation < 5; ++generation) {
        act(static_cast<int>(random() % 30));
        if (random() % 2 == 0) mark(fmt::format("s{}", generation));
        act(static_cast<int>(random() % 30));
        ASSERT_NO_FATAL_FAILURE(apply(&random));
        const Lsn internal = last + 1;
        const auto before = model->picture();
        act(static_cast<int>(random() % 150));
        // With nothing missed the next record could be the snapshot's namesake.
        model->seeded(1);
        ASSERT_NO_FATAL_FAILURE(begin_resync(generation));
        pictures[internal] = before;
        if (random() % 2 == 0) open_applier();
        model->tell_anew();
        ASSERT_NO_FATAL_FAILURE(apply(&random));
        ASSERT_NO_FATAL_FAILURE(answer_all(&random));
        ASSERT_TRUE(applier->resyncing());
        model->seeded(generation);
        pictures.erase(internal);
        ASSERT_NO_FATAL_FAILURE(apply(&random));
        ASSERT_FALSE(applier->resyncing());
        ASSERT_EQ(model->compare(folder.path()), "") << when << " generation " << generation;
        ASSERT_TRUE(applier->tidy_up().ok());
        ASSERT_NO_FATAL_FAILURE(expect_past(" tidied"));
    }
    std::printf("seed=%lu: %d kills, %zu findings\n", number, kills, found);
}

INSTANTIATE_TEST_SUITE_P(Lives, ResyncModelTest,
                         ::testing::Range(0, static_cast<int>(number_from("TWINSPOOL_LIVES", 20))));

}  // namespace
}  // namespace twinspool
