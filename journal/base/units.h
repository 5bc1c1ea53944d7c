// SPDX-License-Identifier: Apache-2.0
// Units: the numbers of Twinspool as types of their own, so that none is taken for another.
// Plain values; no threads, no errors.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>

namespace twinspool {

// An object's identity, the same on every side and never reused: node:8 | epoch:16 | counter:40.
// It is also the FUSE node id and the st_ino that programs see.
enum class ObjectId : std::uint64_t {};
inline constexpr ObjectId kNoObject{0};
inline constexpr ObjectId kRootObject{1};  // holds the volume's directories, in no tree itself

inline constexpr int kObjectCounterBits = 40;
inline constexpr int kObjectEpochBits = 16;

constexpr std::uint64_t raw(ObjectId id) { return static_cast<std::uint64_t>(id); }
constexpr ObjectId make_object_id(std::uint8_t node, std::uint16_t epoch, std::uint64_t counter) {
    return ObjectId{(std::uint64_t{node} << (kObjectCounterBits + kObjectEpochBits)) |
                    (std::uint64_t{epoch} << kObjectCounterBits) |
                    (counter & ((std::uint64_t{1} << kObjectCounterBits) - 1))};
}

// Log sequence number: dense, the first record of a volume is 1, 0 is "before everything".
struct Lsn {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(Lsn, Lsn) = default;
    friend constexpr Lsn operator+(Lsn lsn, std::uint64_t n) { return {lsn.value + n}; }
    friend constexpr Lsn operator-(Lsn lsn, std::uint64_t n) { return {lsn.value - n}; }
    friend constexpr std::uint64_t operator-(Lsn a, Lsn b) { return a.value - b.value; }
};

// Checksum of the newest frame; since each frame's checksum covers that of the one before, equal
// chains at equal Lsn mean equal histories.
enum class Chain : std::uint64_t {};
constexpr std::uint64_t raw(Chain chain) { return static_cast<std::uint64_t>(chain); }

// A segment's number; rises by one, never reused (a recycled file gets a new number).
enum class SegmentNumber : std::uint64_t {};
constexpr std::uint64_t raw(SegmentNumber n) { return static_cast<std::uint64_t>(n); }
constexpr SegmentNumber next(SegmentNumber n) { return SegmentNumber{raw(n) + 1}; }

// A position: the Lsn of the last record, and the chain there.
struct Position {
    Lsn lsn;
    Chain chain{};
    friend constexpr bool operator==(const Position&, const Position&) = default;
};

// One reign of a primary. Begins at every start; recorded as the first record of the reign.
struct Epoch {
    std::uint32_t number = 0;
    std::uint64_t id = 0;  // random: two reigns with one number are told apart by it
    Lsn first_lsn;
    Chain chain{};  // at first_lsn - 1
    friend bool operator==(const Epoch&, const Epoch&) = default;
};

// Wall clock in nanoseconds since 1970, as in struct timespec; for times that are recorded.
enum class WallTime : std::int64_t {};
constexpr std::int64_t raw(WallTime t) { return static_cast<std::int64_t>(t); }

using Nanoseconds = std::chrono::nanoseconds;

}  // namespace twinspool
