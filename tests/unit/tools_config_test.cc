// SPDX-License-Identifier: Apache-2.0
// What VOLUME.toml may say, and where a complaint points to.
#include "tools/config.h"

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
    EXPECT_EQ(complaint(std::string{kLeast} + "host = \"x\"\n"),
              "mail.toml:6:1: unknown key \"host\"");
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
    EXPECT_NE(complaint(with("") + "[[standby]]\npath = \"/c\"\n"), "");
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
    config.standbys = {{"/mnt/standby"}};
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
    EXPECT_EQ(again.standbys[0].path, "/mnt/standby");
    EXPECT_EQ(again.snapshot.every, config.snapshot.every);
    EXPECT_EQ(again.snapshot.keep, config.snapshot.keep);
    EXPECT_EQ(again.snapshot.before, config.snapshot.before);
    EXPECT_EQ(again.snapshot.after, "true");
    EXPECT_EQ(again.snapshot.hook_timeout, 5s);
    EXPECT_EQ(again.snapshot.on_before_failure, FailedHook::kContinue);
}

}  // namespace
}  // namespace twinspool
