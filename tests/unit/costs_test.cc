// SPDX-License-Identifier: Apache-2.0
// What an operation costs in memory allocations. A program of its own, because malloc is replaced.
#include <algorithm>
#include <functional>

#include "tests/unit/costs.h"
#include "tests/unit/fuse_support.h"

namespace twinspool::test {
thread_local constinit std::uint64_t allocations = 0;
constinit std::atomic<std::uint64_t> allocations_everywhere{0};
}  // namespace twinspool::test

namespace {
void count_one() {
    ++twinspool::test::allocations;
    twinspool::test::allocations_everywhere.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

// glibc's allocator under the names by which it can be reached from a replacement.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* old, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
// NOLINTEND(bugprone-reserved-identifier)

void* malloc(std::size_t size) {
    count_one();
    return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
    count_one();
    return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
    count_one();
    return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
    count_one();
    return __libc_memalign(alignment, size);
}
}

namespace twinspool::test {
namespace {

// Allocations of this thread for one call of `operation(i)`, the most of all calls; the first few
// may fill caches.
std::uint64_t most_allocations(const std::function<void(int)>& operation) {
    std::uint64_t most = 0;
    for (int i = 0; i < kWarmUp + kTimes; ++i) {
        const std::uint64_t before = allocations;
        operation(i);
        if (i >= kWarmUp) most = std::max(most, allocations - before);
    }
    return most;
}

TEST(Costs, AnAllocationIsCounted) {
    EXPECT_EQ(most_allocations([](int i) { delete new volatile int{i}; }), 1);
    EXPECT_EQ(most_allocations([](int) { std::vector<char> bytes(100); }), 1);
    EXPECT_EQ(most_allocations([](int) {}), 0);
}

class CostsOfTheJournal : public JournalTest {};

TEST_F(CostsOfTheJournal, AppendingAllocatesNothing) {
    const auto journal = open();
    ASSERT_TRUE(journal);
    const std::vector<std::byte> data(2048);
    const ObjectId object = journal->new_object_id();
    const auto appended = [&journal](const auto& op) {
        return [&journal, &op](int) {
            ASSERT_TRUE(journal->take_credit(encoded_size(op) + 100));
            journal->append(op);
            journal->give_credit(100);
        };
    };
    const WriteOp write{.object = object, .data = data};
    const CreateOp create{.object = object, .parent = object, .name = "1700000000.M1P2.host"};
    const RenameOp rename{.object = object, .source_name = "one", .target_name = "another"};
    const UnlinkOp unlink{.object = object, .parent = object, .name = "1700000000.M1P2.host"};
    EXPECT_EQ(most_allocations(appended(write)), 0);
    EXPECT_EQ(most_allocations(appended(create)), 0);
    EXPECT_EQ(most_allocations(appended(rename)), 0);
    EXPECT_EQ(most_allocations(appended(unlink)), 0);
    EXPECT_EQ(most_allocations([&journal](int) { (void)journal->new_object_id(); }), 0);
    EXPECT_EQ(most_allocations([&journal](int) { journal->note_for_this_thread().active = 0; }), 0);
}

// On all threads: the writer shares each frame with the links.
TEST_F(CostsOfTheJournal, AFrameAllocatesAFewTimesHoweverManyRecordsItHas) {
    const auto journal = open();
    ASSERT_TRUE(journal);
    const std::vector<std::byte> data(2048);
    const WriteOp write{.object = journal->new_object_id(), .data = data};
    constexpr int kRecords = 16;
    const auto commit = [&](int times) {
        for (int i = 0; i < times; ++i) {
            ASSERT_TRUE(journal->take_credit(kRecords * encoded_size(write)));
            Lsn last;
            for (int record = 0; record < kRecords; ++record) last = journal->append(write);
            ASSERT_TRUE(journal->make_durable(last).ok());
        }
    };
    commit(kWarmUp);
    const std::uint64_t before = allocations_everywhere;
    const std::uint64_t frames = journal->counters().frames;
    commit(kTimes);
    const auto made = static_cast<double>(allocations_everywhere - before);
    const double each = made / static_cast<double>(journal->counters().frames - frames);
    std::printf("%.2f allocations for a frame\n", each);
    EXPECT_LE(each, 3);
}

TEST(CostsOfCommit, WaitingAndAnsweringAllocateNothing) {
    class Waiter final : public CommitWaiter {
       public:
        void answered(int error) override { answers += error == 0 ? 1 : 0; }
        int answers = 0;
    };
    std::array<Waiter, 16> waiters;
    Commit commit{CommitMode::kFsync, 1, Lsn{}, Lsn{}};
    const auto most = most_allocations([&](int i) {
        const Lsn lsn{static_cast<std::uint64_t>(i) + 1};
        for (Waiter& waiter : waiters) commit.wait(waiter, lsn);
        commit.local_durable(lsn);
        commit.standby_durable(0, lsn);
    });
    EXPECT_EQ(most, 0);
    EXPECT_GE(waiters.front().answers, kTimes);
    EXPECT_EQ(waiters.front().answers, waiters.back().answers);
}

// Verbs, as a thread that serves a queue calls them.
class CostsOfVerbs : public FuseTest {
   protected:
    template <typename Verb, typename... Args>
    Answered serve(Verb verb, Args... args) {
        Turn turn{*journal, Turn::Waiting::kForbidden};
        return verb(*volume, turn, Request{.buffer = buffer.data(), .buffer_size = buffer.size()},
                    args...);
    }
    // Of the verb itself: what the test does around it is not counted.
    template <typename Verb, typename... Args>
    std::uint64_t cost(int expected_error, Verb verb, Args... args) {
        const std::uint64_t before = allocations;
        int error = 0;
        {
            const Answered answered = serve(verb, args...);
            error = answered.ok() ? 0 : answered.error().code;
            if (answered.ok())
                if (const auto* entry = std::get_if<Answer::Entry>(&answered.value().kind))
                    volume->inodes.remember(*entry->inode);  // as the reply does
        }
        const std::uint64_t after = allocations;
        EXPECT_EQ(error, expected_error);
        return after - before;
    }
    // The most for one call of `each(name)`, with a name of its own every time.
    std::uint64_t most(const std::function<std::uint64_t(const char* name)>& each) {
        std::uint64_t found = 0;
        for (int i = 0; i < kWarmUp + kTimes; ++i) {
            const std::string name = "1700000000.M" + std::to_string(i) + "P2.mail.example.org";
            const std::uint64_t now = each(name.c_str());
            if (i >= kWarmUp) found = std::max(found, now);
        }
        return found;
    }
    std::vector<char> buffer = std::vector<char>(65536);
    const std::vector<std::byte> data = std::vector<std::byte>(2048);
};

// One for the object itself, which lives while the kernel knows it.
TEST_F(CostsOfVerbs, ADeliveryAllocatesOneInode) {
    const ObjectId tmp = create("tmp", root(), S_IFDIR | 0755);
    const ObjectId fresh = create("new", root(), S_IFDIR | 0755);
    const NewObject regular{.mode = S_IFREG | 0600};
    ObjectId object{};
    EXPECT_EQ(most([&](const char* name) { return cost(0, look_up, tmp, name); }), 0);
    EXPECT_EQ(most([&](const char* name) { return cost(0, make_object, tmp, name, regular); }), 1);
    EXPECT_EQ(most([&](const char* name) {
                  object = keep(serve(look_up, tmp, name));
                  return cost(ENODATA, get_xattr, object, "security.capability", std::size_t{0});
              }),
              0);
    EXPECT_EQ(most([&](const char* name) {
                  object = keep(serve(look_up, tmp, name));
                  return cost(0, write_data, object, Bytes{data}, off_t{0}, Privileges::kKill,
                              Written::kByCall);
              }),
              0);
    EXPECT_EQ(
        most([&](const char* name) { return cost(0, rename_entry, tmp, name, fresh, name, 0U); }),
        0);
    EXPECT_EQ(most([&](const char* /*name*/) { return cost(0, get_attributes, fresh); }), 0);
}

TEST_F(CostsOfVerbs, ReadingAndRemovingAllocateNothing) {
    const ObjectId directory = create("cur", root(), S_IFDIR | 0755);
    ObjectId object{};
    const auto made = [&](const char* name) {
        object = create(name, directory);
        EXPECT_TRUE(
            serve(write_data, object, Bytes{data}, off_t{0}, Privileges::kKeep, Written::kByCall)
                .ok());
        return object;
    };
    EXPECT_EQ(most([&](const char* name) {
                  return cost(0, read_data, made(name), std::size_t{4096}, off_t{0});
              }),
              0);
    EXPECT_EQ(most([&](const char* name) { return cost(0, look_up, directory, name); }), 0);
    EXPECT_EQ(most([&](const char* name) {
                  return cost(0, get_attributes, keep(serve(look_up, directory, name)));
              }),
              0);
    EXPECT_EQ(most([&](const char* name) {
                  return cost(0, set_attributes, keep(serve(look_up, directory, name)),
                              AttributeChange{.set_size = true, .size = 0});
              }),
              0);
    EXPECT_EQ(most([&](const char* name) {
                  return cost(0, remove_name, directory, name, Removed::kName);
              }),
              0);
}

}  // namespace
}  // namespace twinspool::test
