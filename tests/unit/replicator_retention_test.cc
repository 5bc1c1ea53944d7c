// SPDX-License-Identifier: Apache-2.0
// What a retention rule keeps, and whose snapshots it never touches.
#include "replicator/store/retention.h"

#include <gtest/gtest.h>

#include <chrono>
#include <initializer_list>

namespace twinspool {
namespace {

using namespace std::chrono_literals;
using std::chrono::days;

constexpr std::chrono::sys_days kSunday{std::chrono::year{2026} / 11 / 22};

constexpr WallTime at(std::chrono::sys_time<Nanoseconds> time) {
    return WallTime{time.time_since_epoch().count()};
}

// As the schedule takes them: the mark a moment after it was due.
Snapshot taken(Nanoseconds every, std::chrono::sys_time<Nanoseconds> due) {
    static std::uint64_t last = 0;
    return {.number = Lsn{++last}, .name = scheduled_name(every, at(due)), .time = at(due + 40ms)};
}

std::vector<std::string> names(const std::vector<Snapshot>& snapshots) {
    std::vector<std::string> found;
    for (const auto& each : snapshots) found.push_back(each.name);
    return found;
}

std::vector<std::string> kept(const std::vector<Snapshot>& snapshots, std::string_view rule,
                              std::chrono::sys_time<Nanoseconds> now) {
    std::vector<std::string> left = names(snapshots);
    for (const auto& each : superfluous(snapshots, *parse_retention(rule), at(now)))
        left.erase(std::find(left.begin(), left.end(), each.name));
    return left;
}

std::vector<Snapshot> series(Nanoseconds every, std::size_t count,
                             std::chrono::sys_time<Nanoseconds> last) {
    std::vector<Snapshot> made;
    for (std::size_t i = count; i > 0; --i)
        made.push_back(taken(every, last - every * static_cast<std::int64_t>(i - 1)));
    return made;
}

TEST(Retention, RulesAreReadAndSpelled) {
    const auto rule = parse_retention("24 hourly, 14 daily, 8 weekly, 12 monthly");
    ASSERT_TRUE(rule);
    EXPECT_EQ(rule->periods, (std::array<std::uint32_t, 6>{0, 24, 14, 8, 12, 0}));
    EXPECT_EQ(spell_retention(*rule), "24 hourly, 14 daily, 8 weekly, 12 monthly");
    EXPECT_EQ(spell_retention(*parse_retention("  9999   yearly ,1 frequent")),
              "1 frequent, 9999 yearly");
}

TEST(Retention, WhatIsNoRuleIsRefused) {
    for (const char* text :
         {"", " ", ",", "24", "hourly", "24hourly", "24 hours", "0 hourly", "-1 hourly",
          "+1 hourly", "1.5 daily", "10000 daily", "99999999999999999999 daily", "24 hourly,",
          ", 24 hourly", "24 hourly 14 daily", "24 hourly, 12 hourly", "24 Hourly",
          "24 hourly; 14 daily"})
        EXPECT_FALSE(parse_retention(text)) << text;
}

TEST(Retention, NamesSayHowOftenAndWhen) {
    const auto due = kSunday + 9h;
    struct Row {
        Nanoseconds every;
        const char* name;
    };
    for (const Row& row : std::initializer_list<Row>{{2s, "frequent-20261122T090000Z"},
                                                     {59s, "frequent-20261122T090000Z"},
                                                     {1min, "frequent-20261122T0900Z"},
                                                     {59min, "frequent-20261122T0900Z"},
                                                     {1h, "hourly-20261122T0900Z"},
                                                     {23h, "hourly-20261122T0900Z"},
                                                     {days{1}, "daily-20261122T0900Z"},
                                                     {days{6}, "daily-20261122T0900Z"},
                                                     {days{7}, "weekly-20261122T0900Z"},
                                                     {days{30}, "weekly-20261122T0900Z"}}) {
        EXPECT_EQ(scheduled_name(row.every, at(due)), row.name);
        EXPECT_TRUE(is_scheduled_name(row.name));
    }
}

TEST(Retention, OnlyTheSchedulesPatternIsItsOwn) {
    for (const char* name : {"hourly",
                             "hourly-",
                             "hourly-20261122",
                             "hourly-20261122T0900",
                             "hourly-20261122T0900z",
                             "hourly-20261122T09000Z",
                             "hourly-20261122T0900Zx",
                             "xhourly-20261122T0900Z",
                             "Hourly-20261122T0900Z",
                             "monthly-20261122T0900Z",
                             "hourly-20261322T0900Z",
                             "hourly-20260230T0900Z",
                             "hourly-20261122T2400Z",
                             "hourly-20261122T0960Z",
                             "frequent-20261122T090060Z",
                             "hourly-2026112 T0900Z",
                             "hourly-20261122t0900Z",
                             "before-restore-20261122T0900Z",
                             "hourly-hourly-20261122T0900Z",
                             ""})
        EXPECT_FALSE(is_scheduled_name(name)) << name;
}

struct Row {
    const char* what;
    Nanoseconds every;
    std::size_t count;
    std::chrono::sys_time<Nanoseconds> last;
    const char* rule;
    std::vector<std::string> kept;
};

TEST(Retention, KeepsTheNewestOfEachPeriod) {
    const std::vector<Row> rows{
        {"the newest six",
         10min,
         9,
         kSunday + 1h,
         "3 frequent",
         {"frequent-20261122T0040Z", "frequent-20261122T0050Z", "frequent-20261122T0100Z"}},
        {"fewer than the rule keeps",
         1h,
         3,
         kSunday + 9h,
         "24 hourly",
         {"hourly-20261122T0700Z", "hourly-20261122T0800Z", "hourly-20261122T0900Z"}},
        {"the newest of each hour",
         20min,
         7,
         kSunday + 2h,
         "2 hourly",
         {"frequent-20261122T0140Z", "frequent-20261122T0200Z"}},
        {"hours and days",
         6h,
         12,
         kSunday + 6h,
         "2 hourly, 3 daily",
         {"hourly-20261120T1800Z", "hourly-20261121T1800Z", "hourly-20261122T0000Z",
          "hourly-20261122T0600Z"}},
        {"weeks begin on Monday",
         days{1},
         20,
         kSunday + days{2},
         "3 weekly",
         {"daily-20261115T0000Z", "daily-20261122T0000Z", "daily-20261124T0000Z"}},
        {"the newest of each month",
         days{7},
         10,
         kSunday,
         "2 monthly",
         {"weekly-20261025T0000Z", "weekly-20261122T0000Z"}},
        {"the newest of each year",
         days{100},
         6,
         kSunday,
         "9 yearly",
         {"weekly-20251018T0000Z", "weekly-20261122T0000Z"}},
    };
    for (const Row& row : rows) {
        auto made = series(row.every, row.count, row.last);
        EXPECT_EQ(kept(made, row.rule, row.last + 1s), row.kept) << row.what;
        std::reverse(made.begin(), made.end());
        auto reversed = kept(made, row.rule, row.last + 1s);
        std::sort(reversed.begin(), reversed.end());
        EXPECT_EQ(reversed, row.kept) << row.what << ", given in another order";
    }
}

TEST(Retention, PeriodsWithoutASnapshotDoNotCount) {
    const std::vector<Snapshot> snapshots{taken(1h, kSunday - days{90}), taken(1h, kSunday),
                                          taken(1h, kSunday + 5h)};
    EXPECT_EQ(kept(snapshots, "3 hourly", kSunday + days{400}).size(), 3U);
    EXPECT_EQ(kept(snapshots, "2 daily", kSunday + days{400}),
              (std::vector<std::string>{"hourly-20260824T0000Z", "hourly-20261122T0500Z"}));
}

TEST(Retention, OthersAreNeverTouchedAndCountForNothing) {
    auto snapshots = series(1h, 5, kSunday + 9h);
    for (const char* name : {"nightly", "hourly-20261122T0900", "before-restore-20261122T0930Z"})
        snapshots.push_back({.number = Lsn{90'000 + snapshots.size()},
                             .name = name,
                             .time = at(kSunday + 9h + 30min)});
    EXPECT_EQ(kept(snapshots, "1 hourly", kSunday + 10h),
              (std::vector<std::string>{"hourly-20261122T0900Z", "nightly", "hourly-20261122T0900",
                                        "before-restore-20261122T0930Z"}));
}

TEST(Retention, TheNewestStaysWhateverTheRule) {
    const auto snapshots = series(1h, 3, kSunday);
    EXPECT_EQ(names(superfluous(snapshots, RetentionRule{}, at(kSunday + 1h))),
              (std::vector<std::string>{"hourly-20261121T2200Z", "hourly-20261121T2300Z"}));
    EXPECT_TRUE(superfluous({}, RetentionRule{}, at(kSunday)).empty());
}

TEST(Retention, ABrokenOneTakesNoPlaceOfAGoodOne) {
    auto snapshots = series(1h, 6, kSunday + 9h);
    snapshots[5].broken = true;
    snapshots[4].incomplete = true;
    snapshots[1].broken = true;
    EXPECT_EQ(kept(snapshots, "2 hourly", kSunday + 10h),
              (std::vector<std::string>{"hourly-20261122T0600Z", "hourly-20261122T0700Z",
                                        "hourly-20261122T0800Z", "hourly-20261122T0900Z"}));
}

TEST(Retention, TimesThatHaveNotComeYetStayAndCountForNothing) {
    auto snapshots = series(1h, 3, kSunday + 9h);
    for (const auto& each : series(1h, 4, kSunday + days{40})) snapshots.push_back(each);
    const auto left = kept(snapshots, "2 hourly", kSunday + 10h);
    EXPECT_EQ(left.size(), 6U);
    EXPECT_EQ(left.front(), "hourly-20261122T0800Z");
}

TEST(Retention, PeriodsAreRightBefore1970Too) {
    // A clock that was never set.
    const std::chrono::sys_time<Nanoseconds> epoch{};
    const auto snapshots = series(1h, 4, epoch + 1h);
    EXPECT_EQ(kept(snapshots, "2 daily", epoch + 2h),
              (std::vector<std::string>{"hourly-19691231T2300Z", "hourly-19700101T0100Z"}));
}

}  // namespace
}  // namespace twinspool
