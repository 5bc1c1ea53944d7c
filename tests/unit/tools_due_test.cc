// SPDX-License-Identifier: Apache-2.0
// When the schedule's next snapshot is due, whatever the clock does.
#include "tools/daemon/due.h"

#include <gtest/gtest.h>

#include <chrono>

namespace twinspool {
namespace {

using namespace std::chrono_literals;

constexpr WallTime at(Nanoseconds time) { return WallTime{time.count()}; }

TEST(Due, ComesOnceAtEachMultiple) {
    Due due(1h, at(9h + 20min));
    EXPECT_EQ(due.next(), at(10h));
    EXPECT_EQ(due.come(at(9h + 59min)), std::nullopt);
    EXPECT_EQ(due.come(at(10h + 1ms)), at(10h));
    EXPECT_EQ(due.come(at(10h + 2ms)), std::nullopt);
    EXPECT_EQ(due.come(at(11h)), at(11h));
    EXPECT_EQ(due.next(), at(12h));
}

TEST(Due, WhatCameBeforeIsNotMadeUpFor) {
    EXPECT_EQ(Due(1h, at(10h)).come(at(10h + 1s)), std::nullopt);
    EXPECT_EQ(Due(1h, at(10h + 1s)).come(at(10h + 59min)), std::nullopt);
}

TEST(Due, OfSeveralTheLastCounts) {
    Due due(1h, at(9h));
    EXPECT_EQ(due.come(at(13h + 20min)), at(13h));
    EXPECT_EQ(due.come(at(13h + 21min)), std::nullopt);
}

TEST(Due, AClockSetBackByLittleMakesNoneComeTwice) {
    Due due(1h, at(9h));
    EXPECT_EQ(due.come(at(10h)), at(10h));
    EXPECT_EQ(due.come(at(10h - 1ms)), std::nullopt);
    EXPECT_EQ(due.come(at(10h + 1ms)), std::nullopt);
    EXPECT_EQ(due.come(at(11h)), at(11h));
}

TEST(Due, AClockSetBackByMuchIsBelieved) {
    Due due(1h, at(100h));
    EXPECT_EQ(due.come(at(9h + 30min)), std::nullopt);
    EXPECT_EQ(due.come(at(10h)), at(10h));
}

TEST(Due, TimesBefore1970HaveMultiplesToo) {
    EXPECT_EQ(Due(1h, at(-30min)).next(), at(0h));
    EXPECT_EQ(Due(1h, at(-60min)).next(), at(0h));
    EXPECT_EQ(Due(1h, at(-61min)).next(), at(-1h));
}

}  // namespace
}  // namespace twinspool
