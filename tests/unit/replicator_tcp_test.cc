// SPDX-License-Identifier: Apache-2.0
#include "replicator/link/tcp.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "journal/base/fd.h"
#include "replicator/link/local.h"

namespace twinspool {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

LinkSecret secret_of(std::uint64_t volume, unsigned char fill) {
    LinkSecret secret{.volume = volume};
    secret.key.fill(std::byte{fill});
    return secret;
}
const LinkSecret kOurs = secret_of(0x1122334455667788, 7);

Bytes bytes_of(std::string_view text) { return std::as_bytes(std::span{text}); }

std::vector<std::byte> noise(std::size_t size, std::uint64_t seed) {
    std::mt19937_64 random{seed};
    std::vector<std::byte> bytes(size);
    for (std::byte& each : bytes) each = std::byte{static_cast<unsigned char>(random())};
    return bytes;
}

// A listener, and what it refused.
struct Door {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> reasons;
    std::unique_ptr<TcpListener> listener;

    explicit Door(const std::string& host = "127.0.0.1", std::size_t max = kMaxHandshakes,
                  Nanoseconds within = kHandshakeWithin) {
        auto opened = TcpListener::open({.address = {.host = host, .port = 0},
                                         .secret = kOurs,
                                         .refused =
                                             [this](const std::string&, const std::string& why) {
                                                 const std::lock_guard lock{mutex};
                                                 reasons.push_back(why);
                                                 changed.notify_all();
                                             },
                                         .handshake_within = within,
                                         .max_handshakes = max});
        if (opened.ok()) listener = std::move(opened).value();
    }
    // Whether this is among the reasons, soon.
    bool refused(const std::string& why) {
        std::unique_lock lock{mutex};
        const auto said = [&] {
            return std::any_of(reasons.begin(), reasons.end(), [&](const std::string& each) {
                return each.find(why) != std::string::npos;
            });
        };
        return changed.wait_for(lock, 10s, said);
    }
    std::unique_ptr<Connector> caller(const LinkSecret& secret = kOurs,
                                      const std::string& host = "127.0.0.1") const {
        return tcp_connector({.host = host, .port = listener->port()}, secret, 10s);
    }
    Fd stranger() const {
        Fd socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        sockaddr_in to{.sin_family = AF_INET, .sin_port = htons(listener->port())};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
        return socket;
    }
};

struct Link {
    std::shared_ptr<LinkTransport> caller;
    std::shared_ptr<LinkTransport> answerer;
    std::string from;
    explicit Link(Door& door, const std::string& host = "127.0.0.1") {
        auto called = door.caller(kOurs, host)->connect();
        EXPECT_TRUE(called.ok()) << (called.ok() ? "" : called.error().text());
        if (!called.ok()) return;
        caller = *called;
        auto arrived = door.listener->accept();
        EXPECT_TRUE(arrived.ok());
        answerer = arrived->transport;
        from = arrived->from;
    }
};

// A message each way.
void expect_works(Link& link) {
    for (const auto& [from, to] :
         {std::pair{link.caller, link.answerer}, std::pair{link.answerer, link.caller}}) {
        ASSERT_TRUE(from->send(bytes_of("head"), bytes_of("body")).ok());
        std::vector<std::byte> got(8);
        ASSERT_TRUE(to->receive(got).ok());
        EXPECT_TRUE(std::ranges::equal(got, bytes_of("headbody")));
    }
}

bool closed_soon(const Fd& socket) {
    pollfd wait{.fd = socket.get(), .events = POLLIN};
    char bytes[256];
    while (::poll(&wait, 1, 10'000) > 0)
        if (::recv(socket.get(), bytes, sizeof bytes, 0) <= 0) return true;
    return false;
}

// Sends all in pieces of many sizes, as heads and bodies.
void pour(LinkTransport& link, Bytes all, std::uint64_t seed) {
    std::mt19937_64 random{seed};
    while (!all.empty()) {
        const auto next = [&](std::size_t most) {
            const Bytes piece = all.first(std::min<std::size_t>(random() % most, all.size()));
            all = all.subspan(piece.size());
            return piece;
        };
        const Bytes head = next(random() % 8 == 0 ? 40'000 : 32);
        const Bytes body = next(random() % 2 == 0 ? 300'000 : 5'000);
        ASSERT_TRUE(link.send(head, body).ok());
    }
}

void drink(LinkTransport& link, std::span<std::byte> all, std::uint64_t seed) {
    std::mt19937_64 random{seed};
    while (!all.empty()) {
        const auto piece = all.first(std::min<std::size_t>(1 + random() % 200'000, all.size()));
        all = all.subspan(piece.size());
        ASSERT_TRUE(link.receive(piece).ok());
    }
}

TEST(Tcp, BothDirectionsAtTheSameTimeAndInOrder) {
    Door door;
    Link link{door};
    const auto there = noise(16 << 20, 1);
    const auto back = noise(16 << 20, 2);
    std::vector<std::byte> got_there(there.size());
    std::vector<std::byte> got_back(back.size());
    std::vector<std::thread> threads;
    threads.emplace_back([&] { pour(*link.caller, there, 3); });
    threads.emplace_back([&] { pour(*link.answerer, back, 4); });
    threads.emplace_back([&] { drink(*link.answerer, got_there, 5); });
    threads.emplace_back([&] { drink(*link.caller, got_back, 6); });
    for (std::thread& each : threads) each.join();
    EXPECT_TRUE(got_there == there);
    EXPECT_TRUE(got_back == back);
}

// One side does not read at all: what it sends arrives nevertheless.
TEST(Tcp, ASenderThatIsStuckDoesNotStopTheReceiver) {
    Door door;
    Link link{door};
    const std::vector<std::byte> lots(64 << 20);
    std::atomic<bool> sent = false;
    std::thread stuck{[&] {
        (void)link.caller->send({}, lots);
        sent.store(true);
    }};
    std::vector<std::byte> got(1 << 20);
    for (int i = 0; i < 8; ++i) {
        ASSERT_TRUE(link.answerer->send({}, Bytes{lots}.first(got.size())).ok());
        ASSERT_TRUE(link.caller->receive(got).ok());
    }
    EXPECT_FALSE(sent.load());
    link.caller->shutdown();
    stuck.join();
}

// Both directions pass the number of records that one key is for (2^16).
TEST(Tcp, KeysChangeOnTheWay) {
    Door door;
    Link link{door};
    constexpr std::uint64_t kMessages = 150'000;
    const auto send = [](LinkTransport& out) {
        for (std::uint64_t i = 0; i < kMessages; ++i)
            if (!out.send(std::as_bytes(std::span{&i, 1}), {}).ok()) return;
    };
    const auto receive = [](LinkTransport& in) {
        for (std::uint64_t i = 0; i < kMessages; ++i) {
            std::uint64_t got = 0;
            ASSERT_TRUE(in.receive(std::as_writable_bytes(std::span{&got, 1})).ok());
            ASSERT_EQ(got, i);
        }
    };
    std::thread a{[&] { send(*link.caller); }};
    std::thread b{[&] { send(*link.answerer); }};
    std::thread c{[&] { receive(*link.answerer); }};
    receive(*link.caller);
    for (std::thread* each : {&a, &b, &c}) each->join();
}

TEST(Tcp, AWrongSecretIsRefusedAndBothSidesSaySo) {
    Door door;
    const auto link = door.caller(secret_of(kOurs.volume, 8))->connect();
    ASSERT_FALSE(link.ok());
    EXPECT_EQ(link.error().code, EACCES);
    EXPECT_EQ(link.error().doing,
              fmt::format("reach 127.0.0.1:{}: its secret is not ours", door.listener->port()));
    EXPECT_TRUE(door.refused("its secret is not ours"));
    Link good{door};
    expect_works(good);
}

TEST(Tcp, AnotherVolumeIsRefusedAndBothSidesSaySo) {
    Door door;
    const auto link = door.caller(secret_of(0xabcdef, 7))->connect();
    ASSERT_FALSE(link.ok());
    EXPECT_EQ(link.error().code, EPERM);
    EXPECT_EQ(link.error().doing,
              fmt::format("reach 127.0.0.1:{}: it serves another volume", door.listener->port()));
    EXPECT_TRUE(door.refused("it is of another volume (0000000000abcdef)"));
}

TEST(Tcp, GarbageIsRefused) {
    Door door{"127.0.0.1", kMaxHandshakes, 300ms};
    const Fd stranger = door.stranger();
    const std::string_view request = "GET / HTTP/1.1\r\n\r\n";
    ASSERT_GT(::send(stranger.get(), request.data(), request.size(), MSG_NOSIGNAL), 0);
    EXPECT_TRUE(door.refused("what it sends is not TLS"));
    EXPECT_TRUE(closed_soon(stranger));
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        const Fd another = door.stranger();
        auto bytes = noise(3000, seed);
        if (seed % 2 == 0) std::memcpy(bytes.data(), "\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 9);
        ASSERT_GT(::send(another.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), 0);
        EXPECT_TRUE(closed_soon(another)) << seed;
    }
    Link good{door};
    expect_works(good);
}

TEST(Tcp, SilenceAndTricklesCostLimitedTime) {
    Door door{"127.0.0.1", kMaxHandshakes, 300ms};
    const Fd silent = door.stranger();
    const Fd trickling = door.stranger();
    std::atomic<bool> over = false;
    std::thread trickle{[&] {
        const std::string_view record = "\x16\x03\x01\x02";
        for (std::size_t i = 0; !over.load(); ++i) {
            if (i < record.size()) (void)::send(trickling.get(), &record[i], 1, MSG_NOSIGNAL);
            std::this_thread::sleep_for(50ms);
        }
    }};
    Link good{door};  // meanwhile
    expect_works(good);
    const auto began = Clock::now();
    EXPECT_TRUE(closed_soon(silent));
    EXPECT_TRUE(closed_soon(trickling));
    EXPECT_LT(Clock::now() - began, 5s);
    EXPECT_TRUE(door.refused("it has not shown our secret in time"));
    over.store(true);
    trickle.join();
    expect_works(good);
}

TEST(Tcp, TooManyHandshakesStopNeitherALinkNorALaterOne) {
    Door door{"127.0.0.1", 4};
    Link link{door};
    std::array<Fd, 20> strangers;
    for (Fd& each : strangers) each = door.stranger();
    EXPECT_TRUE(door.refused("too many handshakes at once"));
    for (const Fd& each : std::span{strangers}.first(16)) EXPECT_TRUE(closed_soon(each));
    expect_works(link);
    Link later{door};
    expect_works(later);
}

TEST(Tcp, AddressesOfAllKinds) {
    Door any{""};
    ASSERT_TRUE(any.listener);
    Link v4{any, "127.0.0.1"};
    expect_works(v4);
    EXPECT_TRUE(v4.from.starts_with("127.0.0.1:")) << v4.from;
    Link named{any, "localhost"};
    expect_works(named);
    Door v6{"::1"};
    if (!v6.listener) GTEST_SKIP() << "no IPv6 here";
    Link link{v6, "::1"};
    expect_works(link);
    EXPECT_TRUE(link.from.starts_with("[::1]:")) << link.from;
    Door local{"localhost"};
    ASSERT_TRUE(local.listener);
    Link both{local, "localhost"};
    expect_works(both);
}

TEST(Tcp, AnAddressAsPeopleWriteIt) {
    EXPECT_EQ(spell({.host = "mx2"}), "mx2");
    EXPECT_EQ(spell({.host = "mx2", .port = 99}), "mx2:99");
    EXPECT_EQ(spell({.host = "fd00::2", .port = 99}), "[fd00::2]:99");
    EXPECT_EQ(spell({.host = "fd00::2"}), "[fd00::2]");
}

TEST(Tcp, NobodyThereIsSaidWithTheAddress) {
    std::uint16_t port = 0;
    {
        const Door gone;
        port = gone.listener->port();
    }
    const auto link = tcp_connector({.host = "127.0.0.1", .port = port}, kOurs, 5s)->connect();
    ASSERT_FALSE(link.ok());
    EXPECT_EQ(link.error().code, ECONNREFUSED);
    EXPECT_EQ(link.error().doing, fmt::format("reach 127.0.0.1:{} at 127.0.0.1", port));
    const auto nameless = tcp_connector({.host = "no-such-host.invalid"}, kOurs, 10s)->connect();
    ASSERT_FALSE(nameless.ok());
    EXPECT_TRUE(nameless.error().text().find("no-such-host.invalid") != std::string::npos);
}

TEST(Tcp, AFalseStandbyWithoutTheSecretIsNotBelieved) {
    Fd socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_in here{.sin_family = AF_INET};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof here;
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&here), size), 0);
    ASSERT_EQ(::listen(socket.get(), 4), 0);
    ASSERT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&here), &size), 0);
    std::thread speaker{[&] {
        const Fd guest{::accept4(socket.get(), nullptr, nullptr, SOCK_CLOEXEC)};
        const std::string_view greeting = "220 mx2 ESMTP\r\n";
        (void)::send(guest.get(), greeting.data(), greeting.size(), MSG_NOSIGNAL);
        EXPECT_TRUE(closed_soon(guest));
    }};
    const auto link =
        tcp_connector({.host = "127.0.0.1", .port = ntohs(here.sin_port)}, kOurs, 10s)->connect();
    speaker.join();
    ASSERT_FALSE(link.ok());
    EXPECT_EQ(link.error().code, EPROTO);
    EXPECT_TRUE(link.error().doing.ends_with("what it sends is not TLS")) << link.error().doing;
}

TEST(Tcp, ShutdownEndsBothThreads) {
    Door door;
    Link link{door};
    const std::vector<std::byte> lots(64 << 20);
    std::thread sends{[&] { EXPECT_FALSE(link.caller->send({}, lots).ok()); }};
    std::thread receives{[&] {
        std::vector<std::byte> got(1);
        EXPECT_FALSE(link.caller->receive(got).ok());
    }};
    std::this_thread::sleep_for(100ms);  // most likely both wait by now; right either way
    link.caller->shutdown();
    sends.join();
    receives.join();
}

TEST(Tcp, TheOtherSidesEndIsAnError) {
    Door door;
    Link link{door};
    link.answerer.reset();
    std::vector<std::byte> got(1);
    const Status received = link.caller->receive(got);
    ASSERT_FALSE(received.ok());
    EXPECT_EQ(received.error().code, ECONNRESET);
    const std::vector<std::byte> lots(16 << 20);
    const Status sent = link.caller->send({}, lots);
    ASSERT_FALSE(sent.ok());
    EXPECT_EQ(sent.error().code, EPIPE);
}

// As of a process that was killed: the kernel resets what it had not read.
TEST(Tcp, AnEndWithBytesUnreadIsAnErrorToo) {
    Door door;
    Link link{door};
    ASSERT_TRUE(link.caller->send(bytes_of("not read"), {}).ok());
    link.answerer.reset();
    std::vector<std::byte> got(1);
    EXPECT_EQ(link.caller->receive(got).error().code, ECONNRESET);
    EXPECT_EQ(link.caller->send(bytes_of("more"), {}).error().code, EPIPE);
}

TEST(Tcp, WhatWasSentBeforeTheEndArrives) {
    Door door;
    Link link{door};
    ASSERT_TRUE(link.answerer->send(bytes_of("no"), bytes_of("t you")).ok());
    link.answerer->shutdown();
    link.answerer.reset();
    std::vector<std::byte> got(7);
    ASSERT_TRUE(link.caller->receive(got).ok());
    EXPECT_TRUE(std::ranges::equal(got, bytes_of("not you")));
    EXPECT_FALSE(link.caller->receive(got).ok());
}

// Where there is no way to such an address the kernel says so at once, and nothing is cancelled.
TEST(Tcp, CancelEndsAConnectThatGetsNoAnswer) {
    const auto connector = tcp_connector({.host = "10.255.255.1"}, kOurs, 60s);
    const auto began = Clock::now();
    std::thread cancels{[&] {
        std::this_thread::sleep_for(100ms);  // right before connect() too
        connector->cancel();
    }};
    const auto link = connector->connect();
    cancels.join();
    ASSERT_FALSE(link.ok());
    EXPECT_LT(Clock::now() - began, 10s);
    EXPECT_EQ(connector->connect().error().code, ECANCELED);
}

// A server that takes the connection and says nothing.
TEST(Tcp, AConnectHasATimeLimitAndCanBeCancelled) {
    Fd socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_in here{.sin_family = AF_INET};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof here;
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&here), size), 0);
    ASSERT_EQ(::listen(socket.get(), 4), 0);
    ASSERT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&here), &size), 0);
    const HostAddress address{.host = "127.0.0.1", .port = ntohs(here.sin_port)};
    EXPECT_EQ(tcp_connector(address, kOurs, 100ms)->connect().error().code, ETIMEDOUT);
    const auto connector = tcp_connector(address, kOurs, 60s);
    std::thread cancels{[&] { connector->cancel(); }};
    EXPECT_EQ(connector->connect().error().code, ECANCELED);
    cancels.join();
}

TEST(Tcp, StopEndsAccept) {
    Door door;
    const Fd stranger = door.stranger();
    std::thread stops{[&] { door.listener->stop(); }};
    EXPECT_EQ(door.listener->accept().error().code, ECANCELED);
    stops.join();
    EXPECT_EQ(door.listener->accept().error().code, ECANCELED);
    EXPECT_TRUE(closed_soon(stranger));
}

#ifdef TWINSPOOL_FAULTS
TEST(Tcp, ATestMayTurnTlsOff) {
    ASSERT_EQ(::setenv("TWINSPOOL_PLAINTEXT", "1", 1), 0);
    Door door;
    Link link{door};
    ASSERT_EQ(::unsetenv("TWINSPOOL_PLAINTEXT"), 0);
    expect_works(link);
    const Fd stranger = door.stranger();
    ASSERT_EQ(::send(stranger.get(), "plain", 5, MSG_NOSIGNAL), 5);
    const auto arrived = door.listener->accept();
    std::vector<std::byte> got(5);
    ASSERT_TRUE(arrived->transport->receive(got).ok());
    EXPECT_TRUE(std::ranges::equal(got, bytes_of("plain")));
}
#endif

StandbyProcess::Command shell(const std::string& script) {
    return {.arguments = {"/bin/sh", "-c", script}};
}

TEST(LocalConnector, EachConnectStartsAProcessThatEndsWithTheLink) {
    const auto connector = local_connector(shell("exec cat <&3 >&3"));
    EXPECT_EQ(connector->pid(), 0);
    for (const LinkEnd how : {LinkEnd::kOrderly, LinkEnd::kLost}) {
        const auto link = connector->connect();
        ASSERT_TRUE(link.ok());
        const pid_t pid = connector->pid();
        EXPECT_EQ(::kill(pid, 0), 0);
        ASSERT_TRUE((*link)->send(bytes_of("a"), bytes_of("b")).ok());
        std::vector<std::byte> got(2);
        ASSERT_TRUE((*link)->receive(got).ok());
        (*link)->shutdown();
        connector->ended(how);
        EXPECT_EQ(connector->pid(), 0);
        EXPECT_EQ(::waitpid(pid, nullptr, WNOHANG), -1);
    }
    connector->cancel();
    EXPECT_EQ(connector->connect().error().code, ECANCELED);
}

TEST(LocalConnector, TheFaultIsForTheFirstProcessOnly) {
    ASSERT_EQ(::setenv("TWINSPOOL_FAULT", "chosen", 1), 0);
    const auto connector = local_connector(shell("printf '%s.' \"$TWINSPOOL_FAULT\" >&3"));
    for (const std::string_view expected : {"chosen.", "."}) {
        const auto link = connector->connect();
        ASSERT_TRUE(link.ok());
        std::vector<std::byte> got(expected.size());
        ASSERT_TRUE((*link)->receive(got).ok());
        EXPECT_TRUE(std::ranges::equal(got, bytes_of(expected)));
        connector->ended(LinkEnd::kOrderly);
    }
    ASSERT_EQ(::unsetenv("TWINSPOOL_FAULT"), 0);
}

}  // namespace
}  // namespace twinspool
