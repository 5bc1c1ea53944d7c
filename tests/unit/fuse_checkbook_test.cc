// SPDX-License-Identifier: Apache-2.0
// When a check is answered; and a resync and a verify against a standby that answers as it is told.
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "fuse/tell/rate_limit.h"
#include "fuse/tell/verifier.h"
#include "journal/log/cursor.h"
#include "tests/unit/fuse_support.h"

namespace twinspool::test {
namespace {

// Follows the journal, and says of each check what the test wants.
class FakeStandby {
   public:
    using Opinion = std::function<std::vector<Finding>(const Record&)>;
    FakeStandby(Journal& journal, std::string directory, Checkbook& book, Opinion opinion)
        : journal_(journal),
          directory_(std::move(directory)),
          book_(book),
          opinion_(std::move(opinion)),
          next_(journal.appended() + 1) {
        book_.session_began(0);
        thread_ = std::thread{[this] { run(); }};
    }
    ~FakeStandby() {
        stopping_ = true;
        thread_.join();
    }

   private:
    void run() {
        while (!stopping_) {
            const Lsn upto = journal_.appended();
            if (upto < next_) {
                ::usleep(1000);
                continue;
            }
            if (!journal_.make_durable(upto).ok()) return;
            hear(upto);
        }
    }
    void hear(Lsn upto) {
        auto cursor = Cursor::open(directory_, kVolume, next_);
        if (!cursor.ok()) return;
        while (next_ <= upto) {
            auto frame = cursor->next(journal_.commit().local());
            if (!frame.ok() || !frame.value()) return;
            (void)frame.value()->for_each([&](const Record& record) -> Status {
                if (record.lsn >= next_) book_.heard_findings(0, opinion_(record));
                return {};
            });
            next_ = frame.value()->last() + 1;
            book_.heard_applied(0, frame.value()->last());
        }
    }
    Journal& journal_;
    const std::string directory_;
    Checkbook& book_;
    const Opinion opinion_;
    Lsn next_;
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

class FuseChecks : public FuseTest {
   protected:
    std::ptrdiff_t count(const Words& words, const char* word) {
        return std::count(words.begin(), words.end(), word);
    }
    void resync(const FakeStandby::Opinion& opinion, std::uint32_t generation = kGeneration + 1) {
        logged();
        volume->generation = generation;
        volume->by_hash = true;
        walker = std::make_unique<Walker>(*volume, Walker::Options{});
        volume->walk = walker.get();
        const FakeStandby standby{*journal, options.directory, walker->book(), opinion};
        walker->begin(Walker::Round::kSeed, Contents::kByHash, 1);
        for (int i = 0; i < 2000 && walker->progress().running; ++i) ::usleep(5000);
        ASSERT_TRUE(walker->progress().complete);
    }
    VerifyReport verify(const FakeStandby::Opinion& opinion, const VerifyOptions& wish = {}) {
        Verifier verifier{*volume, {.standbys = 1}};
        const FakeStandby standby{*journal, options.directory, verifier.book(), opinion};
        const Status begun = verifier.begin(wish);
        EXPECT_TRUE(begun.ok()) << begun.error().text();
        for (int i = 0; i < 2000 && verifier.report().running; ++i) ::usleep(5000);
        return verifier.report();
    }
    static std::vector<Finding> none(const Record& /*record*/) { return {}; }
    static const CheckContentOp* content(const Record& record) {
        return std::get_if<CheckContentOp>(&record.op);
    }
    std::string big(std::size_t bytes) {
        std::string text(bytes, 'x');
        for (std::size_t i = 0; i < bytes; i += 100)
            text[i] = static_cast<char>('a' + i / 100 % 26);
        return text;
    }
};

TEST_F(FuseChecks, ACheckIsAnsweredWhenAllWhoMustHaveAppliedPastIt) {
    Checkbook book;
    book.begin(0b11);
    Turn turn{*journal, Turn::Waiting::kAllowed};
    ASSERT_TRUE(turn.wait_for_credit(1000));
    const Lsn lsn = book.log(turn, CheckContentOp{}, {.item = 7});
    book.heard_applied(0, lsn);
    EXPECT_TRUE(book.take({}).empty());
    book.heard_findings(1, {{.check = lsn, .kind = FindingKind::kContent, .offset = 5}});
    book.heard_applied(1, lsn + 3);
    const auto answers = book.take({});
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].asked.item, 7U);
    EXPECT_FALSE(answers[0].lost);
    ASSERT_EQ(answers[0].findings.size(), 1U);
    EXPECT_EQ(answers[0].findings[0].standby, 1U);
}

TEST_F(FuseChecks, ASessionThatBeginsLosesWhatWasOpenButOnlyOfThoseWhoMustAnswer) {
    Checkbook book;
    book.begin(0b01);
    Turn turn{*journal, Turn::Waiting::kAllowed};
    ASSERT_TRUE(turn.wait_for_credit(1000));
    (void)book.log(turn, CheckContentOp{}, {.item = 1});
    book.session_began(1);
    EXPECT_TRUE(book.take({}).empty());
    book.session_began(0);
    const auto answers = book.take({});
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_TRUE(answers[0].lost);
    EXPECT_TRUE(book.empty());
}

TEST_F(FuseChecks, AResyncOfWhatIsEqualSendsNoContent) {
    put("file", big(300'000));
    ASSERT_EQ(::mkdir(path("directory").c_str(), 0755), 0);
    put("directory/inner", "more");
    put("empty", "");
    walk(Walker::Round::kSeed);
    resync(none);
    const Words words = logged();
    EXPECT_EQ(count(words, "write"), 0);
    EXPECT_EQ(count(words, "check-content"), 2);
    EXPECT_EQ(count(words, "adopt"), 4);
    EXPECT_EQ(count(words, "entries"), 2);  // so that what is not there any more goes
    EXPECT_EQ(words.back(), "seeded");
    for (const char* name : {"file", "directory", "directory/inner", "empty"}) {
        EXPECT_TRUE(identity(name)->complete) << name;
        EXPECT_EQ(identity(name)->generation, kGeneration + 1) << name;
    }
    EXPECT_EQ(walker->progress().bytes_different, 0U);
}

TEST_F(FuseChecks, AResyncSendsJustWhatDiffers) {
    put("file", big(300'000));
    resync([](const Record& record) -> std::vector<Finding> {
        if (content(record) == nullptr) return {};
        return {{.check = record.lsn,
                 .object = content(record)->object,
                 .kind = FindingKind::kContent,
                 .offset = 16384,
                 .length = 32768}};
    });
    const auto lines = logged_lines();
    const auto written = std::count_if(lines.begin(), lines.end(), [](const std::string& line) {
        return line.find(" write ") != std::string::npos;
    });
    EXPECT_EQ(written, 1);
    EXPECT_EQ(walker->progress().bytes_different, 32768U);
    EXPECT_TRUE(identity("file")->complete);
}

TEST_F(FuseChecks, WhatChangedMeanwhileIsCheckedAgainExactly) {
    put("file", "content");
    std::atomic<int> exact{0};
    std::atomic<int> plain{0};
    resync([&](const Record& record) -> std::vector<Finding> {
        if (content(record) == nullptr) return {};
        if (content(record)->exact != 0) {
            ++exact;
            return {};
        }
        ++plain;
        return {{.check = record.lsn, .kind = FindingKind::kChangedMeanwhile}};
    });
    EXPECT_EQ(plain, 1);
    EXPECT_EQ(exact, 1);
    EXPECT_EQ(count(logged(), "write"), 0);
}

TEST_F(FuseChecks, WhatALostSessionOwedIsAskedAgain) {
    put("file", "content");
    std::atomic<int> asked{0};
    resync([&](const Record& record) -> std::vector<Finding> {
        if (content(record) == nullptr) return {};
        if (++asked == 1) walker->book().session_began(0);
        return {};
    });
    EXPECT_EQ(asked, 2);
    EXPECT_TRUE(identity("file")->complete);
}

TEST_F(FuseChecks, AFileIsNotCompleteBeforeTheAnswer) {
    put("file", "content");
    std::atomic<bool> complete{false};
    resync([&](const Record& record) -> std::vector<Finding> {
        if (content(record) != nullptr) complete = identity("file")->complete;
        return {};
    });
    EXPECT_FALSE(complete);
    EXPECT_TRUE(identity("file")->complete);
}

TEST_F(FuseChecks, WhatIsMadeDuringAResyncIsNotChecked) {
    put("old", "content");
    std::atomic<bool> made{false};
    resync([&](const Record& record) -> std::vector<Finding> {
        if (content(record) != nullptr && !made.exchange(true)) {
            EXPECT_TRUE(write(create("new"), "fresh").ok());
        }
        return {};
    });
    EXPECT_EQ(count(logged(), "check-content"), 1);
    EXPECT_TRUE(identity("new")->complete);
}

TEST_F(FuseChecks, AVerifyOfWhatIsEqualChecksEverythingAndChangesNothing) {
    put("file", big(2'500'000));
    put("twice", "x");
    ASSERT_EQ(::link(path("twice").c_str(), path("again").c_str()), 0);
    ASSERT_EQ(::symlink("target", path("link").c_str()), 0);
    ASSERT_EQ(::mkdir(path("directory").c_str(), 0755), 0);
    walk(Walker::Round::kSeed);
    logged();
    const VerifyReport report = verify(none);
    EXPECT_EQ(report.failure, "");
    EXPECT_EQ(report.objects, 5U);
    EXPECT_EQ(report.bytes, 2'500'001U);
    EXPECT_EQ(report.differences, 0U);
    const Words words = logged();
    EXPECT_EQ(count(words, "check-content"), 4);
    EXPECT_EQ(count(words, "check-object"), 5);
    EXPECT_EQ(count(words, "check-entries"), 2);
    EXPECT_EQ(words.size(), 11U);
}

TEST_F(FuseChecks, AVerifyBelievesOnlyWhatAnExactCheckFindsToo) {
    put("file", "content");
    walk(Walker::Round::kSeed);
    const VerifyReport report = verify([](const Record& record) -> std::vector<Finding> {
        if (content(record) == nullptr || content(record)->exact != 0) return {};
        return {{.check = record.lsn, .kind = FindingKind::kContent, .offset = 0, .length = 7}};
    });
    EXPECT_EQ(report.differences, 0U);
}

TEST_F(FuseChecks, ADifferenceIsSaidWithItsPathAndRepaired) {
    ASSERT_EQ(::mkdir(path("directory").c_str(), 0755), 0);
    put("directory/file", "content");
    walk(Walker::Round::kSeed);
    logged();
    std::atomic<bool> repaired{false};
    const VerifyReport report = verify(
        [&](const Record& record) -> std::vector<Finding> {
            if (std::holds_alternative<WriteOp>(record.op)) repaired = true;
            if (content(record) == nullptr || repaired) return {};
            return {{.check = record.lsn, .kind = FindingKind::kContent, .offset = 0, .length = 7}};
        },
        {.repair = true});
    EXPECT_EQ(report.failure, "");
    ASSERT_EQ(report.listed.size(), 1U);
    EXPECT_EQ(report.listed[0].path, "/srv/tree/directory/file");
    EXPECT_TRUE(report.listed[0].repaired);
    EXPECT_EQ(report.repaired, 1U);
    EXPECT_EQ(count(logged(), "write"), 1);
}

TEST_F(FuseChecks, WhatDiffersAfterTheRepairIsNotCalledRepaired) {
    put("file", "content");
    walk(Walker::Round::kSeed);
    const VerifyReport report = verify(
        [&](const Record& record) -> std::vector<Finding> {
            if (!std::holds_alternative<CheckObjectOp>(record.op)) return {};
            if (std::get<CheckObjectOp>(record.op).object == root()) return {};
            return {{.check = record.lsn, .kind = FindingKind::kAttributes}};
        },
        {.repair = true});
    ASSERT_EQ(report.listed.size(), 1U);
    EXPECT_FALSE(report.listed[0].repaired);
    EXPECT_EQ(report.repaired, 0U);
}

TEST_F(FuseChecks, AStandbyThatIsLostEndsTheVerify) {
    put("file", "content");
    walk(Walker::Round::kSeed);
    Verifier verifier{*volume, {.standbys = 1}};
    ASSERT_TRUE(verifier.begin({}).ok());
    EXPECT_EQ(verifier.begin({}).error().code, EBUSY);
    ::usleep(50'000);
    verifier.book().session_began(0);
    for (int i = 0; i < 400 && verifier.report().running; ++i) ::usleep(5000);
    EXPECT_FALSE(verifier.report().running);
    EXPECT_EQ(verifier.report().failure, "a standby was lost");
}

TEST_F(FuseChecks, AVerifyOfAPathLooksAtNothingElse) {
    ASSERT_EQ(::mkdir(path("directory").c_str(), 0755), 0);
    put("directory/file", "content");
    put("other", "content");
    walk(Walker::Round::kSeed);
    EXPECT_EQ(verify(none, {.path = "/srv/tree/directory"}).objects, 2U);
    EXPECT_EQ(verify(none, {.path = "/srv/tree/directory/file"}).objects, 1U);
    Verifier verifier{*volume, {.standbys = 1}};
    EXPECT_EQ(verifier.begin({.path = "/srv/tree/missing"}).error().code, ENOENT);
    EXPECT_EQ(verifier.begin({.path = "/srv/treehouse"}).error().code, ENOENT);
}

TEST(RateLimit, WhoTakesMoreThanThereIsWaitsForIt) {
    RateLimit limit{1000};
    RateLimit::Time now{std::chrono::seconds{5}};
    EXPECT_EQ(limit.take(100, now), Nanoseconds{0});
    EXPECT_EQ(limit.take(500, now), std::chrono::milliseconds{500});
    now += std::chrono::milliseconds{500};
    EXPECT_EQ(limit.take(0, now), Nanoseconds{0});
    EXPECT_EQ(RateLimit{0}.take(1 << 30, now), Nanoseconds{0});
}

}  // namespace
}  // namespace twinspool::test
