// SPDX-License-Identifier: Apache-2.0
// Apply on real directories: random operations against a model, interrupted at any system call and
// done again with the same or a longer range; and the rules that the model does not meet.
#include <gtest/gtest.h>

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <unordered_map>

#include "journal/apply.h"
#include "replicator_model.h"

namespace twinspool {
namespace {

class Folder {
   public:
    explicit Folder(std::string base) : path_(std::move(base) + "/twinspool-apply-XXXXXX") {
        TS_ASSERT(::mkdtemp(path_.data()) != nullptr);
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }

   private:
    std::string path_;
};

class MemoryIndex : public ObjectIndex {
   public:
    Result<std::optional<IndexEntry>> find(ObjectId object) override {
        if (const auto it = pending_.find(object); it != pending_.end()) return it->second;
        if (const auto it = committed_.find(object); it != committed_.end())
            return std::optional{it->second};
        return std::optional<IndexEntry>{};
    }
    Status put(ObjectId object, const IndexEntry& entry) override {
        pending_[object] = entry;
        return {};
    }
    Status erase(ObjectId object) override {
        pending_[object] = std::nullopt;
        return {};
    }
    void commit() {
        for (const auto& [object, entry] : pending_) {
            if (entry) committed_[object] = *entry;
            if (!entry) committed_.erase(object);
        }
        pending_.clear();
    }
    void drop() { pending_.clear(); }
    [[nodiscard]] std::size_t size() const { return committed_.size(); }

   private:
    std::unordered_map<ObjectId, IndexEntry> committed_;
    std::unordered_map<ObjectId, std::optional<IndexEntry>> pending_;
};

// Applies parts of a log; stops like a kill after a number of steps.
class Replica {
   public:
    explicit Replica(std::string store) : store_(std::move(store)) {}
    // Steps left: how many system calls may change the disk before the "kill".
    Result<ApplyCounters> apply_until(const test::Log& log, std::size_t upto,
                                      std::uint64_t steps = UINT64_MAX) {
        Delta delta;
        for (std::size_t i = applied_; i < upto; ++i) TS_TRY(delta.add(log[i]));
        Tree::Options options{.on_step = [&]() -> Status {
            if (steps == 0) return make_error(EINTR, "go on: killed");
            --steps;
            ++steps_taken_;
            return {};
        }};
        TS_ASSIGN(const auto tree, Tree::open(store_, std::move(options)));
        auto result = apply(delta, *tree, index_);
        if (result.ok()) {
            index_.commit();
            applied_ = upto;
        } else {
            index_.drop();
        }
        return result;
    }
    MemoryIndex& index() { return index_; }
    [[nodiscard]] std::size_t applied() const { return applied_; }
    [[nodiscard]] std::uint64_t steps_taken() const { return steps_taken_; }
    [[nodiscard]] const std::string& store() const { return store_; }

   private:
    std::string store_;
    MemoryIndex index_;
    std::size_t applied_ = 0;
    std::uint64_t steps_taken_ = 0;
};

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
            const auto result =
                replica.apply_until(model.log(), replica.applied() + part, steps);
            if (result.ok()) continue;
            if (result.error().code != EINTR && getenv("TS_DUMP")) for (size_t i = replica.applied(); i < replica.applied() + part; ++i) puts(describe(model.log()[i]).c_str());
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

TEST(Apply, AnyKillAnyRedoEndsEqual) { live_many("/var/tmp", lives(250), first_seed()); }

TEST(Apply, AnyKillAnyRedoEndsEqualInMemory) {
    live_many("/dev/shm", lives(250), first_seed() + 1'000'000);
}

}  // namespace
}  // namespace twinspool
