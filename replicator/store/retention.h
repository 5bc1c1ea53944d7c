// SPDX-License-Identifier: Apache-2.0
// Retention: the names of the schedule's own snapshots, and which of them a rule does not keep any
// longer. The rule is "24 hourly, 14 daily": of each of the last 24 hours that have a snapshot the
// newest one, and of each of the last 14 such days. "6 frequent" are the newest six themselves.
//
// Hours, days, weeks (from Monday), months and years are those of UTC, and of the mark's time.
// Whoever takes a snapshot by hand gives it another name, so that no rule ever touches it.
// Pure functions; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/units.h"
#include "replicator/link/snapshot.h"

namespace twinspool {

// How many periods of each kind are kept, in the order of kRetentionWords.
inline constexpr std::array<std::string_view, 6> kRetentionWords{"frequent", "hourly",  "daily",
                                                                 "weekly",   "monthly", "yearly"};
struct RetentionRule {
    std::array<std::uint32_t, kRetentionWords.size()> periods{};
    friend bool operator==(const RetentionRule&, const RetentionRule&) = default;
};

inline constexpr std::uint32_t kMaxPeriods = 9999;
inline constexpr const char* kRetentionExample =
    "\"24 hourly, 14 daily\" (frequent, hourly, daily, weekly, monthly, yearly; from 1 to 9999)";

// Nothing if it is not a number and a word, again after each comma, each word at most once.
std::optional<RetentionRule> parse_retention(std::string_view text);
// parse_retention() of it gives the rule again.
std::string spell_retention(const RetentionRule& rule);

// "hourly-20261122T0900Z": by how often one is due and when this one was. With seconds if two may
// be due within a minute.
std::string scheduled_name(Nanoseconds every, WallTime due);
[[nodiscard]] bool is_scheduled_name(std::string_view name);

// Oldest first. The newest that the schedule took is never among them. One that is broken or
// incomplete takes no place of a good one; it goes when it would if it were good. What is said to
// be from after `now` (a clock was wrong) stays and counts for nothing.
std::vector<Snapshot> superfluous(const std::vector<Snapshot>& snapshots, const RetentionRule& rule,
                                  WallTime now);

}  // namespace twinspool
