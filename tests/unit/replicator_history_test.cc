// SPDX-License-Identifier: Apache-2.0
// The past, against pictures that the model made of itself: random operations, marks, removals of
// snapshots, and kills between any two system calls of an apply. After each step every snapshot
// that lives is what it was, also while the tree is in the middle of a change.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "replicator/past/past.h"
#include "replicator_applier.h"
#include "replicator_comparison.h"
#include "replicator_model.h"

namespace twinspool {
namespace {

using test::Comparison;
using test::kVolume;
using test::Model;

// A primary's journal and a standby's applier over one store, and what the snapshots must hold.
class HistoryTest : public test::AppliedStoreTest {
   protected:
    void wish(ApplierOptions& wanted) override {
        wanted.on_step = [this]() -> Status {
            if (steps == 0) return make_error(EINTR, "go on: killed");
            --steps;
            return {};
        };
    }
    Lsn mark() {
        log(*model);
        const std::string name = fmt::format("s{}", pictures.size() + gone);
        last = append(*journal, MarkOp{.name = name, .time = WallTime{5}});
        pictures[last] = model->picture();
        return last;
    }
    void unmark(Lsn number) {
        last = append(*journal, UnmarkOp{number});
        pictures.erase(number);
        ++gone;
    }
    void durable() {
        log(*model);
        ASSERT_TRUE(journal->make_durable(last).ok());
    }
    void apply() {
        durable();
        const auto status = applier->run_until(last);
        ASSERT_TRUE(status.ok()) << status.error().text();
        ASSERT_EQ(applier->applied(), last);
    }
    std::shared_ptr<Past> open_past() {
        auto past = Past::open(
            {.store = folder.path(), .volume = kVolume, .scratch = folder.path() + "/scratch"});
        EXPECT_TRUE(past.ok()) << past.error().text();
        return past.ok() ? *past : nullptr;
    }
    // Every snapshot that has been applied, and was not to be destroyed, is as it was.
    void expect_past(const std::string& when) {
        const auto past = open_past();
        ASSERT_NE(past, nullptr);
        const auto listed = past->snapshots();
        ASSERT_TRUE(listed.ok()) << listed.error().text();
        std::size_t checked = 0;
        for (const Snapshot& each : *listed) {
            if (!pictures.contains(each.number)) continue;  // its end is not applied yet
            auto image = past->image(each.number);
            ASSERT_TRUE(image.ok()) << image.error().text() << when;
            ASSERT_EQ(Comparison(**image, pictures[each.number]).run(), "")
                << when << " snapshot " << each.name << " of " << listed->size();
            ++checked;
        }
        std::size_t wanted = 0;
        for (const auto& [number, picture] : pictures) wanted += number <= applier->applied();
        ASSERT_EQ(checked, wanted) << when;
    }

    std::unique_ptr<Model> model = std::make_unique<Model>(1);
    std::map<Lsn, Model::Picture> pictures;
    std::size_t gone = 0;
    std::uint64_t steps = UINT64_MAX;
};

std::uint64_t number_from(const char* name, std::uint64_t standard) {
    const char* text = std::getenv(name);
    return text == nullptr ? standard : std::strtoull(text, nullptr, 10);
}

class HistoryModelTest : public HistoryTest, public ::testing::WithParamInterface<int> {};

TEST_P(HistoryModelTest, AnyPastStaysAsItWas) {
    const std::uint64_t seed =
        number_from("TWINSPOOL_SEED", 1) + static_cast<std::uint64_t>(GetParam());
    std::mt19937_64 random{seed * 7919};
    model = std::make_unique<Model>(seed);
    batch_records = random() % 3 == 0 ? 20 : 200'000;
    open_applier();
    int kills = 0;
    for (int period = 0; period < 14; ++period) {
        for (auto stretches = 1 + random() % 3; stretches != 0; --stretches) {
            if (random() % 5 == 0)
                model->change_underneath(static_cast<int>(1 + random() % 12));
            else
                for (auto left = 1 + random() % 40; left != 0; --left) model->act();
            if (random() % 2 == 0) mark();
            if (!pictures.empty() && random() % 4 == 0)
                unmark(std::next(pictures.begin(),
                                 static_cast<std::ptrdiff_t>(random() % pictures.size()))
                           ->first);
        }
        durable();
        const std::string when = fmt::format("seed={} period={}", seed, period);
        for (bool done = false; !done;) {
            steps = random() % 2 == 0 ? UINT64_MAX : random() % 120;
            const auto status = applier->run_until(last);
            done = status.ok();
            ASSERT_TRUE(done || status.error().code == EINTR) << status.error().text() << when;
            steps = UINT64_MAX;
            kills += done ? 0 : 1;
            ASSERT_NO_FATAL_FAILURE(expect_past(when + (done ? "" : " killed")));
            if (!done && random() % 2 == 0) open_applier();
        }
        ASSERT_EQ(model->compare(folder.path()), "") << when;
        if (random() % 2 == 0) {
            const auto tidied = applier->tidy_up();
            ASSERT_TRUE(tidied.ok()) << tidied.error().text();
            ASSERT_NO_FATAL_FAILURE(expect_past(when + " tidied"));
        }
    }
    while (!pictures.empty()) unmark(pictures.begin()->first);
    apply();
    ASSERT_TRUE(applier->tidy_up().ok());
    EXPECT_TRUE(applier->snapshots().empty());
    EXPECT_TRUE(std::filesystem::is_empty(folder.path() + "/kept")) << "seed=" << seed;
    std::printf("seed=%lu: %d kills\n", seed, kills);
}

// The tree changes under a reader all the time; it must never see it.
TEST_F(HistoryTest, ReadersBesideTheApplierSeeOnlyThePast) {
    for (int i = 0; i < 60; ++i) model->act();
    const Lsn number = mark();
    apply();
    const auto past = open_past();
    ASSERT_NE(past, nullptr);
    const auto image = past->image(number);
    ASSERT_TRUE(image.ok()) << image.error().text();
    const Model::Picture picture = pictures[number];
    std::atomic<bool> ended{false};
    std::atomic<int> rounds{0};
    std::vector<std::thread> readers;
    std::array<std::string, 2> differences;
    for (auto& difference : differences)
        readers.emplace_back([&] {
            while (!ended && difference.empty()) {
                difference = Comparison(**image, picture).run();
                ++rounds;
            }
        });
    for (int i = 0; i < 150; ++i) {
        for (int j = 0; j < 12; ++j) model->act();
        if (i % 10 == 0) model->change_underneath(5);
        if (i % 7 == 0) mark();
        if (i % 11 == 0 && pictures.size() > 2) unmark(std::prev(pictures.end(), 2)->first);
        apply();
        ASSERT_TRUE(applier->tidy_up().ok());
    }
    ended = true;
    for (auto& reader : readers) reader.join();
    for (const auto& difference : differences) EXPECT_EQ(difference, "");
    EXPECT_GT(rounds, 10);
    ASSERT_NO_FATAL_FAILURE(expect_past("at the end"));
}

TEST_F(HistoryTest, ANewFileCostsASnapshotNothing) {
    for (int i = 0; i < 60; ++i) model->act();
    mark();
    apply();
    const ObjectId directory = model->picture().roots.begin()->second;
    const auto used = [&] { return applier->snapshots().front().used; };
    const auto deliver = [&](std::uint64_t id, const std::string& name) {
        last = append(*journal, CreateOp{.object = ObjectId{id},
                                         .parent = directory,
                                         .name = name,
                                         .attributes = {.mode = S_IFREG | 0600}});
    };
    deliver(1'000'000, "first");
    apply();
    const auto once = used();  // the directory's own time
    for (std::uint64_t i = 1; i < 200; ++i) deliver(1'000'000 + i, fmt::format("mail{}", i));
    apply();
    EXPECT_EQ(used(), once);
}

// Space that is reserved later shows as data once it has been read; the snapshot has a hole there.
TEST_F(HistoryTest, SpaceReservedLaterIsAHoleOfTheSnapshot) {
    model->act();
    mark();
    const ObjectId directory = model->picture().roots.begin()->second;
    const ObjectId file{1'000'000};
    constexpr std::uint64_t kSize = 1 << 20;
    const std::string text(100, 'x');
    last = append(*journal, CreateOp{.object = file,
                                     .parent = directory,
                                     .name = "sparse",
                                     .attributes = {.mode = S_IFREG | 0600}});
    for (const std::uint64_t offset : {std::uint64_t{0}, kSize - text.size()})
        last = append(*journal, WriteOp{.object = file,
                                        .offset = offset,
                                        .mtime = {},
                                        .data = std::as_bytes(std::span{text})});
    last = append(*journal, MarkOp{.name = "before", .time = WallTime{5}});
    const Lsn number = last;
    last = append(*journal, AllocateOp{.object = file,
                                       .kind = AllocateKind::kAllocate,
                                       .offset = 0,
                                       .length = kSize,
                                       .size = kSize,
                                       .mtime = {}});
    apply();
    const auto image = open_past()->image(number);
    ASSERT_TRUE(image.ok()) << image.error().text();
    std::vector<std::byte> bytes(kSize);
    ASSERT_TRUE((*image)->read(file, 0, bytes).ok());
    const auto first = (*image)->next_data(file, 0);
    ASSERT_TRUE(first.ok() && *first) << "the beginning is data";
    const auto second = (*image)->next_data(file, (*first)->offset + (*first)->length);
    ASSERT_TRUE(second.ok() && *second) << "the end is data";
    EXPECT_GE((*second)->offset, kSize - 4096) << "between them is a hole";
}

TEST_F(HistoryTest, WhatIsReadIsNotDestroyedUntilNobodyReadsIt) {
    for (int i = 0; i < 60; ++i) model->act();
    const Lsn number = mark();
    const Model::Picture picture = pictures[number];
    apply();
    auto past = open_past();
    auto image = past->image(number);
    ASSERT_TRUE(image.ok()) << image.error().text();
    unmark(number);
    for (int i = 0; i < 60; ++i) model->act();
    apply();
    ASSERT_TRUE(applier->tidy_up().ok());
    EXPECT_TRUE(applier->snapshots().empty()) << "it is not offered any more";
    EXPECT_EQ(past->image(number).error().code, EBUSY);
    EXPECT_EQ(Comparison(**image, picture).run(), "");
    *image = nullptr;
    ASSERT_TRUE(applier->tidy_up().ok());
    EXPECT_EQ(past->image(number).error().code, ENOENT);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path() + "/kept"));
}

TEST_F(HistoryTest, WhatWasWrittenByTheFirstVersionGoesOn) {
    // As version 1 wrote it: no life of the object after its type and handle type.
    std::string text;
    const auto add = [&](const auto& value) {
        text.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    add(std::uint32_t{S_IFDIR}), add(std::int32_t{1});
    add(std::uint64_t{7}), add(std::int64_t{99}), add(std::uint64_t{5});
    text += "handle";
    const auto entry = decode_index_entry(text);
    ASSERT_TRUE(entry.ok()) << entry.error().text();
    EXPECT_EQ(entry->type, S_IFDIR);
    EXPECT_EQ(entry->parent, ObjectId{7});
    EXPECT_EQ(entry->handle.size, 6U);
    EXPECT_EQ(entry->born, Lsn{});
    const auto again = decode_index_entry(encode(*entry));
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(*again, *entry);
}

INSTANTIATE_TEST_SUITE_P(Lives, HistoryModelTest,
                         ::testing::Range(0, static_cast<int>(number_from("TWINSPOOL_LIVES", 30))));

}  // namespace
}  // namespace twinspool
