// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>

#include "journal/log/cut.h"
#include "journal/log/epochs.h"
#include "tests/unit/journal_support.h"

namespace twinspool {
namespace {

using test::flip;
using test::FreshFolder;
using test::kVolume;

Epoch epoch(std::uint32_t number, std::uint64_t id, std::uint64_t first) {
    return {number, id, Lsn{first}, Chain{first * 7}};
}

TEST(Epochs, ComeBackAsTheyWere) {
    const FreshFolder folder;
    EXPECT_TRUE(read_epochs(folder.path()).value().empty());
    const std::vector<Epoch> epochs{epoch(1, 11, 1), epoch(2, 12, 50)};
    ASSERT_TRUE(write_epochs(folder.path(), epochs).ok());
    EXPECT_EQ(read_epochs(folder.path()).value(), epochs);
}

TEST(Epochs, DamageIsNamed) {
    const FreshFolder folder;
    ASSERT_TRUE(write_epochs(folder.path(), {epoch(1, 11, 1)}).ok());
    flip(folder.path() + "/epochs", 40);
    const auto read = read_epochs(folder.path());
    ASSERT_FALSE(read.ok());
    EXPECT_EQ(read.error().code, EBADMSG);
    EXPECT_NE(read.error().doing.find("/epochs"), std::string::npos);
}

TEST(Epochs, WhatIsLeftOfAReignEndsBeforeEveryLaterOne) {
    // The records of 12 from 60 on, and all of 13, were lost with the power.
    const std::vector<Epoch> epochs{epoch(1, 11, 1), epoch(2, 12, 50), epoch(3, 13, 90),
                                    epoch(4, 14, 60)};
    EXPECT_EQ(kept_of(epochs, 11, Lsn{100}), Lsn{49});
    EXPECT_EQ(kept_of(epochs, 12, Lsn{100}), Lsn{59});
    EXPECT_EQ(kept_of(epochs, 13, Lsn{100}), Lsn{59});
    EXPECT_EQ(kept_of(epochs, 14, Lsn{100}), Lsn{100});
    EXPECT_EQ(kept_of(epochs, 15, Lsn{100}), std::nullopt);
    EXPECT_EQ(epoch_of(epochs, Lsn{59}).id, 12U);
    EXPECT_EQ(epoch_of(epochs, Lsn{60}).id, 14U);
}

class EpochsJournal : public test::JournalTest {};

TEST_F(EpochsJournal, EveryStartIsInTheListWhateverIsRecycled) {
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(open()->close({}).ok());
    const auto epochs = read_epochs(options.directory).value();
    ASSERT_EQ(epochs.size(), 3U);
    EXPECT_EQ(epochs[0].number, 1U);
    EXPECT_EQ(epochs[2].number, 3U);
    EXPECT_LT(epochs[1].first_lsn, epochs[2].first_lsn);
}

TEST_F(EpochsJournal, AReignWithoutARecordKeepsItsNumber) {
    ASSERT_TRUE(open()->close({}).ok());
    auto epochs = read_epochs(options.directory).value();
    epochs.push_back({9, 99, epochs[0].first_lsn + 2, Chain{5}});
    ASSERT_TRUE(write_epochs(options.directory, epochs).ok());
    const auto journal = open();
    EXPECT_EQ(journal->epoch().number, 10U);
    EXPECT_EQ(journal->epochs().size(), 3U);
}

TEST_F(EpochsJournal, ADamagedListIsNotReplaced) {
    ASSERT_TRUE(open()->close({}).ok());
    flip(options.directory + "/epochs", 40);
    const auto journal = Journal::open(options);
    ASSERT_FALSE(journal.ok());
    EXPECT_EQ(journal.error().code, EBADMSG);
}

class Cut : public test::JournalTest {
   protected:
    // Frames that fill more than two segments; the position after each.
    std::vector<Position> fill() {
        std::vector<Position> ends;
        const auto journal = open();
        std::vector<std::byte> data(1 << 20);
        std::mt19937 random{1};
        for (std::byte& each : data) each = std::byte(random());
        for (int i = 0; i < 10; ++i) {
            const Lsn lsn = append(*journal, WriteOp{ObjectId{4}, 0, {}, data});
            EXPECT_TRUE(journal->make_durable(lsn).ok());
        }
        EXPECT_TRUE(journal->close({}).ok());
        auto cursor = Cursor::open(options.directory, kVolume, Lsn{1});
        for (;;) {
            const auto frame = cursor->next(Lsn{12});
            if (!frame.ok() || !frame.value()) return ends;
            ends.push_back({frame.value()->last(), Chain{frame.value()->header.checksum}});
        }
    }
};

TEST_F(Cut, EndsThereAndNothingBehindItIsFoundAgain) {
    const auto ends = fill();
    ASSERT_GT(list_segments(options.directory).value().size(), 2U);
    for (auto each = ends.rbegin(); each != ends.rend(); ++each) {
        ASSERT_TRUE(cut_back(options.directory, kVolume, *each).ok());
        const auto end = find_end(options.directory, kVolume);
        ASSERT_TRUE(end.ok()) << end.error().text();
        EXPECT_EQ(end->end, *each);
    }
}

TEST_F(Cut, OtherBytesOrTheMiddleOfAFrameChangeNothing) {
    const auto ends = fill();
    const auto before = find_end(options.directory, kVolume)->end;
    EXPECT_FALSE(cut_back(options.directory, kVolume, {ends[3].lsn, Chain{1}}).ok());
    EXPECT_FALSE(cut_back(options.directory, kVolume, {Lsn{99}, Chain{1}}).ok());
    EXPECT_EQ(find_end(options.directory, kVolume)->end, before);
}

}  // namespace
}  // namespace twinspool
