// SPDX-License-Identifier: Apache-2.0
// What a restore brings back, what it leaves alone, and where it must not go.
#include "replicator/past/restore.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "plain_image.h"
#include "replicator_replica.h"
#include "replicator_trees.h"

namespace twinspool {
namespace {

namespace fs = std::filesystem;
using test::difference;
using test::Gardener;
using test::picture;
using test::Picture;
using test::PlainImage;

// A source with its image, whose directory is at `live` for whoever restores.
struct Scene {
    explicit Scene(std::uint64_t seed, int steps = 120) : gardener(seed) {
        fs::create_directories(source);
        fs::create_directories(live);
        gardener.work(source, steps);
    }
    // As if the volume had gone on: what is there is nearly the same.
    void go_on(int steps) {
        fs::remove_all(live);
        const auto command = "cp -a '" + source + "' '" + live + "'";
        TS_ASSERT(std::system(command.c_str()) == 0);  // NOLINT
        gardener.work(live, steps);
    }
    Result<RestoreReport> in_place(AlignmentOptions options = {}, const std::string& below = "") {
        PlainImage image{source, live};
        Restorer restorer{image, std::move(options)};
        if (below.empty()) return restorer.in_place(std::nullopt);
        const auto part = find_part(image, live + below);
        TS_ASSERT(part.ok() && part->has_value());
        return restorer.in_place(*part.value());
    }
    Result<RestoreReport> to_new(const std::string& name, AlignmentOptions options = {}) {
        PlainImage image{source, live};
        return Restorer{image, std::move(options)}.to_new_place(
            std::nullopt, {.directory = folder.path(), .name = name, .token = "1"});
    }
    [[nodiscard]] std::string in(const std::string& name) const {
        return folder.path() + "/" + name + live;
    }

    test::Folder folder{"/var/tmp"};
    std::string source = folder.path() + "/source";
    std::string live = folder.path() + "/live";
    Gardener gardener;
};

std::string text_of(const Result<RestoreReport>& result) {
    if (!result.ok()) return result.error().text();
    std::string text;
    for (const auto& each : result->differences) text += each + "\n";
    return text;
}

void write(const std::string& path, const std::string& text) {
    std::ofstream{path, std::ios::binary} << text;
}
std::string read(const std::string& path) {
    std::ifstream file{path, std::ios::binary};
    return {std::istreambuf_iterator<char>{file}, {}};
}

TEST(Restore, ANewPlaceIsLikeTheImageInEverything) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Scene scene{seed};
        const auto result = scene.to_new("new");
        ASSERT_EQ(text_of(result), "") << "seed " << seed;
        ASSERT_EQ(difference(picture(scene.source), picture(scene.in("new"))), "")
            << "seed " << seed;
        ASSERT_FALSE(fs::exists(fs::symlink_status(scene.folder.path() + "/.twinspool")));
        ASSERT_EQ(std::distance(fs::directory_iterator{scene.folder.path()}, {}), 3);
    }
}

TEST(Restore, InPlaceEndsLikeTheImageWhateverWasThere) {
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
        Scene scene{seed};
        scene.go_on(static_cast<int>(seed * 4));
        const auto result = scene.in_place();
        ASSERT_EQ(text_of(result), "") << "seed " << seed;
        ASSERT_EQ(difference(picture(scene.source), picture(scene.live)), "") << "seed " << seed;
    }
}

TEST(Restore, InPlaceOverSomethingElseAltogether) {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        Scene scene{seed};
        Gardener{seed + 1000}.work(scene.live, 100);
        ASSERT_EQ(text_of(scene.in_place()), "");
        ASSERT_EQ(difference(picture(scene.source), picture(scene.live)), "") << "seed " << seed;
    }
}

TEST(Restore, WhatIsTheSameIsNotTouched) {
    Scene scene{5};
    scene.go_on(0);
    std::map<std::string, std::pair<ino_t, std::int64_t>> before;
    const auto look = [&] {
        std::map<std::string, std::pair<ino_t, std::int64_t>> found;
        for (const auto& each : fs::recursive_directory_iterator{scene.live}) {
            struct stat status {};
            TS_ASSERT(::lstat(each.path().c_str(), &status) == 0);
            found[each.path()] = {status.st_ino,
                                  status.st_ctim.tv_sec * 1000000000 + status.st_ctim.tv_nsec};
        }
        return found;
    };
    before = look();
    const auto result = scene.in_place();
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result->counters.changes(), 0U);
    EXPECT_EQ(result->counters.bytes, 0U);
    EXPECT_EQ(look(), before);
}

TEST(Restore, DryRunChangesNothingAndSaysWhatTheRunDoes) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Scene scene{seed};
        scene.go_on(60);
        const auto before = picture(scene.live);
        std::vector<RestoreChange> said;
        std::vector<RestoreChange> done;
        const auto into = [](std::vector<RestoreChange>& list) {
            return [&list](const RestoreChange& change) { list.push_back(change); };
        };
        ASSERT_TRUE(scene.in_place({.acting = Acting::kOnlySay, .on_change = into(said)}).ok());
        ASSERT_EQ(difference(before, picture(scene.live)), "");
        ASSERT_TRUE(scene.in_place({.on_change = into(done)}).ok());
        ASSERT_EQ(said.size(), done.size()) << "seed " << seed;
        for (std::size_t i = 0; i < said.size(); ++i)
            ASSERT_TRUE(said[i] == done[i])
                << "seed " << seed << ": " << said[i].path << ", " << done[i].path;
        said.clear();
        ASSERT_TRUE(scene.in_place({.acting = Acting::kOnlySay, .on_change = into(said)}).ok());
        ASSERT_TRUE(said.empty()) << said[0].path;
    }
}

TEST(Restore, KilledAnywhereInPlaceASecondRunDoesTheRest) {
    int kills = 0;
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        Scene scene{seed, 60};
        scene.go_on(60);
        for (std::uint64_t upto = 1;; upto += 1 + upto / 3) {
            std::uint64_t steps = upto;
            const auto result = scene.in_place({.on_step = [&]() -> Status {
                if (--steps == 0) return make_error(EINTR, "go on: killed");
                return {};
            }});
            if (result.ok()) {
                ASSERT_EQ(text_of(result), "");
                break;
            }
            ASSERT_EQ(result.error().code, EINTR) << result.error().text();
            ++kills;
        }
        ASSERT_EQ(difference(picture(scene.source), picture(scene.live)), "") << "seed " << seed;
    }
    EXPECT_GT(kills, 50);
}

TEST(Restore, KilledAnywhereANewPlaceIsThereWholeOrNotAtAll) {
    int kills = 0;
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
        Scene scene{seed, 40};
        const auto expected = picture(scene.source);
        for (std::uint64_t upto = 1;; upto += 1 + upto / 4) {
            std::uint64_t steps = upto;
            const auto result = scene.to_new("new", {.on_step = [&]() -> Status {
                                                 if (--steps == 0)
                                                     return make_error(EINTR, "go on: killed");
                                                 return {};
                                             }});
            const bool there = fs::exists(scene.folder.path() + "/new");
            if (there) {
                ASSERT_EQ(difference(expected, picture(scene.in("new"))), "");
            }
            if (result.ok()) {
                ASSERT_TRUE(there);
                break;
            }
            ASSERT_EQ(result.error().code, EINTR) << result.error().text();
            ++kills;
        }
        ASSERT_EQ(std::distance(fs::directory_iterator{scene.folder.path()}, {}), 3);
    }
    EXPECT_GT(kills, 50);
}

TEST(Restore, AFileInPlaceIsReplacedAtOneMomentAndItsLeftoversGo) {
    Scene scene{1, 0};
    write(scene.source + "/file", "the old content");
    scene.go_on(0);
    write(scene.live + "/file", "new");
    write(scene.live + "/other", "stays");
    std::uint64_t most = 0;
    for (std::uint64_t upto = 1;; ++upto) {
        std::uint64_t steps = upto;
        const auto result =
            scene.in_place({.on_step = [&]() -> Status {
                               const auto text = read(scene.live + "/file");
                               EXPECT_TRUE(text == "new" || text == "the old content");
                               if (--steps == 0) return make_error(EINTR, "go on: killed");
                               return {};
                           }},
                           "/file");
        most = upto;
        if (result.ok()) break;
    }
    EXPECT_GT(most, 5U);
    EXPECT_EQ(read(scene.live + "/file"), "the old content");
    EXPECT_EQ(read(scene.live + "/other"), "stays");
    EXPECT_EQ(std::distance(fs::directory_iterator{scene.live}, {}), 2);
}

TEST(Restore, NamesOfOneInodeThatDifferInTheImageAreSplit) {
    Scene scene{1, 0};
    write(scene.source + "/a", "same");
    write(scene.source + "/b", "same");
    fs::create_hard_link(scene.source + "/b", scene.source + "/c");
    write(scene.live + "/a", "same");
    fs::create_hard_link(scene.live + "/a", scene.live + "/b");
    fs::create_hard_link(scene.live + "/a", scene.live + "/c");
    ASSERT_EQ(text_of(scene.in_place()), "");
    struct stat a {};
    struct stat b {};
    struct stat c {};
    ::lstat((scene.live + "/a").c_str(), &a);
    ::lstat((scene.live + "/b").c_str(), &b);
    ::lstat((scene.live + "/c").c_str(), &c);
    EXPECT_NE(a.st_ino, b.st_ino);
    EXPECT_EQ(b.st_ino, c.st_ino);
}

TEST(Restore, AnInodeWithANameOutsideIsNotChangedThroughTheOther) {
    Scene scene{1, 0};
    fs::create_directory(scene.source + "/part");
    write(scene.source + "/part/a", "old");
    fs::create_directory(scene.live + "/part");
    write(scene.live + "/outside", "old");
    fs::create_hard_link(scene.live + "/outside", scene.live + "/part/a");
    ::chmod((scene.live + "/outside").c_str(), 0640);
    const auto outside = picture(scene.live).at("outside");
    ASSERT_EQ(text_of(scene.in_place({}, "/part")), "");
    EXPECT_EQ(picture(scene.live).at("outside"), outside);
    EXPECT_EQ(difference(picture(scene.source + "/part"), picture(scene.live + "/part")), "");
}

TEST(Restore, NoSymlinkAtTheDestinationLeadsOut) {
    Scene scene{1, 0};
    fs::create_directories(scene.source + "/box/cur");
    write(scene.source + "/box/cur/message", "old");
    write(scene.source + "/list", "old");
    const std::string outside = scene.folder.path() + "/outside";
    fs::create_directories(outside + "/cur");
    write(outside + "/cur/message", "not ours");
    write(outside + "/list", "not ours");
    const auto before = picture(outside);
    fs::create_symlink(outside, scene.live + "/box");
    fs::create_symlink(outside + "/list", scene.live + "/list");
    fs::create_directory_symlink(outside, scene.live + "/more");
    // A part below the link has no place to go to.
    const auto part = scene.in_place({}, "/box/cur/message");
    ASSERT_FALSE(part.ok());
    EXPECT_EQ(difference(before, picture(outside)), "");
    ASSERT_EQ(text_of(scene.in_place()), "");
    EXPECT_EQ(difference(before, picture(outside)), "");
    EXPECT_EQ(difference(picture(scene.source), picture(scene.live)), "");
}

TEST(Restore, ARaceForTheNewNameIsRefused) {
    Scene scene{1, 0};
    write(scene.source + "/file", "old");
    const auto result = scene.to_new("new", {.on_step = [&]() -> Status {
                                         // Somebody makes DEST while it is being made.
                                         write(scene.folder.path() + "/new", "mine");
                                         return {};
                                     }});
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, EEXIST);
    EXPECT_EQ(read(scene.folder.path() + "/new"), "mine");
}

TEST(Restore, WhatExistsIsNotOverwritten) {
    Scene scene{1, 5};
    fs::create_directory(scene.folder.path() + "/new");
    const auto result = scene.to_new("new");
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, EEXIST);
    EXPECT_TRUE(fs::is_empty(scene.folder.path() + "/new"));
}

TEST(Restore, AWholeImageGoesIntoAnEmptyDirectory) {
    Scene scene{3};
    const std::string target = scene.folder.path() + "/empty";
    fs::create_directory(target);
    PlainImage image{scene.source, scene.live};
    const NewPlace place{.directory = target, .name = "", .token = "1"};
    ASSERT_EQ(text_of(Restorer(image, {}).to_new_place(std::nullopt, place)), "");
    EXPECT_EQ(difference(picture(scene.source), picture(target + scene.live)), "");
    const auto again = Restorer(image, {}).to_new_place(std::nullopt, place);
    ASSERT_FALSE(again.ok());
    EXPECT_EQ(again.error().code, ENOTEMPTY);
}

TEST(Restore, APartComesUnderTheNameThatWasAskedFor) {
    Scene scene{4, 0};
    fs::create_directories(scene.source + "/bob/cur");
    write(scene.source + "/bob/cur/m", "old");
    PlainImage image{scene.source, scene.live};
    const auto part = find_part(image, scene.live + "/bob");
    ASSERT_TRUE(part.ok() && part->has_value());
    const NewPlace place{.directory = scene.folder.path(), .name = "bob.old", .token = "1"};
    ASSERT_EQ(text_of(Restorer(image, {}).to_new_place(*part, place)), "");
    EXPECT_EQ(difference(picture(scene.source + "/bob"), picture(scene.folder.path() + "/bob.old")),
              "");
}

TEST(Restore, AnInterruptionLeavesNothingHalfDoneAndGoesOn) {
    Scene scene{6};
    scene.go_on(40);
    int asked = 0;
    const auto result = scene.in_place({.interrupted = [&] { return ++asked > 10; }});
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, ECANCELED);
    for (const auto& each : fs::recursive_directory_iterator{scene.live})
        EXPECT_EQ(each.path().filename().string().find(".twinspool-restore"), std::string::npos);
    ASSERT_EQ(text_of(scene.in_place()), "");
    EXPECT_EQ(difference(picture(scene.source), picture(scene.live)), "");
}

TEST(Restore, DefaultAclsAndSetGidOfThePlaceAreNotInherited) {
    Scene scene{1, 0};
    fs::create_directories(scene.source + "/d/e");
    write(scene.source + "/d/f", "x");
    const std::string target = scene.folder.path() + "/target";
    fs::create_directory(target);
    ASSERT_EQ(::chown(target.c_str(), 0, 50), 0);
    ASSERT_EQ(::chmod(target.c_str(), 02775), 0);
    ASSERT_EQ(std::system(("setfacl -d -m u:77:rwx '" + target + "'").c_str()), 0);  // NOLINT
    PlainImage image{scene.source, scene.live};
    const NewPlace place{.directory = target, .name = "", .token = "1"};
    ASSERT_EQ(text_of(Restorer(image, {}).to_new_place(std::nullopt, place)), "");
    EXPECT_EQ(difference(picture(scene.source), picture(target + scene.live)), "");
}

TEST(FindPart, LeadsThroughDirectoriesOnly) {
    Scene scene{1, 0};
    fs::create_directories(scene.source + "/a/b");
    write(scene.source + "/a/file", "x");
    fs::create_symlink("a", scene.source + "/link");
    PlainImage image{scene.source, "/var/mail"};
    const auto there = [&](const std::string& path) {
        const auto part = find_part(image, path);
        return part.ok() && part->has_value();
    };
    EXPECT_TRUE(there("/var/mail"));
    EXPECT_TRUE(there("/var/mail/a/b"));
    EXPECT_TRUE(there("/var/mail/link"));
    EXPECT_FALSE(there("/var/mail/link/b"));
    EXPECT_FALSE(there("/var/mail/a/file/x"));
    EXPECT_FALSE(there("/var/mail/a/../a"));
    EXPECT_FALSE(there("/var/mail//a"));
    EXPECT_FALSE(there("/var/mailbox"));
    EXPECT_FALSE(there("/var"));
    const auto part = find_part(image, "/var/mail/a/b");
    EXPECT_EQ(part->value().below_root(), "a/b");
    EXPECT_EQ(part->value().name(), "b");
}

}  // namespace
}  // namespace twinspool
