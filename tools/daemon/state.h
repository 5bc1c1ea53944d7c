// SPDX-License-Identifier: Apache-2.0
// VolumeState: what `status` says in one word, and the moves between those words.
//
// in-sync is said only when the volume is seeded, the walk of this start is complete, and the
// standby is connected, waited for, and able to apply. degraded: commits count one copy, or fewer
// than they should.
// Of several standbys those count that are configured to be waited for (all, if none is). ack =
// all: in-sync says that each of them is, degraded that one is alone. ack = any: in-sync says that
// one of them has everything that was acknowledged, or that all are connected, so that one of them
// has it; degraded that all are alone. A standby that is lost while on_standby_loss is freeze, or
// before fence_peer has succeeded, makes it catching-up: commits wait, and two copies are still
// what is promised. catching-up: everything between. failed: the local journal cannot be written;
// only the end of the daemon leads out of it. Values and pure functions; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "journal/base/result.h"

namespace twinspool {

enum class VolumeState : std::uint8_t { kDown, kSeeding, kCatchingUp, kInSync, kDegraded, kFailed };
inline constexpr std::size_t kVolumeStates = 6;

constexpr std::string_view spell(VolumeState state) {
    constexpr std::array<std::string_view, kVolumeStates> kWords{
        "down", "seeding", "catching-up", "in-sync", "degraded", "failed"};
    return kWords[static_cast<std::size_t>(state)];
}

// kVolumeMoves[from][to]. Who was alone, or down, has to catch up before being in sync.
inline constexpr bool kVolumeMoves[kVolumeStates][kVolumeStates] = {
    //                 down   seeding catching in-sync degraded failed
    /* down        */ {false, true, true, false, true, true},
    /* seeding     */ {true, false, true, true, true, true},
    /* catching-up */ {true, true, false, true, true, true},
    /* in-sync     */ {true, true, true, false, true, true},
    /* degraded    */ {true, true, true, false, false, true},
    /* failed      */ {true, false, false, false, false, false},
};

constexpr bool is_legal(VolumeState from, VolumeState to) {
    return kVolumeMoves[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)];
}

// The one way from a state to another.
inline void transition(VolumeState& state, VolumeState to) {
    TS_ASSERT(is_legal(state, to));
    state = to;
}

// What the daemon sees of itself.
struct VolumeFacts {
    bool failed = false;   // the local journal
    bool alone = false;    // a standby is away, and commits do not wait for it any more
    bool seeded = false;   // everything that was there has been told, and applied
    bool walked = false;   // the walk of this start is complete
    bool in_sync = false;  // every standby has all that was acknowledged, and is waited for
};

constexpr VolumeState judge(const VolumeFacts& facts) {
    if (facts.failed) return VolumeState::kFailed;
    if (facts.alone) return VolumeState::kDegraded;
    if (!facts.seeded) return VolumeState::kSeeding;
    return facts.in_sync && facts.walked ? VolumeState::kInSync : VolumeState::kCatchingUp;
}

// The next state on the way from `from` to `to`, by legal moves: facts are looked at now and then,
// and may have moved by more than one step.
constexpr VolumeState next_towards(VolumeState from, VolumeState to) {
    if (from == to || is_legal(from, to)) return to;
    return is_legal(from, VolumeState::kCatchingUp) ? VolumeState::kCatchingUp : from;
}

}  // namespace twinspool
