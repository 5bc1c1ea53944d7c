// SPDX-License-Identifier: Apache-2.0
// What people may write for a snapshot, and for what is in it.
#include "tools/volume/point.h"

#include <gtest/gtest.h>

namespace twinspool {
namespace {

Point parsed(std::string_view text, PathPart path = PathPart::kOptional) {
    auto point = parse_point(text, path);
    EXPECT_TRUE(point.ok()) << text << ": " << (point.ok() ? "" : point.error().sentence);
    return point.ok() ? point.value() : Point{};
}

std::string complaint(std::string_view text, PathPart path = PathPart::kOptional) {
    const auto point = parse_point(text, path);
    EXPECT_FALSE(point.ok()) << text;
    if (point.ok()) return "";
    EXPECT_EQ(point.error().code, ExitCode::kUsage) << text;
    return point.error().sentence;
}

TEST(Point, IsAVolumeASnapshotAndAPath) {
    const Point point = parsed("mail@monday:/var/spool/mail/anna");
    EXPECT_EQ(point.volume, "mail");
    EXPECT_EQ(point.snapshot, "monday");
    EXPECT_EQ(point.path, "/var/spool/mail/anna");
    EXPECT_EQ(parsed("mail@monday").path, "");
}

TEST(Point, ASnapshotIsMeantByNameNewestOrPosition) {
    EXPECT_EQ(parsed("mail@latest").snapshot, "latest");
    EXPECT_EQ(parsed("mail@lsn:42").snapshot, "lsn:42");
    const Point point = parsed("mail@lsn:42:/a");
    EXPECT_EQ(point.snapshot, "lsn:42");
    EXPECT_EQ(point.path, "/a");
    EXPECT_EQ(parsed("mail@hourly-20261122T0900Z").snapshot, "hourly-20261122T0900Z");
}

TEST(Point, AllDirectoriesAreTheRoot) {
    EXPECT_EQ(parsed("mail@monday:/").path, "");
    EXPECT_EQ(parsed("mail@monday://").path, "");
}

TEST(Point, APathHasNoSlashesToSpare) { EXPECT_EQ(parsed("mail@monday:/a//b/").path, "/a/b"); }

TEST(Point, APathMayHoldAnyBytes) {
    EXPECT_EQ(parsed("mail@m:/a:b@c\n\xff/d").path, "/a:b@c\n\xff/d");
    EXPECT_EQ(parsed("mail@m:/.../..a").path, "/.../..a");
}

TEST(Point, APathThatLeadsElsewhereIsRefused) {
    EXPECT_NE(complaint("mail@m:/a/../b"), "");
    EXPECT_NE(complaint("mail@m:/./b"), "");
    EXPECT_NE(complaint("mail@m:a"), "");
    EXPECT_NE(complaint("mail@m:"), "");
}

TEST(Point, ATimeIsRefusedAsSuch) {
    for (const char* text : {"mail@2026-08-20T03:00", "mail@2026-08-20T03:00:/a", "mail@-10m",
                             "mail@20260820", "mail@-10m:/a"})
        EXPECT_NE(complaint(text).find("stands for a time"), std::string::npos) << text;
    EXPECT_NE(complaint("mail@2026-08-20T03:00", PathPart::kNone).find("time"), std::string::npos);
}

TEST(Point, WhatIsMissingIsSaid) {
    EXPECT_NE(complaint("mail").find("names no snapshot"), std::string::npos);
    EXPECT_NE(complaint("mail@").find("is missing"), std::string::npos);
    EXPECT_NE(complaint("mail@:/a").find("is missing"), std::string::npos);
    EXPECT_NE(complaint("@monday"), "");
    EXPECT_NE(complaint(""), "");
}

TEST(Point, APositionIsANumber) {
    for (const char* text : {"mail@lsn:", "mail@lsn:x", "mail@lsn:-1", "mail@lsn:4x", "mail@lsn: 4",
                             "mail@lsn:99999999999999999999", "mail@lsn:/a"})
        EXPECT_NE(complaint(text), "") << text;
}

TEST(Point, AWholeSnapshotHasNoPath) {
    EXPECT_EQ(parsed("mail@monday", PathPart::kNone).snapshot, "monday");
    EXPECT_NE(complaint("mail@monday:/a", PathPart::kNone).find("leave out the path"),
              std::string::npos);
    EXPECT_NE(complaint("mail@lsn:4:/a", PathPart::kNone), "");
    EXPECT_NE(complaint("mail@monday:", PathPart::kNone), "");
}

TEST(Point, APathOfAVolumeHasNoSnapshot) {
    const auto point = parse_path_of_volume("mail:/a@b:c/");
    ASSERT_TRUE(point.ok());
    EXPECT_EQ(point.value().volume, "mail");
    EXPECT_EQ(point.value().snapshot, "");
    EXPECT_EQ(point.value().path, "/a@b:c");
    for (const char* text : {"mail", "mail@monday:/a", "mail:a", ":/a", "mail:", "ma/il:/a"})
        EXPECT_FALSE(parse_path_of_volume(text).ok()) << text;
}

TEST(SnapshotName, MayBeLettersDigitsAndAFewSigns) {
    for (const char* name :
         {"a", "A.b_c-9", "before-restore-20261122T090000Z", ".a", "_", "lsn", "latest2", "Latest"})
        EXPECT_TRUE(check_snapshot_name(name).ok()) << name;
    EXPECT_TRUE(check_snapshot_name(std::string(64, 'a')).ok());
}

TEST(SnapshotName, NothingElse) {
    for (const char* name :
         {"", "9a", "-a", "lsn:5", "latest", "a b", "a/b", "a@b", "a:b", "ä", "a\nb", "\xff"}) {
        const auto checked = check_snapshot_name(name);
        ASSERT_FALSE(checked.ok()) << name;
        EXPECT_EQ(checked.error().code, ExitCode::kUsage);
    }
    EXPECT_FALSE(check_snapshot_name(std::string(65, 'a')).ok());
}

}  // namespace
}  // namespace twinspool
