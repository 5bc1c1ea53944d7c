// SPDX-License-Identifier: Apache-2.0
// Where a standby is, and addresses, as people write them.
#include "tools/volume/target.h"

#include <gtest/gtest.h>

namespace twinspool {
namespace {

StandbyConfig target(std::string_view text) {
    auto parsed = parse_standby_target(text);
    EXPECT_TRUE(parsed.ok()) << (parsed.ok() ? "" : parsed.error().sentence);
    return parsed.ok() ? parsed.value() : StandbyConfig{};
}

void expect_here(std::string_view text) {
    const auto standby = target(text);
    EXPECT_EQ(standby.path, text);
    EXPECT_TRUE(standby.is_local()) << text;
}

void expect_there(std::string_view text, std::string_view host, std::uint16_t port,
                  std::string_view path) {
    const auto standby = target(text);
    EXPECT_EQ(standby.host, host) << text;
    EXPECT_EQ(standby.port, port) << text;
    EXPECT_EQ(standby.path, path) << text;
}

TEST(Target, APathIsOfThisMachine) {
    for (const auto* path : {"/mnt/standby/mail", "mail", "./a:b", "../x", "/mnt/a:b", "a/b:/c"})
        expect_here(path);
}

TEST(Target, AHostIsBeforeTheFirstColon) {
    expect_there("mx2:/srv/mail", "mx2", kDefaultPort, "/srv/mail");
    expect_there("mx2:4480:/srv/mail", "mx2", 4480, "/srv/mail");
    expect_there("192.0.2.2:/srv/mail", "192.0.2.2", kDefaultPort, "/srv/mail");
    expect_there("mx2.example.org:/srv/a:b", "mx2.example.org", kDefaultPort, "/srv/a:b");
    expect_there("mx2:/srv/mail/", "mx2", kDefaultPort, "/srv/mail");
}

TEST(Target, AnIpv6AddressIsInBrackets) {
    expect_there("[2001:db8::2]:/srv/mail", "2001:db8::2", kDefaultPort, "/srv/mail");
    expect_there("[2001:db8::2]:4480:/srv/mail", "2001:db8::2", 4480, "/srv/mail");
    expect_there("[fe80::1%eth0]:/srv/mail", "fe80::1%eth0", kDefaultPort, "/srv/mail");
}

TEST(Target, WhatIsNoTargetIsRefused) {
    for (const auto* text :
         {"", ":/srv", "mx2:srv", "mx2:", "mx2:0:/srv", "mx2:70000:/srv", "mx2:x:/srv", "mx2::/srv",
          "a b:/srv", "[mx2]:/srv", "[]:/srv", "2001:db8::2:/srv", "mx2:/", "-x:/srv"}) {
        const auto parsed = parse_standby_target(text);
        ASSERT_FALSE(parsed.ok()) << text;
        EXPECT_EQ(parsed.error().code, ExitCode::kUsage) << text;
    }
}

TEST(Target, IsSpelledAsItIsWritten) {
    for (const auto* text : {"/mnt/standby", "mx2:/srv/mail", "mx2:4480:/srv/mail",
                             "[2001:db8::2]:/srv/mail", "[2001:db8::2]:4480:/srv/mail"})
        EXPECT_EQ(target(text).target(), text);
}

TEST(Target, WhereToListen) {
    const auto listen = [](std::string_view text) {
        auto parsed = parse_listen(text, 4471);
        EXPECT_TRUE(parsed.ok()) << text;
        return parsed.ok() ? parsed.value() : HostAddress{};
    };
    EXPECT_EQ(listen("192.0.2.2"), (HostAddress{"192.0.2.2", 4471}));
    EXPECT_EQ(listen("192.0.2.2:9000"), (HostAddress{"192.0.2.2", 9000}));
    EXPECT_EQ(listen(":9000"), (HostAddress{"", 9000}));
    EXPECT_EQ(listen("2001:db8::2"), (HostAddress{"2001:db8::2", 4471}));
    EXPECT_EQ(listen("[2001:db8::2]"), (HostAddress{"2001:db8::2", 4471}));
    EXPECT_EQ(listen("[2001:db8::2]:9000"), (HostAddress{"2001:db8::2", 9000}));
    for (const auto* text : {"192.0.2.2:", "192.0.2.2:x", "[::1", "[::1]9000", "a b", "x:0"})
        EXPECT_FALSE(parse_listen(text, 4471).ok()) << text;
}

TEST(Target, AnEndpointWithoutAnAddressIsOfLoopback) {
    const auto endpoint = [](std::string_view text) {
        const auto parsed = parse_endpoint(text);
        return parsed.ok() ? parsed.value() : "";
    };
    EXPECT_EQ(endpoint("127.0.0.1:9471"), "127.0.0.1:9471");
    EXPECT_EQ(endpoint("9471"), "127.0.0.1:9471");
    EXPECT_EQ(endpoint(":9471"), "127.0.0.1:9471");
    EXPECT_EQ(endpoint("[::1]:9471"), "[::1]:9471");
    EXPECT_EQ(endpoint("0.0.0.0:9471"), "0.0.0.0:9471");
    for (const auto* text : {"", "127.0.0.1", "127.0.0.1:", "x", "70000", "[::1]", "a b:1"})
        EXPECT_EQ(endpoint(text), "") << text;
}

}  // namespace
}  // namespace twinspool
