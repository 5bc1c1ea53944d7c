// SPDX-License-Identifier: Apache-2.0
// Both ends of a link in one process: a journal with its sender, a store with its receiver.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <random>
#include <thread>

#include "journal/log/epochs.h"
#include "replicator/link/local.h"
#include "replicator/link/sender.h"
#include "replicator/standby/standby.h"
#include "replicator/store/begun.h"
#include "tests/unit/journal_support.h"

namespace twinspool {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using test::FreshFolder;
using test::kVolume;

// Says that what it has written from this record on is something else than it is.
class OtherBytes final : public LinkTransport {
   public:
    OtherBytes(std::unique_ptr<LinkTransport> inner, Lsn from)
        : inner_(std::move(inner)), from_(from) {}
    Status send(Bytes head, Bytes body) override {
        MessageHeader header;
        std::memcpy(&header, head.data(), sizeof header);
        if (header.type != static_cast<std::uint16_t>(MessageType::kAck))
            return inner_->send(head, body);
        Ack ack;
        std::memcpy(&ack, body.data(), sizeof ack);
        if (Lsn{ack.durable} >= from_) ack.chain ^= 1;
        return inner_->send(head, std::as_bytes(std::span{&ack, 1}));
    }
    Status receive(std::span<std::byte> out) override { return inner_->receive(out); }
    void shutdown() override { inner_->shutdown(); }

   private:
    const std::unique_ptr<LinkTransport> inner_;
    const Lsn from_;
};

// Greets, and breaks off at the first frame, as with a disk that is full.
class TakesNothing final : public LinkTransport {
   public:
    explicit TakesNothing(std::unique_ptr<LinkTransport> inner) : inner_(std::move(inner)) {}
    Status send(Bytes head, Bytes body) override { return inner_->send(head, body); }
    Status receive(std::span<std::byte> out) override {
        TS_TRY(inner_->receive(out));
        MessageHeader header;
        if (out.size() != sizeof header) return {};
        std::memcpy(&header, out.data(), sizeof header);
        if (header.magic != kWireMagic ||
            header.type != static_cast<std::uint16_t>(MessageType::kFrame))
            return {};
        inner_->shutdown();
        return make_error(ECONNRESET, "receive");
    }
    void shutdown() override { inner_->shutdown(); }

   private:
    const std::unique_ptr<LinkTransport> inner_;
};

// Serves a store on a thread; `away`: nobody is there.
class StoreConnector final : public Connector {
   public:
    explicit StoreConnector(std::string path) : path_(std::move(path)) {}
    ~StoreConnector() override { ended(LinkEnd::kLost); }
    Result<std::shared_ptr<LinkTransport>> connect() override {
        if (away) return make_error(ECONNREFUSED, "reach the standby");
        int ends[2];
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        thread_ = std::thread{[this, end = ends[1]] {
            const std::uint64_t lie = lie_from.load();
            std::unique_ptr<LinkTransport> transport = socket_transport(Fd{end});
            if (lie != 0) transport = std::make_unique<OtherBytes>(std::move(transport), Lsn{lie});
            if (takes_nothing) transport = std::make_unique<TakesNothing>(std::move(transport));
            auto receiver = Receiver::open({.path = path_, .volume = kVolume});
            ASSERT_TRUE(receiver.ok()) << receiver.error().text();
            const auto greeting = receive_greeting(*transport, kVolume);
            if (!greeting.ok()) return;
            (void)(*receiver)->serve(*transport, *greeting);
            (*receiver)->finish();
        }};
        return std::shared_ptr<LinkTransport>{socket_transport(Fd{ends[0]})};
    }
    void cancel() override {}
    void ended(LinkEnd /*how*/) override {
        if (thread_.joinable()) thread_.join();
    }
    [[nodiscard]] pid_t pid() const override { return 0; }
    std::atomic<bool> away{false};
    std::atomic<bool> takes_nothing{false};
    std::atomic<std::uint64_t> lie_from{0};

   private:
    const std::string path_;
    std::thread thread_;
};

class Link : public test::JournalTest {
   protected:
    void SetUp() override {
        JournalTest::SetUp();
        options.standby_count = 1;
        fs::create_directories(store);
        connector = std::make_shared<StoreConnector>(store);
        sender_options.target = "test";
        sender_options.connector = connector;
        sender_options.journal_directory = options.directory;
        sender_options.volume = kVolume;
        sender_options.segment_bytes = options.segment_bytes;
        sender_options.standby_timeout = 10s;
        sender_options.start_over = sender_options.resync = [this] {
            journal->begin_generation(++generation);
            return journal->appended() + 1;
        };
    }
    void TearDown() override {
        down();
        JournalTest::TearDown();
    }
    void up() {
        journal = open();
        sender = std::make_unique<Sender>(sender_options, *journal);
        sender->start();
    }
    void down() {
        if (sender) sender->stop();
        sender.reset();
        if (journal) {
            EXPECT_TRUE(journal->close({.clean = false}).ok());
        }
        journal.reset();
    }
    // As a power cut: the tail is gone, and of the journal is left what `saved` has.
    void power_cut(const std::string& saved) {
        down();
        fs::remove_all(options.directory);
        fs::copy(saved, options.directory);
        ::unlink(options.tail_path.c_str());
    }
    std::string save() {
        std::string saved = folder.path() + "/saved";
        fs::remove_all(saved);
        fs::copy(options.directory, saved);
        return saved;
    }
    Lsn add() {
        const Lsn lsn = append(*journal, VoidOp{});
        EXPECT_TRUE(journal->make_durable(lsn).ok());
        return lsn;
    }
    template <typename Condition>
    static bool soon(Condition condition) {
        for (int i = 0; i < 1000 && !condition(); ++i) std::this_thread::sleep_for(10ms);
        return condition();
    }
    bool reaches(Lsn lsn) {
        return soon([&] { return sender->status().durable >= lsn; });
    }
    bool is_refused(const std::string& why) {
        return soon([&] { return sender->status().trouble.find(why) != std::string::npos; });
    }
    JournalEnd standby_has() { return find_end(store + "/journal", kVolume).value(); }

    std::string store = folder.path() + "/store";
    std::shared_ptr<StoreConnector> connector;
    SenderOptions sender_options;
    std::unique_ptr<Journal> journal;
    std::unique_ptr<Sender> sender;
    std::uint32_t generation = 1;
};

TEST_F(Link, GoesOnWhereTheStandbyIs) {
    up();
    ASSERT_TRUE(reaches(add()));
    down();
    up();
    const Lsn last = add();
    ASSERT_TRUE(reaches(last));
    ASSERT_TRUE(soon([&] { return journal->commit().committed() >= last; }));
    down();
    EXPECT_EQ(standby_has().end, find_end(options.directory, kVolume)->end);
}

TEST_F(Link, WhatThePrimaryLostWithThePowerGoesFromTheStandby) {
    options.standby_count = 2;  // the other one never comes, so nothing is committed
    up();
    ASSERT_TRUE(reaches(add()));
    const std::string saved = save();
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(reaches(add()));
    power_cut(saved);
    up();
    ASSERT_TRUE(reaches(add()));
    EXPECT_EQ(sender->status().trouble, "");
    down();
    EXPECT_EQ(standby_has().end, find_end(options.directory, kVolume)->end);
}

TEST_F(Link, WhatIsKnownToBeCommittedIsNotCutBack) {
    up();
    ASSERT_TRUE(reaches(add()));
    const std::string saved = save();
    Lsn last = add();
    for (int i = 0; i < 20; ++i) last = add();
    ASSERT_TRUE(reaches(last));
    ASSERT_TRUE(soon([&] { return sender->status().applied >= last; }));
    power_cut(saved);
    const Position before = standby_has().end;
    up();
    EXPECT_TRUE(is_refused("forked history"));
    down();
    EXPECT_EQ(standby_has().end, before) << "nothing was changed";
    // Nor by the way that leads out of other refusals: our records would not be applied there.
    fs::remove_all(store + "/journal");
    up();
    EXPECT_TRUE(is_refused("empty its store")) << sender->status().trouble;
    EXPECT_FALSE(sender->wait_reached(0s));
    down();
    EXPECT_FALSE(fs::exists(store + "/journal/begun"));
}

TEST_F(Link, AStandbyThatGreetsAndTakesNothingIsLost) {
    sender_options.standby_timeout = 300ms;
    up();
    ASSERT_TRUE(reaches(add()));
    down();
    connector->takes_nothing = true;
    up();
    EXPECT_TRUE(soon([&] { return sender->status().state == LinkState::kAlone; }));
    const Lsn last = add();
    EXPECT_TRUE(soon([&] { return journal->commit().committed() >= last; }));
    // Its next greetings do not make anybody wait again.
    EXPECT_FALSE(journal->commit().waited_for(0));
    connector->takes_nothing = false;
    EXPECT_TRUE(reaches(last));
    EXPECT_TRUE(soon([&] { return sender->status().state == LinkState::kInSync; }));
    EXPECT_TRUE(journal->commit().waited_for(0));
}

TEST_F(Link, AnotherReignOfTheSameNumberIsAFork) {
    up();
    ASSERT_TRUE(reaches(add()));
    down();
    const std::string saved = save();
    up();
    ASSERT_TRUE(reaches(add()));
    power_cut(saved);
    up();
    EXPECT_TRUE(is_refused("forked history"));
    EXPECT_FALSE(sender->wait_reached(0s));
}

TEST_F(Link, AStoreWithoutItsJournalIsComparedByHash) {
    up();
    const Lsn first = add();
    ASSERT_TRUE(soon([&] { return sender->status().applied >= first; }));
    down();
    fs::remove_all(store + "/journal");
    up();
    EXPECT_TRUE(soon([&] { return sender->status().resyncing; })) << sender->status().trouble;
    const Lsn last = add();
    ASSERT_TRUE(reaches(last)) << sender->status().trouble;
    down();
    EXPECT_EQ(standby_has().end, find_end(options.directory, kVolume)->end);
    EXPECT_FALSE(fs::exists(store + "/journal/begun"));
}

TEST_F(Link, BehindTheJournalsLimitIsComparedByHash) {
    up();
    ASSERT_TRUE(reaches(add()));
    ASSERT_TRUE(soon([&] { return sender->status().applied >= Lsn{2}; }));
    down();
    connector->away = true;
    up();
    std::vector<std::byte> data(1 << 20);
    std::mt19937 random{1};
    for (std::byte& each : data) each = std::byte(random());
    for (int i = 0; i < 10; ++i) {
        const Lsn lsn = append(*journal, WriteOp{ObjectId{4}, 0, {}, data});
        ASSERT_TRUE(journal->make_durable(lsn).ok());
    }
    sender->give_up_catching_up();
    EXPECT_GT(sender->needs_from(), journal->appended());
    ASSERT_TRUE(journal->checkpoint(journal->appended()).ok());
    ASSERT_TRUE(journal->recycle(sender->needs_from()).ok());
    ASSERT_GT(journal->oldest(), Lsn{3});
    connector->away = false;
    EXPECT_TRUE(soon([&] { return sender->status().resyncing; })) << sender->status().trouble;
    const Lsn last = add();
    EXPECT_TRUE(reaches(last)) << sender->status().trouble;
}

TEST_F(Link, FrozenItIsNeverAlone) {
    connector->away = true;
    sender_options.standby_timeout = 50ms;
    sender_options.may_go_alone = false;
    up();
    EXPECT_TRUE(is_refused("commits wait for it"));
    EXPECT_EQ(sender->status().state, LinkState::kConnecting);
    const Lsn last = add();
    EXPECT_LT(journal->commit().committed(), last);
}

TEST_F(Link, AloneOnlyAfterTheFenceHasSucceeded) {
    connector->away = true;
    sender_options.standby_timeout = 50ms;
    std::atomic<int> runs{0};
    sender_options.fence = [&]() -> Status {
        if (++runs == 1) return make_error(EREMOTEIO, "no power switch");
        return {};
    };
    up();
    EXPECT_TRUE(is_refused("no power switch"));
    EXPECT_EQ(sender->status().state, LinkState::kConnecting);
    EXPECT_TRUE(soon([&] { return sender->status().state == LinkState::kAlone; }));
    EXPECT_EQ(runs, 2);
    const Lsn last = add();
    EXPECT_TRUE(soon([&] { return journal->commit().committed() >= last; }));
}

TEST_F(Link, BytesThatDifferAreToldAtOnceAndDoNotCount) {
    connector->lie_from = 4;
    up();
    ASSERT_TRUE(reaches(add()));
    ASSERT_TRUE(reaches(add()));
    const Lsn last = add();
    ASSERT_EQ(last, Lsn{4});
    EXPECT_TRUE(is_refused("record 4: the standby's bytes differ from ours"));
    EXPECT_LT(journal->commit().committed(), last);
}

TEST_F(Link, AnEndWithOtherBytesIsRefused) {
    up();
    ASSERT_TRUE(reaches(add()));
    down();
    // The same records in the same reign, as frames that were made another time.
    auto epochs = read_epochs(options.directory).value();
    const auto end = standby_has().end;
    fs::remove_all(options.directory);
    ::unlink(options.tail_path.c_str());
    journal = open();
    while (journal->appended() < end.lsn) add();
    ASSERT_TRUE(journal->close({.clean = false}).ok());
    journal.reset();
    epochs.back().first_lsn = Lsn{1};
    ASSERT_TRUE(write_epochs(options.directory, epochs).ok());
    up();
    EXPECT_TRUE(is_refused("bytes differ"));
    EXPECT_FALSE(sender->wait_reached(0s));
    down();
    EXPECT_EQ(standby_has().end, end);
}

TEST_F(Link, NobodyWaitsForOneThatIsNotWaitedFor) {
    connector->away = true;
    sender_options.standby_timeout = 50ms;
    sender_options.wait = false;
    up();
    const Lsn last = add();
    EXPECT_TRUE(soon([&] { return journal->commit().committed() >= last; }));
    connector->away = false;
    EXPECT_TRUE(soon([&] { return sender->status().state == LinkState::kInSync; }));
    EXPECT_TRUE(reaches(last));
}

// --- over the network

class Host : public Link {
   protected:
    void SetUp() override {
        Link::SetUp();
        secret.volume = kVolume;
        secret.key.fill(std::byte{7});
        auto started = StandbyHost::start({.store = {.path = store, .volume = kVolume},
                                           .listen = {.host = "127.0.0.1", .port = 0},
                                           .secret = secret});
        ASSERT_TRUE(started.ok()) << started.error().text();
        host = std::move(started).value();
    }
    struct Caller {
        std::unique_ptr<Connector> connector;
        std::shared_ptr<LinkTransport> transport;
        Message message;
        // What comes next, as text if it is a refusal.
        std::string next() {
            if (const auto got = receive_message(*transport, message); !got.ok()) return "end";
            return message.type == MessageType::kRefuse  ? std::string{message.text()}
                   : message.type == MessageType::kHello ? "hello"
                                                         : "other";
        }
    };
    Caller call(const Greeting& greeting) {
        Caller caller;
        caller.connector = tcp_connector({.host = "127.0.0.1", .port = host->port()}, secret, 5s);
        auto transport = caller.connector->connect();
        EXPECT_TRUE(transport.ok()) << transport.error().text();
        caller.transport = *transport;
        EXPECT_TRUE(send_body(*caller.transport, MessageType::kGreeting, greeting).ok());
        return caller;
    }
    static Greeting reign(std::uint64_t id, std::uint32_t silence_ms = 60000) {
        return {.volume = kVolume, .epoch_id = id, .epoch_number = 1, .silence_ms = silence_ms};
    }
    LinkSecret secret;
    std::unique_ptr<StandbyHost> host;
};

TEST_F(Host, TheWholeWay) {
    sender_options.connector =
        tcp_connector({.host = "127.0.0.1", .port = host->port()}, secret, 5s);
    up();
    const Lsn last = add();
    ASSERT_TRUE(reaches(last)) << sender->status().trouble;
    EXPECT_TRUE(soon([&] { return sender->status().state == LinkState::kInSync; }));
    EXPECT_TRUE(soon([&] { return host->status().applied >= last; }));
    EXPECT_NE(host->status().from, "");
    EXPECT_EQ(host->status().received_records, last.value);
    down();
    EXPECT_TRUE(soon([&] { return host->status().from.empty(); }));
    // Another reign, and the store has stayed loaded.
    sender_options.connector =
        tcp_connector({.host = "127.0.0.1", .port = host->port()}, secret, 5s);
    up();
    EXPECT_TRUE(reaches(add())) << sender->status().trouble;
}

TEST_F(Host, ACallOfTheSameReignTakesThePlace) {
    auto first = call(reign(1));
    EXPECT_EQ(first.next(), "hello");
    auto second = call(reign(1));
    EXPECT_EQ(second.next(), "hello");
    EXPECT_EQ(first.next(), "end");
}

TEST_F(Host, AnotherReignIsRefusedAndDisturbsNobody) {
    auto first = call(reign(1));
    EXPECT_EQ(first.next(), "hello");
    auto second = call(reign(2));
    EXPECT_NE(second.next().find("another primary"), std::string::npos);
    EXPECT_EQ(host->status().refused, 1U);
    EXPECT_NE(host->status().last_refused.find("another primary"), std::string::npos);
    // The first is still being listened to.
    EXPECT_TRUE(send_text(*first.transport, MessageType::kRefuse, "enough").ok());
    EXPECT_EQ(first.next(), "end");
}

TEST_F(Host, AnotherReignTakesThePlaceOfASilentOne) {
    auto first = call(reign(1, 300));
    EXPECT_EQ(first.next(), "hello");
    EXPECT_EQ(first.next(), "end") << "it has said nothing for its time";
    auto second = call(reign(2));
    EXPECT_EQ(second.next(), "hello");
}

TEST_F(Host, AnotherVolumesPrimaryIsTold) {
    auto greeting = reign(1);
    greeting.volume = 5;
    auto caller = call(greeting);
    EXPECT_NE(caller.next().find("another volume"), std::string::npos);
}

TEST_F(Host, AnotherVersionIsTold) {
    auto caller = Caller{};
    caller.connector = tcp_connector({.host = "127.0.0.1", .port = host->port()}, secret, 5s);
    caller.transport = caller.connector->connect().value();
    const MessageHeader header{.magic = kWireMagic,
                               .version = 77,
                               .type = static_cast<std::uint16_t>(MessageType::kGreeting),
                               .size = sizeof(Greeting),
                               .reserved = 0};
    ASSERT_TRUE(caller.transport->send(std::as_bytes(std::span{&header, 1}), {}).ok());
    EXPECT_NE(caller.next().find("version 77"), std::string::npos);
    EXPECT_EQ(host->status().state, StandbyState::kEmpty);
}

}  // namespace
}  // namespace twinspool
