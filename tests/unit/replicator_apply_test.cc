// SPDX-License-Identifier: Apache-2.0
// Apply on real directories: random operations against a model, interrupted at any system call and
// done again with the same or a longer range.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "replicator_replica.h"

namespace twinspool {
namespace {

using test::Folder;
using test::Replica;

struct Tally {
    int rounds = 0;
    int kills = 0;
};

// One life of a volume: seeded by `seed` alone.
void live(const std::string& base, std::uint64_t seed, Tally& tally) {
    const Folder folder{base};
    test::Model model{seed};
    std::mt19937_64 random{seed * 7919};
    Replica replica{folder.path()};
    bool killed = false;
    for (int period = 0; period < 8; ++period) {
        ++tally.rounds;
        for (auto stretches = 1 + random() % 3; stretches != 0; --stretches) {
            if (random() % 4 == 0) {
                model.change_underneath(static_cast<int>(1 + random() % 12));
            } else {
                for (auto left = 1 + random() % 30; left != 0; --left) model.act();
            }
        }
        while (replica.applied() < model.log().size()) {
            const std::size_t pending = model.log().size() - replica.applied();
            const std::size_t part = random() % 2 == 0 ? pending : 1 + random() % pending;
            const auto steps = random() % 3 == 0 ? UINT64_MAX : random() % (4 * part + 8);
            const auto result = replica.apply_until(model.log(), replica.applied() + part, steps);
            if (result.ok()) continue;
            ASSERT_EQ(result.error().code, EINTR) << result.error().text() << " seed=" << seed;
            killed = true;
            ++tally.kills;
            // Done again with at least the range that was interrupted, often with more.
            for (auto left = random() % 20; left != 0; --left) model.act();
            std::size_t upto = replica.applied() + part;
            upto += random() % (model.log().size() - upto + 1);
            while (random() % 3 == 0) {
                if (replica.apply_until(model.log(), upto, random() % (4 * part + 8)).ok()) break;
                ++tally.kills;
            }
            if (replica.applied() == upto) continue;
            const auto again = replica.apply_until(model.log(), upto);
            ASSERT_TRUE(again.ok()) << again.error().text() << " seed=" << seed;
        }
        const std::string difference = model.compare(folder.path());
        ASSERT_EQ(difference, "") << "seed=" << seed << " period=" << period;
        if (!killed) {
            ASSERT_EQ(replica.index().size(), model.live_objects()) << "seed=" << seed;
        }
        ASSERT_GE(replica.index().size(), model.live_objects()) << "seed=" << seed;
    }
}

std::uint64_t first_seed() {
    const char* text = std::getenv("TWINSPOOL_SEED");
    return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

int lives(int standard) {
    const char* text = std::getenv("TWINSPOOL_LIVES");
    return text == nullptr ? standard : std::atoi(text);
}

void live_many(const std::string& base, int count, std::uint64_t seed) {
    Tally tally;
    for (int i = 0; i < count && !::testing::Test::HasFailure(); ++i)
        live(base, seed + static_cast<std::uint64_t>(i), tally);
    std::printf("%d rounds, %d kills\n", tally.rounds, tally.kills);
}

TEST(Apply, AnyKillAnyRedoEndsEqual) { live_many("/var/tmp", lives(60), first_seed()); }

TEST(Apply, AnyKillAnyRedoEndsEqualInMemory) {
    live_many("/dev/shm", lives(400), first_seed() + 1'000'000);
}

}  // namespace
}  // namespace twinspool
