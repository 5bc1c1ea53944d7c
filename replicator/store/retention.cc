// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/retention.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <set>

namespace twinspool {
namespace {

using namespace std::chrono_literals;
using std::chrono::days;
using SystemTime = std::chrono::sys_time<Nanoseconds>;

constexpr Nanoseconds kDay = days{1};
constexpr Nanoseconds kWeek = days{7};
// 1970 began on a Thursday.
constexpr days kFromMonday{3};

SystemTime system_time(WallTime time) { return SystemTime{Nanoseconds{raw(time)}}; }

// The number of the period that this time is in, in the order of kRetentionWords; two times are in
// one period if the numbers are equal. Not for "frequent".
std::int64_t period_of(std::size_t word, WallTime time) {
    const auto day = std::chrono::floor<days>(system_time(time));
    const std::chrono::year_month_day date{day};
    const std::int64_t year = int{date.year()};
    switch (word) {
        case 1:
            return std::chrono::floor<std::chrono::hours>(system_time(time))
                .time_since_epoch()
                .count();
        case 2:
            return day.time_since_epoch().count();
        case 3:
            return std::chrono::floor<std::chrono::weeks>(day.time_since_epoch() + kFromMonday)
                .count();
        case 4:
            return year * 12 + unsigned{date.month()};
        default:
            return year;
    }
}

std::string_view without_spaces(std::string_view text) {
    const auto first = text.find_first_not_of(' ');
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

// "24 hourly" into the rule; false if it is not that, or the word was there before.
bool add_clause(std::string_view text, RetentionRule& rule) {
    text = without_spaces(text);
    std::uint32_t number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    if (parsed.ec != std::errc{} || number == 0 || number > kMaxPeriods) return false;
    const auto digits = static_cast<std::size_t>(parsed.ptr - text.data());
    if (digits == text.size() || text[digits] != ' ') return false;
    const auto word = std::find(kRetentionWords.begin(), kRetentionWords.end(),
                                without_spaces(text.substr(digits)));
    if (word == kRetentionWords.end()) return false;
    auto& periods = rule.periods[static_cast<std::size_t>(word - kRetentionWords.begin())];
    if (periods != 0) return false;
    periods = number;
    return true;
}

std::string_view prefix_for(Nanoseconds every) {
    if (every < 1h) return "frequent";
    if (every < kDay) return "hourly";
    return every < kWeek ? "daily" : "weekly";
}

// Exactly `digits` digits from `at` on, and what they mean; nothing otherwise.
std::optional<unsigned> number_at(std::string_view text, std::size_t at, std::size_t digits) {
    unsigned number = 0;
    for (std::size_t i = 0; i < digits; ++i) {
        if (at + i >= text.size() || text[at + i] < '0' || text[at + i] > '9') return std::nullopt;
        number = number * 10 + static_cast<unsigned>(text[at + i] - '0');
    }
    return number;
}

// "20261122T0900Z", or with seconds.
bool is_stamp(std::string_view text) {
    constexpr std::size_t kShort = 14;
    constexpr std::size_t kLong = 16;
    if (text.size() != kShort && text.size() != kLong) return false;
    if (text[8] != 'T' || text.back() != 'Z') return false;
    const auto year = number_at(text, 0, 4);
    const auto month = number_at(text, 4, 2);
    const auto day = number_at(text, 6, 2);
    const auto hour = number_at(text, 9, 2);
    const auto minute = number_at(text, 11, 2);
    const auto second = text.size() == kLong ? number_at(text, 13, 2) : std::optional{0U};
    if (!year || !month || !day || !hour || !minute || !second) return false;
    const std::chrono::year_month_day date{std::chrono::year{static_cast<int>(*year)},
                                           std::chrono::month{*month}, std::chrono::day{*day}};
    return date.ok() && *hour < 24 && *minute < 60 && *second < 60;
}

// Of these, newest first, adds what the rule keeps.
void select(const std::vector<const Snapshot*>& newest_first, const RetentionRule& rule,
            std::set<Lsn>& kept) {
    for (std::size_t i = 0; i < newest_first.size() && i < std::max(rule.periods[0], 1U); ++i)
        kept.insert(newest_first[i]->number);
    for (std::size_t word = 1; word < rule.periods.size(); ++word) {
        std::uint32_t left = rule.periods[word];
        std::optional<std::int64_t> last;
        for (const Snapshot* snapshot : newest_first) {
            const auto period = period_of(word, snapshot->time);
            if (last == period) continue;
            if (left-- == 0) break;
            last = period;
            kept.insert(snapshot->number);
        }
    }
}

}  // namespace

std::optional<RetentionRule> parse_retention(std::string_view text) {
    RetentionRule rule;
    for (;;) {
        const auto comma = text.find(',');
        if (!add_clause(text.substr(0, comma), rule)) return std::nullopt;
        if (comma == std::string_view::npos) return rule;
        text.remove_prefix(comma + 1);
    }
}

std::string spell_retention(const RetentionRule& rule) {
    std::string text;
    for (std::size_t word = 0; word < rule.periods.size(); ++word)
        if (rule.periods[word] != 0)
            text += fmt::format("{}{} {}", text.empty() ? "" : ", ", rule.periods[word],
                                kRetentionWords[word]);
    return text;
}

std::string scheduled_name(Nanoseconds every, WallTime due) {
    const auto day = std::chrono::floor<days>(system_time(due));
    const std::chrono::year_month_day date{day};
    const std::chrono::hh_mm_ss time{system_time(due) - day};
    auto name = fmt::format("{}-{:04}{:02}{:02}T{:02}{:02}", prefix_for(every), int{date.year()},
                            unsigned{date.month()}, unsigned{date.day()}, time.hours().count(),
                            time.minutes().count());
    if (every < 1min) name += fmt::format("{:02}", time.seconds().count());
    return name + "Z";
}

bool is_scheduled_name(std::string_view name) {
    const auto dash = name.find('-');
    if (dash == std::string_view::npos) return false;
    constexpr std::array<std::string_view, 4> kPrefixes{"frequent", "hourly", "daily", "weekly"};
    return std::find(kPrefixes.begin(), kPrefixes.end(), name.substr(0, dash)) != kPrefixes.end() &&
           is_stamp(name.substr(dash + 1));
}

std::vector<Snapshot> superfluous(const std::vector<Snapshot>& snapshots, const RetentionRule& rule,
                                  WallTime now) {
    std::vector<const Snapshot*> own;
    for (const Snapshot& snapshot : snapshots)
        if (is_scheduled_name(snapshot.name) && snapshot.time <= now) own.push_back(&snapshot);
    std::sort(own.begin(), own.end(), [](const Snapshot* a, const Snapshot* b) {
        return std::pair{b->time, b->number} < std::pair{a->time, a->number};
    });
    std::vector<const Snapshot*> good;
    std::copy_if(own.begin(), own.end(), std::back_inserter(good),
                 [](const Snapshot* each) { return !each->broken && !each->incomplete; });
    std::set<Lsn> kept;
    select(good, rule, kept);
    select(own, rule, kept);
    std::vector<Snapshot> rest;
    for (auto each = own.rbegin(); each != own.rend(); ++each)
        if (!kept.contains((*each)->number)) rest.push_back(**each);
    return rest;
}

}  // namespace twinspool
