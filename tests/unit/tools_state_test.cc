// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/state.h"

#include <gtest/gtest.h>

namespace twinspool {
namespace {

constexpr VolumeState kAll[] = {VolumeState::kDown,       VolumeState::kSeeding,
                                VolumeState::kCatchingUp, VolumeState::kInSync,
                                VolumeState::kDegraded,   VolumeState::kFailed};

constexpr VolumeFacts kWell{
    .failed = false, .alone = false, .seeded = true, .walked = true, .in_sync = true};

TEST(State, InSyncIsSaidOnlyWhenEverythingIsSo) {
    EXPECT_EQ(judge(kWell), VolumeState::kInSync);
    for (auto member : {&VolumeFacts::seeded, &VolumeFacts::walked, &VolumeFacts::in_sync}) {
        VolumeFacts facts = kWell;
        facts.*member = false;
        EXPECT_NE(judge(facts), VolumeState::kInSync);
    }
    for (auto member : {&VolumeFacts::failed, &VolumeFacts::alone}) {
        VolumeFacts facts = kWell;
        facts.*member = true;
        EXPECT_NE(judge(facts), VolumeState::kInSync);
    }
}

TEST(State, FailureOutweighsEverything) {
    EXPECT_EQ(
        judge({.failed = true, .alone = true, .seeded = false, .walked = false, .in_sync = false}),
        VolumeState::kFailed);
}

TEST(State, AloneIsDegradedAlsoWhileSeeding) {
    EXPECT_EQ(
        judge({.failed = false, .alone = true, .seeded = false, .walked = false, .in_sync = false}),
        VolumeState::kDegraded);
}

TEST(State, SeedingUntilTheSeedIsComplete) {
    EXPECT_EQ(
        judge({.failed = false, .alone = false, .seeded = false, .walked = false, .in_sync = true}),
        VolumeState::kSeeding);
}

TEST(State, NoMoveToItself) {
    for (const auto state : kAll) EXPECT_FALSE(is_legal(state, state));
}

TEST(State, FailedEndsOnlyWithTheDaemon) {
    for (const auto to : kAll)
        EXPECT_EQ(is_legal(VolumeState::kFailed, to), to == VolumeState::kDown) << spell(to);
}

TEST(State, WhoWasAloneOrDownCatchesUpFirst) {
    EXPECT_FALSE(is_legal(VolumeState::kDegraded, VolumeState::kInSync));
    EXPECT_FALSE(is_legal(VolumeState::kDown, VolumeState::kInSync));
}

TEST(State, EveryStateIsReachedByLegalMovesUnlessFailed) {
    for (const auto from : kAll)
        for (const auto to : kAll) {
            if (from == VolumeState::kFailed && to != VolumeState::kDown) continue;
            VolumeState state = from;
            for (int steps = 0; state != to && steps < 2; ++steps)
                transition(state, next_towards(state, to));
            EXPECT_EQ(state, to) << spell(from) << " to " << spell(to);
        }
}

TEST(StateDeathTest, AnIllegalMoveEndsTheProcess) {
    VolumeState state = VolumeState::kFailed;
    EXPECT_DEATH(transition(state, VolumeState::kInSync), "assertion failed");
}

}  // namespace
}  // namespace twinspool
