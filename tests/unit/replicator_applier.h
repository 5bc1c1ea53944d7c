// SPDX-License-Identifier: Apache-2.0
// A primary's journal, and a standby's applier that reads the same folder.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>

#include "journal_support.h"
#include "replicator/standby/applier.h"
#include "replicator_model.h"

namespace twinspool::test {

// A store in whose journal a test writes as the primary would.
class StoreTest : public JournalTest {
   protected:
    void SetUp() override {
        JournalTest::SetUp();
        options.mode = CommitMode::kAsync;
        journal = open();
        ASSERT_NE(journal, nullptr);
    }
    void TearDown() override {
        if (journal) (void)journal->close({});
        JournalTest::TearDown();
    }
    template <typename T>
    Lsn add(const T& op) {
        return last = append(*journal, op);
    }
    // What the model has done since the last time.
    void log(Model& model) {
        for (; logged < model.log().size(); ++logged)
            std::visit(
                [&](const auto& op) {
                    if constexpr (!std::is_same_v<std::decay_t<decltype(op)>, std::monostate>)
                        add(op);
                },
                model.log()[logged].op);
    }

    std::unique_ptr<Journal> journal;
    std::size_t logged = 0;
    Lsn last;
};

// The same with an applier.
class AppliedStoreTest : public StoreTest {
   protected:
    void SetUp() override {
        StoreTest::SetUp();
        if (journal) open_applier();
    }
    void TearDown() override {
        applier.reset();
        StoreTest::TearDown();
    }
    // What a test wants of its applier beside.
    virtual void wish(ApplierOptions& /*wanted*/) {}
    // As after a kill, too.
    void open_applier() {
        applier.reset();
        ApplierOptions wanted{.store = folder.path(), .volume = kVolume};
        wanted.batch_records = batch_records;
        wish(wanted);
        auto opened = Applier::open(std::move(wanted));
        ASSERT_TRUE(opened.ok()) << opened.error().text();
        applier = std::move(*opened);
    }

    std::unique_ptr<Applier> applier;
    std::uint64_t batch_records = 200'000;
};

}  // namespace twinspool::test
