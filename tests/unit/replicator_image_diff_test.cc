// SPDX-License-Identifier: Apache-2.0
// What a comparison of two images says, and the log of one path.
#include "replicator/past/image_diff.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>

#include "replicator/past/path_log.h"
#include "replicator/past/printable.h"
#include "replicator/past/restore.h"
#include "replicator_replica.h"

namespace twinspool {
namespace {

constexpr ObjectId kTop{1};

// An image in memory. Objects keep their ids when it is copied and changed.
class FakeImage : public Image {
   public:
    struct Object {
        ImageAttributes attributes;
        std::string content;  // of a symlink: its target
        std::map<std::string, std::string> xattrs;
        std::map<std::string, ObjectId> entries;
        std::uint64_t version = 0;
    };
    FakeImage() {
        roots_.push_back({.path = "/v", .object = kTop});
        objects_[kTop].attributes.mode = S_IFDIR | 0755;
    }

    ObjectId make(ObjectId parent, const std::string& name, std::uint32_t type,
                  const std::string& content = "") {
        const ObjectId id{++*last_};
        auto& object = objects_[id];
        object.attributes.mode = type | 0644;
        object.content = content;
        object.attributes.size = content.size();
        object.version = ++*last_;
        enter(parent, name, id);
        return id;
    }
    ObjectId file(ObjectId parent, const std::string& name, const std::string& content) {
        return make(parent, name, S_IFREG, content);
    }
    ObjectId folder(ObjectId parent, const std::string& name) {
        return make(parent, name, S_IFDIR);
    }
    void enter(ObjectId parent, const std::string& name, ObjectId id) {
        objects_.at(parent).entries[name] = id;
        touch(parent);
    }
    // The name; and the object, if that was its last one.
    void remove(ObjectId parent, const std::string& name) {
        objects_.at(parent).entries.erase(name);
        touch(parent);
    }
    void forget(ObjectId id) { objects_.erase(id); }
    void rename(ObjectId from, const std::string& name, ObjectId to, const std::string& new_name) {
        const ObjectId id = objects_.at(from).entries.at(name);
        remove(from, name);
        enter(to, new_name, id);
    }
    void write(ObjectId id, const std::string& content) {
        auto& object = touch(id);
        object.content = content;
        object.attributes.size = content.size();
    }
    Object& touch(ObjectId id) {
        auto& object = objects_.at(id);
        object.version = ++*last_;
        object.attributes.mtime.seconds = static_cast<std::int64_t>(*last_);
        return object;
    }

    [[nodiscard]] const std::vector<ImageRoot>& roots() const override { return roots_; }
    Result<ImageAttributes> attributes(ObjectId id) override {
        if (!objects_.contains(id)) return make_error(ESTALE, "look at an object");
        return objects_.at(id).attributes;
    }
    Result<ObjectId> find(ObjectId directory, std::string_view name) override {
        const auto& entries = objects_.at(directory).entries;
        const auto at = entries.find(std::string{name});
        return at == entries.end() ? kNoObject : at->second;
    }
    Result<std::vector<ImageEntry>> list(ObjectId directory) override {
        std::vector<ImageEntry> found;
        for (const auto& [name, id] : objects_.at(directory).entries)
            found.push_back({.name = name, .object = id});
        return found;
    }
    Result<std::size_t> read(ObjectId id, std::uint64_t offset,
                             std::span<std::byte> into) override {
        ++reads;
        const auto& content = objects_.at(id).content;
        if (offset >= content.size()) return std::size_t{0};
        const auto size = std::min<std::uint64_t>(into.size(), content.size() - offset);
        std::transform(content.begin() + static_cast<std::ptrdiff_t>(offset),
                       content.begin() + static_cast<std::ptrdiff_t>(offset + size), into.begin(),
                       [](char byte) { return static_cast<std::byte>(byte); });
        return static_cast<std::size_t>(size);
    }
    Result<std::optional<ImageRange>> next_data(ObjectId id, std::uint64_t offset) override {
        const auto size = objects_.at(id).content.size();
        if (offset >= size) return std::optional<ImageRange>{};
        return std::optional{ImageRange{.offset = offset, .length = size - offset}};
    }
    Result<std::string> target(ObjectId id) override { return objects_.at(id).content; }
    Result<std::map<std::string, std::string>> xattrs(ObjectId id) override {
        return objects_.at(id).xattrs;
    }
    Result<std::uint64_t> version(ObjectId id) override { return objects_.at(id).version; }

    int reads = 0;

   private:
    std::vector<ImageRoot> roots_;
    std::map<ObjectId, Object> objects_;
    std::shared_ptr<std::uint64_t> last_ = std::make_shared<std::uint64_t>(100);  // of all copies
};

std::vector<std::string> compared(FakeImage& before, FakeImage& after) {
    auto changes = ImageDiff(before, after, [](std::string_view) { return Status{}; }).run();
    EXPECT_TRUE(changes.ok());
    std::vector<std::string> lines;
    for (const auto& change : *changes)
        lines.push_back(fmt::format("{}{} {} {}{}", "+-RM"[static_cast<int>(change.kind)],
                                    change.from.empty() ? "" : " " + change.from, change.path,
                                    change.bytes, change.attributes ? " a" : ""));
    return lines;
}
using Lines = std::vector<std::string>;

TEST(Compare, NothingDiffersAndNothingIsRead) {
    FakeImage before;
    before.file(before.folder(kTop, "d"), "f", "text");
    FakeImage after = before;
    EXPECT_EQ(compared(before, after), Lines{});
    EXPECT_EQ(before.reads + after.reads, 0);
}

TEST(Compare, CreatedDeletedAndChangedWithTheirBytes) {
    FakeImage before;
    const auto changed = before.file(kTop, "changed", "abcdef");
    const auto gone = before.file(kTop, "gone", "123");
    const auto mode = before.file(kTop, "mode", "x");
    FakeImage after = before;
    after.write(changed, "abXdefgh");
    after.remove(kTop, "gone");
    after.forget(gone);
    after.touch(mode).attributes.mode = S_IFREG | 0600;
    after.file(after.folder(kTop, "new"), "f", "12345");
    EXPECT_EQ(compared(before, after), (Lines{"M /v/changed 3 a", "- /v/gone 3", "M /v/mode 0 a",
                                              "+ /v/new 0", "+ /v/new/f 5"}));
}

TEST(Compare, ARenamedDirectoryIsOneLineAndItsContentIsComparedWhereItIs) {
    FakeImage before;
    const auto a = before.folder(kTop, "a");
    const auto inner = before.folder(a, "inner");
    const auto file = before.file(inner, "f", "old");
    before.file(inner, "same", "same");
    FakeImage after = before;
    const auto other = after.folder(kTop, "other");
    after.rename(kTop, "a", other, "b");
    after.write(file, "new");
    after.file(inner, "more", "");
    EXPECT_EQ(compared(before, after),
              (Lines{"+ /v/other 0", "R /v/a /v/other/b 0", "M /v/other/b/inner/f 3 a",
                     "+ /v/other/b/inner/more 0"}));
}

TEST(Compare, WhatMovesOutOfADirectoryThatGoesIsRenamed) {
    FakeImage before;
    const auto gone = before.folder(kTop, "gone");
    before.file(gone, "kept", "text");
    const auto lost = before.file(gone, "lost", "x");
    FakeImage after = before;
    after.rename(gone, "kept", kTop, "saved");
    after.remove(kTop, "gone");
    after.forget(lost);
    after.forget(gone);
    EXPECT_EQ(compared(before, after),
              (Lines{"- /v/gone 0", "- /v/gone/lost 1", "R /v/gone/kept /v/saved 0"}));
}

TEST(Compare, NamesThatAreSwappedAreTwoRenames) {
    FakeImage before;
    before.file(kTop, "a", "A");
    before.file(kTop, "b", "B");
    FakeImage after = before;
    after.rename(kTop, "a", kTop, "c");
    after.rename(kTop, "b", kTop, "a");
    after.rename(kTop, "c", kTop, "b");
    EXPECT_EQ(compared(before, after), (Lines{"R /v/b /v/a 0", "R /v/a /v/b 0"}));
}

TEST(Compare, AFileThatIsReplacedByARenameIsChanged) {
    FakeImage before;
    const auto old = before.file(kTop, "list", "one\n");
    FakeImage after = before;
    after.remove(kTop, "list");
    after.forget(old);
    after.file(kTop, "list", "two\n");
    const auto lines = compared(before, after);
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_EQ(lines[0].substr(0, 11), "M /v/list 3");
}

TEST(Compare, AnotherTypeUnderTheNameIsDeletedAndCreated) {
    FakeImage before;
    const auto old = before.file(kTop, "x", "one");
    FakeImage after = before;
    after.remove(kTop, "x");
    after.forget(old);
    after.folder(kTop, "x");
    EXPECT_EQ(compared(before, after), (Lines{"+ /v/x 0", "- /v/x 3"}));
}

TEST(Compare, ALinkMoreOrLessIsAName) {
    FakeImage before;
    const auto file = before.file(kTop, "a", "text");
    before.enter(kTop, "b", file);
    FakeImage after = before;
    after.remove(kTop, "b");
    after.enter(kTop, "c", file);
    after.enter(kTop, "d", file);
    EXPECT_EQ(compared(before, after), (Lines{"R /v/b /v/c 0", "+ /v/d 4"}));
}

TEST(Compare, AnErrorEndsItAndNamesThePath) {
    FakeImage before;
    before.file(kTop, "f", "text");
    FakeImage after = before;
    const auto changes = ImageDiff(before, after, [](std::string_view path) -> Status {
                             if (path == "/v/f") return make_error(ECANCELED, "go on");
                             return {};
                         }).run();
    ASSERT_FALSE(changes.ok());
    EXPECT_EQ(changes.error().code, ECANCELED);
}

// As deep as a path can lead: neither descriptors nor the stack run out.
TEST(Compare, DeepTreesAreComparedAndRestored) {
    rlimit limit{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    FakeImage before;
    ObjectId last = kTop;
    for (int depth = 0; depth < 2000; ++depth) last = before.folder(last, "d");
    FakeImage after = before;
    after.file(last, "f", "text");
    EXPECT_EQ(compared(before, after).size(), 1U);
    const test::Folder folder{"/var/tmp"};
    const NewPlace place{.directory = folder.path(), .name = "new", .token = "1"};
    const auto done = Restorer{after, {}}.to_new_place(std::nullopt, place);
    ASSERT_TRUE(done.ok()) << done.error().text().substr(0, 40);
    EXPECT_EQ(done->counters.objects, 2002U);
    EXPECT_TRUE(done->differences.empty());
}

// The images of one volume, one after the other.
class PathLogTest : public ::testing::Test {
   protected:
    std::string next() {
        auto event = log_.next(std::make_unique<FakeImage>(image_));
        EXPECT_TRUE(event.ok());
        if (!event->has_value()) return "";
        const auto& found = **event;
        return fmt::format("{} {} {}", static_cast<int>(found.kind), found.bytes, found.to);
    }
    FakeImage image_;
    PathLog log_{"/v/d/f", [](std::uint64_t) { return Status{}; }};
};

TEST_F(PathLogTest, SaysWhatBecameOfThePathInEachImage) {
    EXPECT_EQ(next(), "");
    const auto folder = image_.folder(kTop, "d");
    EXPECT_EQ(next(), "");
    const auto file = image_.file(folder, "f", "one");
    EXPECT_EQ(next(), "0 0 ");
    EXPECT_EQ(next(), "");
    image_.write(file, "two!");
    EXPECT_EQ(next(), "1 4 ");
    image_.rename(folder, "f", folder, "g");
    EXPECT_EQ(next(), "3 0 g");
    EXPECT_EQ(next(), "");
    image_.rename(folder, "g", folder, "f");
    EXPECT_EQ(next(), "0 0 ");
    image_.remove(folder, "f");
    image_.forget(file);
    EXPECT_EQ(next(), "2 0 ");
}

TEST_F(PathLogTest, AReplacedFileIsChangedAndAMovedOneIsNamed) {
    const auto folder = image_.folder(kTop, "d");
    const auto old = image_.file(folder, "f", "one");
    EXPECT_EQ(next(), "0 0 ");
    image_.remove(folder, "f");
    image_.forget(old);
    image_.file(folder, "f", "six");
    EXPECT_EQ(next(), "1 3 ");
    image_.rename(folder, "f", folder, "f.1");
    image_.file(folder, "f", "");
    EXPECT_EQ(next().substr(0, 2), "3 ");
}

TEST_F(PathLogTest, AnAncestorThatGoesTakesItAway) {
    const auto folder = image_.folder(kTop, "d");
    const auto file = image_.file(folder, "f", "one");
    EXPECT_EQ(next(), "0 0 ");
    image_.remove(kTop, "d");
    image_.forget(folder);
    image_.forget(file);
    EXPECT_EQ(next(), "2 0 ");
}

TEST(Printable, IsOneLineOfUtf8ThatTellsNamesApart) {
    EXPECT_EQ(printable("/var/mail/ünï"), "/var/mail/ünï");
    EXPECT_EQ(printable("a\nb\\n"), "a\\nb\\\\n");
    EXPECT_EQ(printable("\xff\x1b["), "\\xff\\x1b[");
    EXPECT_EQ(printable("\xc0\xaf\xed\xa0\x80"), "\\xc0\\xaf\\xed\\xa0\\x80");
    EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b");
    EXPECT_TRUE(is_utf8("ünï\n"));
    EXPECT_FALSE(is_utf8("\xe2\x82"));
    EXPECT_FALSE(is_utf8("\xf5\x80\x80\x80"));
}

}  // namespace
}  // namespace twinspool
