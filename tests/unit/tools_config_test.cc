// SPDX-License-Identifier: Apache-2.0
// What VOLUME.toml may say, and where a complaint points to.
#include "tools/volume/config.h"

#include <gtest/gtest.h>

namespace twinspool {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kLeast =
    "id = \"0x1f2e3d4c5b6a7988\"\n"
    "[[directory]]\npath = \"/var/spool/mail\"\n"
    "[[standby]]\npath = \"/mnt/standby/mail\"\n";

std::string with(std::string_view line) { return std::string{line} + "\n" + std::string{kLeast}; }

VolumeConfig parsed(const std::string& text) {
    auto config = parse_config(text, "mail.toml");
    EXPECT_TRUE(config.ok()) << (config.ok() ? "" : config.error().sentence);
    return config.ok() ? config.value() : VolumeConfig{};
}

std::string complaint(const std::string& text) {
    const auto config = parse_config(text, "mail.toml");
    if (config.ok()) return "";
    EXPECT_EQ(config.error().code, ExitCode::kUsage);
    return config.error().sentence;
}

TEST(Config, DefaultsAreThoseOfTheManual) {
    const auto config = parsed(std::string{kLeast});
    EXPECT_EQ(config.id, 0x1f2e3d4c5b6a7988U);
    EXPECT_EQ(config.mode, CommitMode::kFsync);
    EXPECT_EQ(config.transport, TransportChoice::kAuto);
    EXPECT_EQ(config.linger, 2ms);
    EXPECT_EQ(config.standby_timeout, 10s);
    EXPECT_EQ(config.checkpoint_every, 30s);
    EXPECT_EQ(config.journal_limit, std::uint64_t{8} << 30);
    EXPECT_EQ(config.segment_size, std::uint64_t{64} << 20);
    ASSERT_EQ(config.directories.size(), 1U);
    EXPECT_EQ(config.directories[0].path, "/var/spool/mail");
    ASSERT_EQ(config.standbys.size(), 1U);
    EXPECT_EQ(config.standbys[0].path, "/mnt/standby/mail");
    EXPECT_EQ(config.snapshot.before, "");
    EXPECT_EQ(config.snapshot.after, "");
    EXPECT_EQ(config.snapshot.hook_timeout, 30s);
    EXPECT_EQ(config.snapshot.on_before_failure, FailedHook::kStop);
}

TEST(Config, EveryKeyIsRead) {
    const auto config = parsed(with(
        "mode = \"every\"\ntransport = \"dev\"\nlinger = \"500us\"\nstandby_timeout = \"1min\"\n"
        "checkpoint_every = \"2h\"\njournal_limit = \"16MiB\"\nsegment_size = \"4MiB\""));
    EXPECT_EQ(config.mode, CommitMode::kEvery);
    EXPECT_EQ(config.transport, TransportChoice::kDev);
    EXPECT_EQ(config.linger, 500us);
    EXPECT_EQ(config.standby_timeout, 1min);
    EXPECT_EQ(config.checkpoint_every, 2h);
    EXPECT_EQ(config.journal_limit, std::uint64_t{16} << 20);
    EXPECT_EQ(config.segment_size, std::uint64_t{4} << 20);
}

TEST(Config, TheScheduleIsReadAndNoneIsTheDefault) {
    const auto none = parsed(std::string{kLeast});
    EXPECT_EQ(none.snapshot.every, 0ns);
    EXPECT_FALSE(none.snapshot.keep);
    const auto config = parsed(std::string{kLeast} +
                               "[snapshot]\nevery = \"1h\"\nkeep = \"24 hourly, 14 daily\"\n");
    EXPECT_EQ(config.snapshot.every, 1h);
    EXPECT_EQ(config.snapshot.keep, parse_retention("24 hourly, 14 daily"));
}

TEST(Config, AWrongScheduleIsRefusedWithItsPlace) {
    const auto wrong = [](std::string_view line) {
        return complaint(std::string{kLeast} + "[snapshot]\n" + std::string{line} + "\n");
    };
    EXPECT_EQ(wrong("every = \"500ms\""),
              "mail.toml:7:9: every is \"500ms\", but must be from 1s to 366d");
    EXPECT_EQ(wrong("every = \"0s\""),
              "mail.toml:7:9: every is \"0s\", but must be from 1s to 366d");
    EXPECT_EQ(wrong("every = \"1500ms\""),
              "mail.toml:7:9: every is \"1500ms\", but must be whole seconds");
    EXPECT_EQ(wrong("keep = \"24 hours\"").substr(0, 56),
              "mail.toml:7:8: keep is \"24 hours\", which is no rule like");
    EXPECT_EQ(wrong("kept = \"24 hourly\""), "mail.toml:7:1: unknown key \"kept\"");
}

TEST(Config, EveryKeyOfSnapshotIsRead) {
    const auto config = parsed(std::string{kLeast} +
                               "[snapshot]\nbefore = \"sync-all\"\nafter = 'echo \"done\"'\n"
                               "hook_timeout = \"2min\"\non_before_failure = \"continue\"\n");
    EXPECT_EQ(config.snapshot.before, "sync-all");
    EXPECT_EQ(config.snapshot.after, "echo \"done\"");
    EXPECT_EQ(config.snapshot.hook_timeout, 2min);
    EXPECT_EQ(config.snapshot.on_before_failure, FailedHook::kContinue);
}

TEST(Config, WhatSnapshotMayNotSayIsRefusedWithItsPlace) {
    const auto complaint_about = [](std::string_view line) {
        return complaint(std::string{kLeast} + "[snapshot]\n" + std::string{line} + "\n");
    };
    EXPECT_EQ(complaint_about("befor = \"x\""), "mail.toml:7:1: unknown key \"befor\"");
    EXPECT_EQ(complaint_about("before = 1"),
              "mail.toml:7:10: before must be a string in quotes, not an integer");
    EXPECT_EQ(complaint_about("on_before_failure = \"go\""),
              "mail.toml:7:21: on_before_failure is \"go\", but must be one of \"stop\", "
              "\"continue\"");
    EXPECT_NE(complaint_about("hook_timeout = \"0s\""), "");
    EXPECT_NE(complaint_about("hook_timeout = \"2 days\""), "");
    EXPECT_NE(complaint_about("before = \"a\\u0000b\""), "");
    EXPECT_EQ(complaint(with("snapshot = \"x\"")),
              "mail.toml:1:12: snapshot must be written as [snapshot], not as a string");
}

TEST(Config, UnknownKeyIsRefusedWithItsPlace) {
    EXPECT_EQ(complaint(with("\nlingre = \"2ms\"")), "mail.toml:2:1: unknown key \"lingre\"");
}

TEST(Config, UnknownKeyInATableIsRefusedWithItsPlace) {
    EXPECT_EQ(complaint(std::string{kLeast} + "hots = \"x\"\n"),
              "mail.toml:6:1: unknown key \"hots\"");
}

TEST(Config, WrongTypeIsRefusedWithItsPlace) {
    EXPECT_EQ(complaint(with("linger = 2")),
              "mail.toml:1:10: linger must be a string in quotes, not an integer");
    EXPECT_EQ(complaint(with("directory = \"/x\"\n")).substr(0, 10), "mail.toml:");
}

TEST(Config, WrongUnitIsRefusedWithItsPlace) {
    EXPECT_EQ(complaint(with("linger = \"2 parsecs\"")).substr(0, 37),
              "mail.toml:1:10: linger is \"2 parsecs\"");
    EXPECT_EQ(complaint(with("journal_limit = \"8GB\"")).substr(0, 39),
              "mail.toml:1:17: journal_limit is \"8GB\",");
}

TEST(Config, UnknownWordIsRefusedWithTheKnownOnes) {
    EXPECT_EQ(
        complaint(with("mode = \"fast\"")),
        "mail.toml:1:8: mode is \"fast\", but must be one of \"fsync\", \"every\", \"async\"");
}

TEST(Config, OutOfBoundsIsRefused) {
    EXPECT_NE(complaint(with("linger = \"11s\"")), "");
    EXPECT_NE(complaint(with("segment_size = \"1MiB\"")), "");
    EXPECT_NE(complaint(with("segment_size = \"2MiB\"")), "");
    EXPECT_NE(complaint(with("segment_size = \"4097KiB\"")), "");
    EXPECT_NE(complaint(with("journal_limit = \"100MiB\"")), "");
    EXPECT_NE(complaint(with("checkpoint_every = \"1ms\"")), "");
}

TEST(Config, BrokenTomlIsRefusedWithItsPlace) {
    EXPECT_EQ(complaint("id = \n").substr(0, 12), "mail.toml:1:");
}

TEST(Config, IdMustBeThere) {
    EXPECT_NE(complaint("[[directory]]\npath=\"/a\"\n[[standby]]\npath=\"/b\"\n"), "");
    for (const char* id : {"0x0", "12", "0x", "0xg", "0x11112222333344445", ""})
        EXPECT_NE(complaint("id = \"" + std::string{id} +
                            "\"\n[[directory]]\npath=\"/a\"\n[[standby]]\npath=\"/b\"\n"),
                  "")
            << id;
}

TEST(Config, DirectoryAndStandbyMustBeThere) {
    EXPECT_NE(complaint("id = \"0x1\"\n[[standby]]\npath = \"/b\"\n"), "");
    EXPECT_NE(complaint("id = \"0x1\"\n[[directory]]\npath = \"/a\"\n"), "");
    EXPECT_NE(complaint("id = \"0x1\"\n[[directory]]\n[[standby]]\npath = \"/b\"\n"), "");
}

TEST(Config, TheKeysOfLinksAreReadAndHaveDefaults) {
    const auto defaults = parsed(std::string{kLeast});
    EXPECT_EQ(defaults.ack, AckRule::kAll);
    EXPECT_EQ(defaults.on_standby_loss, StandbyLoss::kContinue);
    EXPECT_EQ(defaults.fence_peer, "");
    EXPECT_EQ(defaults.fence_timeout, 30s);
    EXPECT_EQ(defaults.rate_limit, 0U);
    EXPECT_EQ(defaults.verify_every, 0ns);
    EXPECT_EQ(defaults.metrics, "");
    const auto config =
        parsed(with("ack = \"any\"\non_standby_loss = \"freeze\"\nfence_peer = \"ssh bmc off\"\n"
                    "fence_timeout = \"1min\"\nrate_limit = \"20MiB\"\nverify_every = \"7d\"\n"
                    "metrics = \"9471\""));
    EXPECT_EQ(config.ack, AckRule::kAny);
    EXPECT_EQ(config.on_standby_loss, StandbyLoss::kFreeze);
    EXPECT_EQ(config.fence_peer, "ssh bmc off");
    EXPECT_EQ(config.fence_timeout, 1min);
    EXPECT_EQ(config.rate_limit, std::uint64_t{20} << 20);
    EXPECT_EQ(config.verify_every, 7 * 24h);
    EXPECT_EQ(config.metrics, "127.0.0.1:9471");
}

TEST(Config, SeveralStandbysAreReadWithTheirKeys) {
    const auto config = parsed(std::string{kLeast} +
                               "[[standby]]\npath = \"/srv/mail\"\nhost = \"mx2\"\n"
                               "[[standby]]\npath = \"/srv/mail\"\nhost = \"2001:db8::2\"\n"
                               "port = 4480\nwait = false\n");
    ASSERT_EQ(config.standbys.size(), 3U);
    EXPECT_TRUE(config.standbys[0].is_local());
    EXPECT_TRUE(config.standbys[0].wait);
    EXPECT_EQ(config.standbys[1].target(), "mx2:/srv/mail");
    EXPECT_EQ(config.standbys[1].port, kDefaultPort);
    EXPECT_EQ(config.standbys[2].target(), "[2001:db8::2]:4480:/srv/mail");
    EXPECT_FALSE(config.standbys[2].wait);
}

TEST(Config, WhatALinkMayNotSayIsRefusedWithItsPlace) {
    EXPECT_EQ(complaint(with("ack = \"some\"")),
              "mail.toml:1:7: ack is \"some\", but must be one of \"all\", \"any\"");
    EXPECT_EQ(complaint(with("on_standby_loss = \"panic\"")),
              "mail.toml:1:19: on_standby_loss is \"panic\", but must be one of \"continue\", "
              "\"freeze\"");
    EXPECT_EQ(complaint(with("rate_limit = \"1B\"")),
              "mail.toml:1:14: rate_limit is \"1B\", but must be at least 64KiB");
    EXPECT_EQ(complaint(with("verify_every = \"1ms\"")),
              "mail.toml:1:16: verify_every is \"1ms\", but must be from 1s to 366d");
    EXPECT_EQ(complaint(with("metrics = \"127.0.0.1\"")),
              "mail.toml:1:11: metrics is \"127.0.0.1\", which has no port; write one like "
              "\"127.0.0.1:9471\"");
    EXPECT_EQ(complaint(with("fence_timeout = \"0s\"")),
              "mail.toml:1:17: fence_timeout is \"0s\", but must be from 10ms to 1d");
}

TEST(Config, WhatAStandbyMayNotSayIsRefusedWithItsPlace) {
    const auto second = [](std::string_view lines) {
        return complaint(std::string{kLeast} + "[[standby]]\n" + std::string{lines} + "\n");
    };
    EXPECT_EQ(second("path = \"/mnt/standby/mail\""),
              "mail.toml:7:8: the standby /mnt/standby/mail is there twice");
    EXPECT_EQ(second("path = \"/b\"\nhost = \"a b\"").substr(0, 32),
              "mail.toml:8:8: host is \"a b\", bu");
    EXPECT_EQ(second("path = \"/b\"\nhost = \"\"").substr(0, 24), "mail.toml:8:8: host is \"");
    EXPECT_EQ(second("path = \"b\"\nhost = \"mx2\""),
              "mail.toml:7:8: the path \"b\" of a standby must be absolute");
    EXPECT_EQ(second("path = \"/b\"\nport = 4480"),
              "mail.toml:8:8: port is only for a standby on another host, which has a host");
    EXPECT_EQ(second("path = \"/b\"\nhost = \"mx2\"\nport = 0"),
              "mail.toml:9:8: port is 0, but must be from 1 to 65535");
    EXPECT_EQ(second("path = \"/b\"\nhost = \"mx2\"\nport = \"4471\""),
              "mail.toml:9:8: port must be an integer, not a string");
    EXPECT_EQ(second("path = \"/b\"\nwait = \"no\""),
              "mail.toml:8:8: wait must be true or false, not a string");
    EXPECT_EQ(second("path = \"/b\"\nhost = \"mx2\"\n[[standby]]\npath = \"/c\"\nhost = \"mx2\""),
              "mail.toml:11:8: the host mx2 has another standby on port 4471 already: /b");
}

TEST(Config, RelativePathIsRefused) {
    EXPECT_EQ(complaint("id = \"0x1\"\n[[directory]]\npath = \"a\"\n[[standby]]\npath = \"/b\"\n"),
              "mail.toml:3:8: the path \"a\" of a directory must be absolute");
}

TEST(Config, WhatIsRenderedIsReadAgain) {
    VolumeConfig config;
    config.id = 0xfedcba9876543210U;
    config.mode = CommitMode::kAsync;
    config.transport = TransportChoice::kIoUring;
    config.linger = 1500us;
    config.standby_timeout = 90s;
    config.checkpoint_every = 5s;
    config.journal_limit = std::uint64_t{100} << 20;
    config.segment_size = std::uint64_t{8} << 20;
    config.directories = {{"/var/spool/mail"}, {"/srv/o \"dd\" \\ \n näme"}};
    config.standbys = {{"/mnt/standby"},
                       {.path = "/srv/ä", .host = "mx2", .port = 4480, .wait = false},
                       {.path = "/srv/mail", .host = "2001:db8::2"}};
    config.ack = AckRule::kAny;
    config.on_standby_loss = StandbyLoss::kFreeze;
    config.fence_peer = "ssh \"bmc\" off";
    config.fence_timeout = 7s;
    config.rate_limit = std::uint64_t{3} << 20;
    config.verify_every = 36h;
    config.metrics = "[::1]:9471";
    config.snapshot = {.every = 1h,
                       .keep = parse_retention("24 hourly, 14 daily"),
                       .before = "mysql -e 'x' \"$A\" \\\n &",
                       .after = "true",
                       .hook_timeout = 5s,
                       .on_before_failure = FailedHook::kContinue};
    const auto again = parsed(render_config("mail", config));
    EXPECT_EQ(again.id, config.id);
    EXPECT_EQ(again.mode, config.mode);
    EXPECT_EQ(again.transport, config.transport);
    EXPECT_EQ(again.linger, config.linger);
    EXPECT_EQ(again.standby_timeout, config.standby_timeout);
    EXPECT_EQ(again.checkpoint_every, config.checkpoint_every);
    EXPECT_EQ(again.journal_limit, config.journal_limit);
    EXPECT_EQ(again.segment_size, config.segment_size);
    ASSERT_EQ(again.directories.size(), 2U);
    EXPECT_EQ(again.directories[1].path, config.directories[1].path);
    ASSERT_EQ(again.standbys.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(again.standbys[i].target(), config.standbys[i].target());
        EXPECT_EQ(again.standbys[i].wait, config.standbys[i].wait);
    }
    EXPECT_EQ(again.ack, config.ack);
    EXPECT_EQ(again.on_standby_loss, config.on_standby_loss);
    EXPECT_EQ(again.fence_peer, config.fence_peer);
    EXPECT_EQ(again.fence_timeout, config.fence_timeout);
    EXPECT_EQ(again.rate_limit, config.rate_limit);
    EXPECT_EQ(again.verify_every, config.verify_every);
    EXPECT_EQ(again.metrics, config.metrics);
    EXPECT_EQ(again.snapshot.every, config.snapshot.every);
    EXPECT_EQ(again.snapshot.keep, config.snapshot.keep);
    EXPECT_EQ(again.snapshot.before, config.snapshot.before);
    EXPECT_EQ(again.snapshot.after, "true");
    EXPECT_EQ(again.snapshot.hook_timeout, 5s);
    EXPECT_EQ(again.snapshot.on_before_failure, FailedHook::kContinue);
}

}  // namespace
}  // namespace twinspool
