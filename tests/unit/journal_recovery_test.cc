// SPDX-License-Identifier: Apache-2.0
// The labels R1 to R5 are those of the table in journal/log/recovery.h.
#include <cstring>
#include <thread>

#include "journal_support.h"

namespace twinspool::test {
namespace {

WriteOp write_of(std::string_view data) {
    return {
        .object = ObjectId{5}, .offset = 0, .mtime = {}, .data = std::as_bytes(std::span{data})};
}

// What cannot be compressed, so that segments fill up.
std::string noise(std::size_t size, std::uint32_t seed) {
    std::string text(size, '\0');
    for (auto& each : text) each = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
    return text;
}

class Recovery : public JournalTest {
   protected:
    // One frame each, durable.
    Lsn write_frames(Journal& journal, int count, std::size_t size = 100) {
        Lsn last;
        for (int i = 0; i < count; ++i) {
            last = append(journal, write_of(noise(size, static_cast<std::uint32_t>(i + 1))));
            EXPECT_TRUE(journal.make_durable(last).ok());
        }
        return last;
    }
    Result<JournalEnd> end() { return find_end(options.directory, kVolume); }
    std::uint64_t end_offset() { return std::uint64_t{end()->next.block} * kBlockBytes; }
    // Ends the process's hold without a clean end, and forgets the tail as a reboot does.
    void power_off(std::unique_ptr<Journal>& journal) {
        journal.reset();
        ::unlink(options.tail_path.c_str());
    }
};

TEST_F(Recovery, R1_ReadsOnThroughAllFrames) {
    auto journal = open();
    const Lsn last = write_frames(*journal, 20);
    power_off(journal);
    ASSERT_TRUE(end().ok()) << end().error().text();
    EXPECT_EQ(end()->end.lsn, last);
}

TEST_F(Recovery, R2_ReadsOnInTheNextSegment) {
    auto journal = open();
    const Lsn last = write_frames(*journal, 30, 500000);
    power_off(journal);
    EXPECT_GE(list_segments(options.directory)->size(), 3U);
    EXPECT_EQ(end()->end.lsn, last);
    EXPECT_EQ(described(Lsn{1}, last).size(), last.value);
}

TEST_F(Recovery, R3_ATornFrameIsTheEnd) {
    auto journal = open();
    const Lsn last = write_frames(*journal, 5);
    power_off(journal);
    flip(newest_segment(), end_offset() - kBlockBytes + 70);
    ASSERT_TRUE(end().ok()) << end().error().text();
    EXPECT_EQ(end()->end.lsn, last - 1);
    journal = open();
    EXPECT_EQ(journal->predecessor().end, last - 1);
    EXPECT_EQ(append(*journal, VoidOp{}), last + 1) << "dense after the new epoch's first record";
}

TEST_F(Recovery, R4_DamageInTheMiddleIsNamedAndNothingIsSkipped) {
    auto journal = open();
    write_frames(*journal, 5);
    power_off(journal);
    const std::uint64_t offset = end_offset() - 3 * kBlockBytes;
    flip(newest_segment(), offset + 70);
    const auto damaged = end();
    ASSERT_FALSE(damaged.ok());
    EXPECT_EQ(damaged.error().code, EBADMSG);
    EXPECT_NE(damaged.error().doing.find(newest_segment()), std::string::npos);
    EXPECT_NE(damaged.error().doing.find(std::to_string(offset)), std::string::npos)
        << damaged.error().text();
    EXPECT_FALSE(Journal::open(options).ok());
}

TEST_F(Recovery, R4_DamageAtTheEndOfAnOlderSegmentIsNamed) {
    auto journal = open();
    write_frames(*journal, 30, 500000);
    power_off(journal);
    const std::string first = list_segments(options.directory)->front().path;
    flip(first, kBlockBytes * 300);
    ASSERT_FALSE(end().ok());
    EXPECT_NE(end().error().doing.find(first), std::string::npos) << end().error().text();
}

TEST_F(Recovery, R5_AFrameLeftOverFromBeforeIsTheEnd) {
    auto journal = open();
    write_frames(*journal, 1);
    const std::uint64_t cut = end_offset();
    // A frame of an older history stands behind the end: whole, here, but not our successor.
    const Lsn last = write_frames(*journal, 1);
    power_off(journal);
    std::vector<std::byte> stale(kBlockBytes);
    const FrameContext context{.volume = kVolume, .previous = Chain{0x1234}};
    std::vector<std::byte> payload(encoded_size(VoidOp{}));
    encode(VoidOp{}, last, payload);
    const std::size_t size = encode_frame(context, last, 1, payload, stale);
    place_frame(std::span{stale}.first(size), {list_segments(options.directory)->back().number,
                                               static_cast<std::uint32_t>(cut / kBlockBytes)});
    const int fd = ::open(newest_segment().c_str(), O_WRONLY);
    ASSERT_EQ(::pwrite(fd, stale.data(), stale.size(), static_cast<off_t>(cut)),
              static_cast<ssize_t>(stale.size()));
    ::close(fd);
    ASSERT_TRUE(end().ok()) << end().error().text();
    EXPECT_EQ(end()->end.lsn, last - 1);
}

TEST_F(Recovery, TruncatedSegmentIsNamed) {
    auto journal = open();
    write_frames(*journal, 3);
    power_off(journal);
    truncate(newest_segment(), 3 * kBlockBytes);
    ASSERT_FALSE(end().ok());
    EXPECT_EQ(end().error().code, EBADMSG);
    EXPECT_NE(end().error().doing.find("cut off"), std::string::npos) << end().error().text();
}

TEST_F(Recovery, AnotherVolumesSegmentIsNamed) {
    auto journal = open();
    write_frames(*journal, 3);
    power_off(journal);
    const auto other = find_end(options.directory, kVolume + 1);
    ASSERT_FALSE(other.ok());
    EXPECT_NE(other.error().doing.find("volume"), std::string::npos);
}

TEST_F(Recovery, DamagedSegmentHeaderIsNamed) {
    auto journal = open();
    write_frames(*journal, 3);
    power_off(journal);
    flip(newest_segment(), 33);
    ASSERT_FALSE(end().ok());
    EXPECT_NE(end().error().doing.find("header"), std::string::npos);
}

TEST_F(Recovery, AMissingSegmentInTheMiddleIsNamed) {
    auto journal = open();
    write_frames(*journal, 40, 500000);
    power_off(journal);
    const auto segments = list_segments(options.directory).value();
    ASSERT_GE(segments.size(), 3U);
    ::unlink(segments[1].path.c_str());
    EXPECT_FALSE(end().ok());
}

TEST_F(Recovery, CleanEndIsRemembered) {
    auto journal = open();
    write_frames(*journal, 3);
    ASSERT_TRUE(journal->close({.clean = true}).ok());
    journal.reset();
    journal = open();
    EXPECT_TRUE(journal->predecessor().clean);
    EXPECT_EQ(journal->epoch().number, 2U);
}

// A process that dies with SIGKILL: a child that never returns.
template <typename Work>
void in_killed_child(Work work) {
    const pid_t child = ::fork();
    if (child == 0) {
        work();
        ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
}

TEST_F(Recovery, KillLosesNothingThatWasAppended) {
    options.linger = std::chrono::hours{1};  // nothing is sealed by itself
    in_killed_child([&] {
        auto journal = open();
        for (int i = 0; i < 1000; ++i) append(*journal, write_of(std::to_string(i)));
    });
    auto journal = open();
    EXPECT_EQ(journal->predecessor().end, Lsn{1001});
    EXPECT_EQ(described(Lsn{1}, Lsn{1001}).size(), 1001U);
}

TEST_F(Recovery, KillWithSeveralFramesWaitingLosesNothing) {
    in_killed_child([&] {
        auto journal = open();
        for (int i = 0; i < 60; ++i)
            append(*journal, write_of(noise(300000, static_cast<std::uint32_t>(i))));
    });
    auto journal = open();
    EXPECT_EQ(journal->predecessor().end, Lsn{61});
    EXPECT_EQ(described(Lsn{1}, Lsn{61}).size(), 61U);
}

TEST_F(Recovery, NotesOfTheDeadAreInheritedUntilForgotten) {
    in_killed_child([&] {
        auto journal = open();
        Note& note = journal->note_for_this_thread();
        note.entry_count = 1;
        note.entries[0].set_name("message");
        note.active = 1;
    });
    for (int i = 0; i < 2; ++i) {
        in_killed_child([&] { auto journal = open(); });
        auto journal = open();
        ASSERT_EQ(journal->predecessor().notes.size(), 1U);
        EXPECT_EQ(journal->predecessor().notes[0].entries[0].name(), "message");
        if (i == 1) journal->forget_notes();
        in_killed_child([] {});
        // Dies without a clean end: the notes stay.
    }
    auto journal = open();
    EXPECT_TRUE(journal->predecessor().notes.empty());
}

TEST_F(Recovery, AnotherBootsTailDoesNotCount) {
    in_killed_child([&] {
        auto journal = open();
        append(*journal, write_of("x"));
        ASSERT_TRUE(journal->make_durable(Lsn{2}).ok());
        options.linger = std::chrono::hours{1};
        append(*journal, write_of("y"));
    });
    const int fd = ::open(options.tail_path.c_str(), O_RDWR);
    ASSERT_EQ(::pwrite(fd, "another boot", 12, offsetof(TailHeader, boot_id)), 12);
    ::close(fd);
    auto journal = open();
    EXPECT_LE(journal->predecessor().end, Lsn{3});
    EXPECT_TRUE(journal->predecessor().notes.empty());
}

TEST_F(Recovery, GenerationAndSeededSurvive) {
    auto journal = open();
    journal->begin_generation(9);
    journal->generation_seeded(9);
    write_frames(*journal, 1);
    power_off(journal);
    journal = open();
    EXPECT_EQ(journal->predecessor().generation, 9U);
    EXPECT_EQ(journal->predecessor().seeded, 9U);
}

TEST_F(Recovery, WhatNoWalkHasLookedAtStaysSuspectOverSeveralReigns) {
    auto journal = open();
    journal->generation_seeded(1);
    write_frames(*journal, 1);
    power_off(journal);
    journal = open();
    const WallTime suspect = journal->predecessor().unchanged_before;
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
    write_frames(*journal, 1);  // no walk is complete in this reign
    power_off(journal);
    journal = open();
    EXPECT_EQ(journal->predecessor().unchanged_before, suspect);
    journal->generation_seeded(1);
    write_frames(*journal, 1);
    power_off(journal);
    journal = open();
    EXPECT_GT(raw(journal->predecessor().unchanged_before), raw(suspect));
}

TEST_F(Recovery, SegmentsBelowTheCheckpointAreRecycled) {
    auto journal = open();
    const Lsn last = write_frames(*journal, 60, 500000);
    const auto before = list_segments(options.directory)->size();
    ASSERT_TRUE(journal->recycle(last).ok());
    EXPECT_EQ(list_segments(options.directory)->size(), before) << "no checkpoint yet";
    ASSERT_TRUE(journal->checkpoint(last).ok());
    ASSERT_TRUE(journal->recycle(Lsn{2}).ok());
    EXPECT_EQ(list_segments(options.directory)->size(), before) << "a standby needs them";
    ASSERT_TRUE(journal->recycle(last).ok());
    EXPECT_LE(list_segments(options.directory)->size(), 1U);
    write_frames(*journal, 60, 500000);
    EXPECT_GT(journal->oldest(), Lsn{1});
    power_off(journal);
    EXPECT_TRUE(end().ok()) << end().error().text();
}

TEST_F(Recovery, ManyThreadsAppendDenselyAndInOrderOfTheirOwn) {
    auto journal = open();
    constexpr int kThreads = 8;
    constexpr int kEach = 3000;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
        threads.emplace_back([&, t] {
            for (int i = 0; i < kEach; ++i)
                append(*journal, TruncateOp{.object = ObjectId{static_cast<std::uint64_t>(t) + 1},
                                            .size = static_cast<std::uint64_t>(i),
                                            .mtime = {}});
        });
    for (auto& each : threads) each.join();
    const Lsn last = journal->appended();
    EXPECT_EQ(last.value, 1U + kThreads * kEach);
    ASSERT_TRUE(journal->make_durable(last).ok());
    auto cursor = Cursor::open(options.directory, kVolume, Lsn{1});
    ASSERT_TRUE(cursor.ok());
    std::vector<std::uint64_t> next(kThreads + 1, 0);
    std::uint64_t count = 0;
    for (;;) {
        auto frame = cursor->next(last);
        ASSERT_TRUE(frame.ok()) << frame.error().text();
        if (!frame.value()) break;
        ASSERT_TRUE(frame.value()
                        ->for_each([&](const Record& record) -> Status {
                            EXPECT_EQ(record.lsn.value, ++count);
                            if (const auto* op = std::get_if<TruncateOp>(&record.op)) {
                                EXPECT_EQ(op->size, next[raw(op->object)]++);
                            }
                            return {};
                        })
                        .ok());
    }
    EXPECT_EQ(count, last.value);
}

TEST_F(Recovery, AFullDiskFailsTheJournalAndAnswersAllWaiters) {
    auto journal = open();
    write_frames(*journal, 1);
    options.standby_count = 0;
    std::error_code code;
    std::filesystem::remove_all(options.directory, code);  // no segment can be begun any more
    Status status;
    for (int i = 0; i < 40 && status.ok(); ++i) {
        const std::string data = noise(500000, 3);
        if (!journal->take_credit(encoded_size(write_of(data)))) break;
        status = journal->make_durable(journal->append(write_of(data)));
    }
    EXPECT_NE(journal->failure(), 0);
    EXPECT_FALSE(journal->take_credit(100));
}

}  // namespace
}  // namespace twinspool::test
