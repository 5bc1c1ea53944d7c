// SPDX-License-Identifier: Apache-2.0
#include "tools/ground/quantity.h"

#include <gtest/gtest.h>

namespace twinspool {
namespace {

using namespace std::chrono_literals;

TEST(Quantity, DurationsHaveAUnit) {
    EXPECT_EQ(parse_duration("7ns"), 7ns);
    EXPECT_EQ(parse_duration("7us"), 7us);
    EXPECT_EQ(parse_duration("2ms"), 2ms);
    EXPECT_EQ(parse_duration("10s"), 10s);
    EXPECT_EQ(parse_duration("3min"), 3min);
    EXPECT_EQ(parse_duration("48h"), 48h);
    EXPECT_EQ(parse_duration("7d"), 168h);
    EXPECT_EQ(parse_duration("0s"), 0s);
}

TEST(Quantity, SizesHaveAUnit) {
    EXPECT_EQ(parse_size("512B"), 512U);
    EXPECT_EQ(parse_size("1KiB"), 1024U);
    EXPECT_EQ(parse_size("64MiB"), 64U << 20);
    EXPECT_EQ(parse_size("8GiB"), std::uint64_t{8} << 30);
    EXPECT_EQ(parse_size("2TiB"), std::uint64_t{2} << 40);
}

TEST(Quantity, AnythingElseIsRefused) {
    for (const char* text : {"", "2", "ms", "-2ms", "+2ms", "2.5s", "2 ms", " 2ms", "2ms ", "2m",
                             "2MS", "0x2ms", "2msms"})
        EXPECT_FALSE(parse_duration(text)) << text;
    for (const char* text : {"8GB", "8gib", "8", "GiB", "8Gi", "-1B"})
        EXPECT_FALSE(parse_size(text)) << text;
}

TEST(Quantity, WhatDoesNotFitIsRefused) {
    EXPECT_TRUE(parse_duration("9223372036854775807ns"));
    EXPECT_FALSE(parse_duration("9223372036854775808ns"));
    EXPECT_FALSE(parse_duration("106752d"));
    EXPECT_FALSE(parse_size("99999999999999999999B"));
    EXPECT_FALSE(parse_size("8388608TiB"));
}

TEST(Quantity, SpelledInTheLargestUnitThatIsExact) {
    EXPECT_EQ(spell_duration(2ms), "2ms");
    EXPECT_EQ(spell_duration(1500us), "1500us");
    EXPECT_EQ(spell_duration(60s), "1min");
    EXPECT_EQ(spell_duration(0s), "0ns");
    EXPECT_EQ(spell_size(std::uint64_t{8} << 30), "8GiB");
    EXPECT_EQ(spell_size(1025), "1025B");
}

}  // namespace
}  // namespace twinspool
