// SPDX-License-Identifier: Apache-2.0
// Quantity: durations and sizes as people write them, "2ms" and "8GiB": a whole number and a unit.
// Pure functions; any thread.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "journal/base/units.h"

namespace twinspool {

struct Unit {
    std::string_view word;
    std::uint64_t factor;
};

inline constexpr std::array kDurationUnits{
    Unit{"ns", 1},
    Unit{"us", 1'000},
    Unit{"ms", 1'000'000},
    Unit{"s", 1'000'000'000},
    Unit{"min", 60'000'000'000},
    Unit{"h", 3'600'000'000'000},
    Unit{"d", 86'400'000'000'000},
};
inline constexpr std::array kSizeUnits{
    Unit{"B", 1},
    Unit{"KiB", std::uint64_t{1} << 10},
    Unit{"MiB", std::uint64_t{1} << 20},
    Unit{"GiB", std::uint64_t{1} << 30},
    Unit{"TiB", std::uint64_t{1} << 40},
};
inline constexpr const char* kDurationExample = "\"2ms\" (units ns, us, ms, s, min, h, d)";
inline constexpr const char* kSizeExample = "\"64MiB\" (units B, KiB, MiB, GiB, TiB)";

// A whole number and one of the units, nothing else; nothing if it is not that, or above 2^63 - 1.
template <typename Units>
constexpr std::optional<std::uint64_t> parse_quantity(std::string_view text, const Units& units) {
    constexpr std::uint64_t kMax = std::numeric_limits<std::int64_t>::max();
    std::uint64_t number = 0;
    std::size_t at = 0;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
        const auto digit = static_cast<std::uint64_t>(text[at] - '0');
        if (number > (kMax - digit) / 10) return std::nullopt;
        number = number * 10 + digit;
    }
    if (at == 0) return std::nullopt;
    for (const Unit& unit : units) {
        if (text.substr(at) != unit.word) continue;
        if (number > kMax / unit.factor) return std::nullopt;
        return number * unit.factor;
    }
    return std::nullopt;
}

constexpr std::optional<Nanoseconds> parse_duration(std::string_view text) {
    const auto parsed = parse_quantity(text, kDurationUnits);
    if (!parsed) return std::nullopt;
    return Nanoseconds{static_cast<std::int64_t>(*parsed)};
}

constexpr std::optional<std::uint64_t> parse_size(std::string_view text) {
    return parse_quantity(text, kSizeUnits);
}

// The shortest exact spelling: parse_*(spell_*(x)) == x.
template <typename Units>
std::string spell_quantity(std::uint64_t value, const Units& units) {
    const Unit* best = &units[0];
    for (const Unit& unit : units)
        if (value != 0 && value % unit.factor == 0) best = &unit;
    return std::to_string(value / best->factor).append(best->word);
}

inline std::string spell_duration(Nanoseconds value) {
    return spell_quantity(static_cast<std::uint64_t>(value.count()), kDurationUnits);
}
inline std::string spell_size(std::uint64_t value) { return spell_quantity(value, kSizeUnits); }

}  // namespace twinspool
