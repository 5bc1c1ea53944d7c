// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "replicator/link/agreement.h"
#include "replicator/link/pace.h"
#include "replicator/link/sent_chains.h"

namespace twinspool {
namespace {

// Reigns 11 from 1, 12 from 50, 13 from 90 (lost with the power), 14 from 90; the newest is 200.
const std::vector<Epoch> kEpochs{
    {1, 11, Lsn{1}, {}}, {2, 12, Lsn{50}, {}}, {3, 13, Lsn{90}, {}}, {4, 14, Lsn{90}, {}}};

struct Case {
    const char* name;
    Hello hello;
    std::uint64_t oldest = 1;
    std::optional<WelcomeKind> kind;  // nothing: refused
    std::uint64_t end = 0;
};

Hello has(std::uint64_t end, std::uint64_t epoch, std::uint64_t applied, std::uint64_t committed) {
    return {.end_lsn = end, .epoch_id = epoch, .applied_lsn = applied, .committed = committed};
}

TEST(Agreement, TheWholeRule) {
    using enum WelcomeKind;
    const Case cases[] = {
        {"empty, all is there", has(0, 0, 0, 0), 1, kContinue, 0},
        {"empty, the first is gone", has(0, 0, 0, 0), 20, kStartOver, 0},
        {"a tree without a journal", has(0, 0, 40, 0), 1, kResync, 0},
        {"a prefix", has(40, 11, 30, 35), 1, kContinue, 40},
        {"the last of an older reign", has(49, 11, 49, 49), 50, kContinue, 49},
        {"a prefix that is gone", has(40, 11, 30, 35), 42, kResync, 40},
        {"just not gone", has(40, 11, 30, 35), 41, kContinue, 40},
        {"all", has(200, 14, 200, 200), 150, kContinue, 200},
        {"a tail of a reign that goes on", has(60, 11, 49, 49), 1, kContinue, 49},
        {"a tail of a reign that was lost", has(95, 13, 80, 85), 1, kContinue, 89},
        {"a tail, and what follows is gone", has(95, 13, 80, 85), 150, kResync, 89},
        {"a tail that is applied", has(95, 13, 92, 85), 1, std::nullopt, 0},
        {"a tail that is committed", has(95, 13, 80, 92), 1, std::nullopt, 0},
        {"a tail, and all is committed", has(95, 13, 80, 300), 1, std::nullopt, 0},
        {"more than we have", has(201, 14, 150, 150), 1, kContinue, 200},
        {"a tree that stands where we have never been", has(0, 0, 201, 0), 1, std::nullopt, 0},
        {"the same, with a journal of ours", has(40, 11, 201, 35), 1, std::nullopt, 0},
        {"begun anew, and nothing came yet", has(40, 11, 60, 40), 1, kContinue, 40},
        {"another reign", has(40, 99, 30, 35), 1, std::nullopt, 0},
    };
    for (const Case& each : cases) {
        const auto agreed = agree_on(
            each.hello, {.epochs = kEpochs, .oldest = Lsn{each.oldest}, .appended = Lsn{200}});
        ASSERT_EQ(agreed.ok(), each.kind.has_value()) << each.name;
        if (!agreed.ok()) {
            EXPECT_NE(agreed.error().doing.find("forked"), std::string::npos) << each.name;
            continue;
        }
        EXPECT_EQ(static_cast<int>(agreed->kind), static_cast<int>(*each.kind)) << each.name;
        EXPECT_EQ(agreed->end, Lsn{each.end}) << each.name;
    }
}

TEST(SentChains, OtherBytesAreSeenWhereTheyAreAcknowledged) {
    SentChains chains;
    chains.sent({Lsn{5}, Chain{50}});
    chains.sent({Lsn{9}, Chain{90}});
    EXPECT_TRUE(chains.acknowledged({Lsn{5}, Chain{50}}));
    EXPECT_TRUE(chains.acknowledged({Lsn{5}, Chain{50}})) << "a heartbeat's answer says it again";
    EXPECT_FALSE(chains.acknowledged({Lsn{9}, Chain{91}}));
    EXPECT_TRUE(chains.acknowledged({Lsn{9}, Chain{90}}));
}

TEST(SentChains, WhatWasNeverSentIsNotAcknowledged) {
    SentChains chains;
    chains.sent({Lsn{5}, Chain{50}});
    EXPECT_FALSE(chains.acknowledged({Lsn{6}, Chain{50}}));
}

TEST(SentChains, IsBounded) {
    SentChains chains;
    for (std::uint64_t i = 1; i <= SentChains::kMaxEntries + 10; ++i)
        chains.sent({Lsn{i}, Chain{i}});
    EXPECT_TRUE(chains.acknowledged({Lsn{3}, Chain{4}})) << "forgotten, not compared";
    EXPECT_FALSE(chains.acknowledged({Lsn{20}, Chain{21}}));
}

TEST(Pace, EstimatesFromTheGapThatCloses) {
    Pace pace;
    const auto now = Pace::Clock::now();
    using namespace std::chrono_literals;
    EXPECT_EQ(pace.seconds(100, now), std::nullopt);
    pace.look(100, now);
    pace.look(80, now + 1s);
    EXPECT_DOUBLE_EQ(*pace.seconds(50, now + 2s), 2.0);
    EXPECT_EQ(pace.seconds(120, now + 2s), std::nullopt) << "it grows";
    EXPECT_DOUBLE_EQ(*pace.seconds(0, now + 2s), 0.0);
}

}  // namespace
}  // namespace twinspool
