// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "replicator/link/local.h"
#include "replicator/link/outstanding.h"
#include "replicator/link/wire.h"

namespace twinspool {
namespace {

struct Pair {
    std::unique_ptr<LinkTransport> a;
    std::unique_ptr<LinkTransport> b;
    Pair() {
        int ends[2];
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        a = socket_transport(Fd{ends[0]});
        b = socket_transport(Fd{ends[1]});
    }
};

TEST(Wire, MessagesComeInOrderAndWhole) {
    Pair link;
    std::vector<std::byte> large(kMaxFrameBytes, std::byte{'f'});
    std::thread sender{[&] {
        EXPECT_TRUE(send_body(*link.a, MessageType::kAck, Ack{1, 2, 3, 4}).ok());
        EXPECT_TRUE(send_message(*link.a, MessageType::kFrame, large).ok());
        EXPECT_TRUE(send_message(*link.a, MessageType::kHeartbeat, {}).ok());
        EXPECT_TRUE(send_text(*link.a, MessageType::kRefuse, "because").ok());
    }};
    Message message;
    ASSERT_TRUE(receive_message(*link.b, message).ok());
    EXPECT_EQ(body_of<Ack>(message, MessageType::kAck)->applied, 3U);
    ASSERT_TRUE(receive_message(*link.b, message).ok());
    EXPECT_EQ(message.body, large);
    ASSERT_TRUE(receive_message(*link.b, message).ok());
    EXPECT_EQ(message.type, MessageType::kHeartbeat);
    ASSERT_TRUE(receive_message(*link.b, message).ok());
    EXPECT_EQ(message.text(), "because");
    sender.join();
}

TEST(Wire, TheOtherSidesEndIsAnError) {
    Pair link;
    link.a.reset();
    Message message;
    const Status status = receive_message(*link.b, message);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ECONNRESET);
    EXPECT_FALSE(send_message(*link.b, MessageType::kHeartbeat, {}).ok());
}

MessageHeader good() {
    return {.magic = kWireMagic,
            .version = kWireVersion,
            .type = static_cast<std::uint16_t>(MessageType::kAck),
            .size = sizeof(Ack),
            .reserved = 0};
}

Result<MessageHeader> check(const MessageHeader& header) {
    return check_message_header(std::as_bytes(std::span{&header, 1}));
}

TEST(Wire, StrangersVersionsAndSizesAreRefused) {
    EXPECT_TRUE(check(good()).ok());
    auto header = good();
    header.magic ^= 1;
    EXPECT_EQ(check(header).error().code, EBADMSG);
    header = good();
    header.version += 1;
    EXPECT_EQ(check(header).error().code, EPROTONOSUPPORT);
    header = good();
    header.type = 99;
    EXPECT_FALSE(check(header).ok());
    header = good();
    header.size = kMaxFrameBytes;
    EXPECT_FALSE(check(header).ok()) << "an ack is never that long";
}

// Through a link and back.
ToldSnapshots told(const std::vector<Snapshot>& snapshots) {
    Pair link;
    std::thread sender{[&] { EXPECT_TRUE(send_snapshots(*link.a, snapshots).ok()); }};
    Message message;
    EXPECT_TRUE(receive_message(*link.b, message).ok());
    sender.join();
    const auto list = snapshots_of(message);
    EXPECT_TRUE(list.ok());
    return list.ok() ? *list : ToldSnapshots{};
}

TEST(Wire, SnapshotsComeAsTheyAre) {
    const std::string longest(64, 'n');
    const auto list = told({{.number = Lsn{7}, .name = "a", .time = WallTime{-1}, .used = 5},
                            {.number = Lsn{9}, .name = longest, .incomplete = true},
                            {.number = Lsn{12}, .name = "", .broken = true}});
    EXPECT_EQ(list.count, 3U);
    ASSERT_EQ(list.snapshots.size(), 3U);
    EXPECT_EQ(list.snapshots[0].number, Lsn{7});
    EXPECT_EQ(list.snapshots[0].name, "a");
    EXPECT_EQ(list.snapshots[0].time, WallTime{-1});
    EXPECT_EQ(list.snapshots[0].used, 5U);
    EXPECT_FALSE(list.snapshots[0].incomplete || list.snapshots[0].broken);
    EXPECT_EQ(list.snapshots[1].name, longest);
    EXPECT_TRUE(list.snapshots[1].incomplete && !list.snapshots[1].broken);
    EXPECT_TRUE(list.snapshots[2].broken && list.snapshots[2].name.empty());
    EXPECT_TRUE(told({}).snapshots.empty());
}

TEST(Wire, OfVeryManySnapshotsTheOldestAndTheNewestAreTold) {
    std::vector<Snapshot> many(kMaxToldSnapshots + 3);
    for (std::size_t i = 0; i < many.size(); ++i) many[i].number = Lsn{i + 1};
    const auto list = told(many);
    EXPECT_EQ(list.count, kMaxToldSnapshots + 3);
    ASSERT_EQ(list.snapshots.size(), kMaxToldSnapshots);
    EXPECT_EQ(list.snapshots[0].number, Lsn{1});
    EXPECT_EQ(list.snapshots[1].number, Lsn{5});
    EXPECT_EQ(list.snapshots.back().number, many.back().number);
}

TEST(Wire, ListsThatAreCutOffOrLieAreRefused) {
    Message message{.type = MessageType::kSnapshots, .body = {}};
    EXPECT_EQ(snapshots_of(message).error().code, EBADMSG);
    const auto list_of = [&](SnapshotsHead head, std::size_t bytes) {
        message.body.assign(sizeof head + bytes, std::byte{0});
        std::memcpy(message.body.data(), &head, sizeof head);
        return snapshots_of(message).ok();
    };
    EXPECT_TRUE(list_of({.count = 1, .told = 1}, sizeof(WireSnapshot)));
    EXPECT_FALSE(list_of({.count = 1, .told = 1}, sizeof(WireSnapshot) - 1));
    EXPECT_FALSE(list_of({.count = 2, .told = 1}, 2 * sizeof(WireSnapshot)));
    EXPECT_FALSE(list_of({.count = 0, .told = 1}, sizeof(WireSnapshot)));
    EXPECT_FALSE(list_of({.count = ~0ULL, .told = ~0ULL / sizeof(WireSnapshot) + 1}, 0));
    message.type = MessageType::kAck;
    EXPECT_FALSE(list_of({.count = 0, .told = 0}, 0));
}

TEST(Outstanding, CountsWhatIsNotDurable) {
    Outstanding outstanding;
    const auto now = Outstanding::Clock::now();
    outstanding.sealed(Lsn{1}, 100, now);
    outstanding.sealed(Lsn{5}, 50, now + std::chrono::seconds{1});
    EXPECT_EQ(outstanding.bytes(), 150U);
    EXPECT_DOUBLE_EQ(outstanding.seconds(now + std::chrono::seconds{2}), 2.0);
    outstanding.durable(Lsn{1});
    EXPECT_EQ(outstanding.bytes(), 50U);
    EXPECT_DOUBLE_EQ(outstanding.seconds(now + std::chrono::seconds{2}), 1.0);
    outstanding.durable(Lsn{5});
    EXPECT_EQ(outstanding.bytes(), 0U);
    EXPECT_DOUBLE_EQ(outstanding.seconds(now), 0.0);
}

TEST(Outstanding, StaysBoundedUnderALongAbsence) {
    Outstanding outstanding;
    const auto now = Outstanding::Clock::now();
    for (std::uint64_t i = 1; i <= 3 * Outstanding::kMaxEntries; ++i)
        outstanding.sealed(Lsn{i}, 1, now);
    EXPECT_EQ(outstanding.bytes(), 3 * Outstanding::kMaxEntries);
    outstanding.durable(Lsn{3 * Outstanding::kMaxEntries});
    EXPECT_EQ(outstanding.bytes(), 0U);
}

}  // namespace
}  // namespace twinspool
