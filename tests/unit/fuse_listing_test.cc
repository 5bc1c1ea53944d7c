// SPDX-License-Identifier: Apache-2.0
// What an open directory lists: one moment of it, each name once, with places that stay good.
#include "fuse/serve/listing.h"

#include <sys/mount.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "fuse/objects/directory_moment.h"
#include "tests/unit/fuse_support.h"

namespace twinspool::test {
namespace {

// A kernel's buffer with room for some entries.
class SomeEntries final : public EntryWriter {
   public:
    struct Entry {
        std::string name;
        ObjectId object;
        std::int64_t next;
        bool linked;
    };
    explicit SomeEntries(std::size_t room) : room_(room) {}
    bool add(const ListedEntry& entry) override { return put(entry, false); }
    bool add_plus(const ListedEntry& entry, const struct statx&, Inode* inode) override {
        return put(entry, inode != nullptr);
    }
    [[nodiscard]] std::size_t size() const override { return entries.size(); }
    std::vector<Entry> entries;

   private:
    bool put(const ListedEntry& entry, bool linked) {
        if (entries.size() == room_) return false;
        entries.push_back({entry.name, entry.object, entry.next, linked});
        return true;
    }
    std::size_t room_;
};

using Entries = std::vector<SomeEntries::Entry>;

class FuseListing : public FuseTest {
   protected:
    std::uint64_t instance_of(ObjectId id) { return volume->inodes.find(id)->instance; }
    std::uint64_t open_root() { return volume->open_directories.open(instance_of(root())); }

    Entries read(std::uint64_t handle, std::int64_t place, std::size_t room,
                 ListingStyle style = ListingStyle::kNames) {
        SomeEntries some{room};
        Turn turn{*journal, Turn::Waiting::kAllowed};
        const Answered answered =
            list_directory(*volume, turn, {}, root(), handle, place, style, some);
        EXPECT_TRUE(answered.ok()) << answered.error().code;
        return some.entries;
    }
    // From `place` on, a few at a time, with something done in between.
    template <typename Between>
    Entries read_all(std::uint64_t handle, std::int64_t place, Between&& between,
                     ListingStyle style = ListingStyle::kNames) {
        Entries all;
        for (;;) {
            const Entries some = read(handle, place, 7, style);
            if (some.empty()) return all;
            all.insert(all.end(), some.begin(), some.end());
            place = some.back().next;
            between();
        }
    }
    Entries read_all(std::uint64_t handle) {
        return read_all(handle, 0, [] {});
    }
    static std::map<std::string, int> counted(const Entries& entries) {
        std::map<std::string, int> counts;
        for (const auto& entry : entries)
            if (entry.name[0] != '.') ++counts[entry.name];
        return counts;
    }
    std::map<std::string, int> created(int count) {
        std::map<std::string, int> names;
        for (int i = 0; i < count; ++i) {
            const std::string name = "message" + std::to_string(i);
            create(name);
            names[name] = 1;
        }
        return names;
    }
};

TEST_F(FuseListing, IsOneMomentHoweverLongItTakesAndWhateverIsRenamedRemovedAndMade) {
    const auto names = created(300);
    for (const ListingStyle style : {ListingStyle::kNames, ListingStyle::kAttributes}) {
        std::mt19937 random{1};
        int step = 0;
        const std::string suffix = style == ListingStyle::kNames ? "a" : "b";
        const auto between = [&] {
            for (int i = 0; i < 5; ++i, ++step) {
                const std::string name = "message" + std::to_string(random() % 300);
                (void)rename(name, name + suffix);
                (void)rename(name + suffix, name + "x" + suffix);
                (void)rename(name + "x" + suffix, name);
            }
            create("other" + suffix + std::to_string(step));
            (void)unlink("other" + suffix + std::to_string(step - 5));
        };
        auto seen = counted(read_all(open_root(), 0, between, style));
        std::erase_if(seen, [](const auto& each) { return each.first.starts_with("other"); });
        EXPECT_EQ(seen, names);
    }
}

TEST_F(FuseListing, HasARenamedMessageUnderItsOldNameAndTellsNothingOfWhoStandsThereNow) {
    created(20);
    const ObjectId before = look("message7");
    const std::uint64_t handle = open_root();
    const Entries first = read(handle, 0, 1, ListingStyle::kAttributes);
    ASSERT_TRUE(rename("message7", "elsewhere").ok());
    const ObjectId other = create("message7");
    ASSERT_TRUE(rename("message8", "gone").ok());
    const Entries rest = read_all(
        handle, first.back().next, [] {}, ListingStyle::kAttributes);
    const auto find = [&](const char* name) {
        return std::find_if(rest.begin(), rest.end(),
                            [&](const auto& entry) { return entry.name == name; });
    };
    ASSERT_NE(find("message7"), rest.end());
    EXPECT_EQ(find("message7")->object, before);
    EXPECT_NE(find("message7")->object, other);
    EXPECT_FALSE(find("message7")->linked);
    ASSERT_NE(find("message8"), rest.end());
    EXPECT_FALSE(find("message8")->linked);
    EXPECT_TRUE(find("message9")->linked);
    EXPECT_EQ(find("elsewhere"), rest.end());
}

TEST_F(FuseListing, OfARemovedAndForgottenObjectHasANumberThatProgramsDoNotSkip) {
    put("unseen", "");
    put("unseen2", "");
    const std::uint64_t handle = open_root();
    read(handle, 0, 0);  // the moment is taken
    ASSERT_EQ(::unlink(path("unseen").c_str()), 0);
    ASSERT_EQ(::unlink(path("unseen2").c_str()), 0);
    const Entries all = read_all(
        handle, volume->open_directories.find(handle, instance_of(root()))->reader->place(), [] {});
    EXPECT_EQ(counted(all).size(), 2U);
    for (const auto& entry : all) EXPECT_NE(raw(entry.object), 0U);
}

TEST_F(FuseListing, SeesAnewWhenItIsReadFromTheBeginning) {
    created(10);
    const std::uint64_t handle = open_root();
    read_all(handle);
    create("new");
    EXPECT_EQ(counted(read_all(handle)).count("new"), 1U);
}

TEST_F(FuseListing, ComesBackToEachPlaceItGave) {
    created(1000);
    const std::uint64_t handle = open_root();
    const Entries all = read_all(handle);
    std::vector<std::size_t> order(all.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), std::mt19937{1});
    for (const std::size_t i : order) {
        (void)unlink("message" + std::to_string(i));  // what is listed is the moment all the same
        const Entries behind = read(handle, all[i].next, 1);
        if (i + 1 == all.size())
            EXPECT_TRUE(behind.empty());
        else
            EXPECT_EQ(behind.front().name, all[i + 1].name);
    }
}

TEST_F(FuseListing, IsServedFromAPlaceOfAnEarlierOpeningAlsoIfWhatStoodThereHasGone) {
    const auto names = created(200);
    const std::uint64_t first = open_root();
    const Entries all = read_all(first);
    volume->open_directories.close(first);
    const std::size_t middle = all.size() / 2;
    ASSERT_TRUE(unlink(all[middle + 1].name).ok());
    const Entries rest = read_all(open_root(), all[middle].next, [] {});
    ASSERT_EQ(rest.size(), all.size() - middle - 2);
    EXPECT_EQ(rest.front().name, all[middle + 2].name);
}

TEST_F(FuseListing, IsSharedByWhoReadsADirectoryThatDoesNotChangeAlsoOneAfterTheOther) {
    created(100);
    OpenDirectories& table = volume->open_directories;
    const std::uint64_t first = open_root();
    read_all(first);
    const std::size_t one = table.used_bytes();
    EXPECT_GT(one, 0U);
    const std::uint64_t second = open_root();
    read_all(second);
    EXPECT_EQ(table.used_bytes(), one);
    table.close(first);
    table.close(second);
    read_all(open_root());
    EXPECT_EQ(table.used_bytes(), one);
    create("new");
    EXPECT_EQ(counted(read_all(open_root())).size(), 101U);
}

TEST_F(FuseListing, GivesItsMemoryBackWithItsHandle) {
    created(100);
    OpenDirectories& table = volume->open_directories;
    const std::uint64_t one = open_root();
    read_all(one);
    const std::size_t before = table.used_bytes();
    const std::uint64_t other = open_root();
    create("new");
    read_all(other);  // the newest now
    EXPECT_GT(table.used_bytes(), before);
    table.close(one);
    EXPECT_LT(table.used_bytes(), 2 * before);
    EXPECT_EQ(table.size(), 1U);
}

TEST_F(FuseListing, GivesItsMemoryBackWithItsDirectoryIfTheKernelNeverClosesIt) {
    const ObjectId inner = create("inner", root(), S_IFDIR | 0755);
    OpenDirectories& table = volume->open_directories;
    const std::uint64_t never_closed = table.open(instance_of(inner));
    SomeEntries some{10};
    Turn turn{*journal, Turn::Waiting::kAllowed};
    ASSERT_TRUE(
        list_directory(*volume, turn, {}, inner, never_closed, 0, ListingStyle::kNames, some).ok());
    EXPECT_GT(table.used_bytes(), 0U);
    volume->inodes.forget(inner, 1);
    EXPECT_EQ(table.used_bytes(), 0U);
    EXPECT_EQ(table.size(), 0U);
}

TEST_F(FuseListing, OfManyDirectoriesOnlySomeStayWhenNobodyReadsThemAnyMore) {
    OpenDirectories& table = volume->open_directories;
    std::size_t one = 0;
    for (int i = 0; i < 600; ++i) {
        const ObjectId inner = create("d" + std::to_string(i), root(), S_IFDIR | 0755);
        const std::uint64_t handle = table.open(instance_of(inner));
        SomeEntries some{10};
        Turn turn{*journal, Turn::Waiting::kAllowed};
        ASSERT_TRUE(
            list_directory(*volume, turn, {}, inner, handle, 0, ListingStyle::kNames, some).ok());
        if (one == 0) one = table.used_bytes();
        table.close(handle);
    }
    EXPECT_EQ(table.used_bytes(), 256 * one);
}

// The kernel would not let anybody in meanwhile; here nothing but our own locks does.
TEST_F(FuseListing, IsOneMomentAlsoWhenOthersChangeTheDirectoryWhileItIsTaken) {
    const auto names = created(2000);
    std::atomic<bool> stop{false};
    std::thread other{[&] {
        for (int i = 0; !stop; i = (i + 1) % 2000) {
            const std::string name = "message" + std::to_string(i);
            EXPECT_TRUE(rename(name, "z" + name).ok());
            EXPECT_TRUE(rename("z" + name, name).ok());
        }
    }};
    for (int i = 0; i < 50; ++i) {
        const std::uint64_t handle = open_root();
        std::map<std::string, int> seen;
        for (const auto& [name, count] : counted(read_all(handle)))
            seen[name[0] == 'z' ? name.substr(1) : name] += count;
        EXPECT_EQ(seen, names);
        volume->open_directories.close(handle);
    }
    stop = true;
    other.join();
}

TEST_F(FuseListing, OfARemovedDirectoryIsEmpty) {
    const ObjectId inner = create("inner", root(), S_IFDIR | 0755);
    const std::uint64_t handle = volume->open_directories.open(instance_of(inner));
    ASSERT_TRUE(call(remove_name, root(), "inner", Removed::kDirectory).ok());
    SomeEntries some{10};
    Turn turn{*journal, Turn::Waiting::kAllowed};
    const Answered answered =
        list_directory(*volume, turn, {}, inner, handle, 0, ListingStyle::kNames, some);
    EXPECT_TRUE(answered.ok());
    EXPECT_TRUE(some.entries.empty());
}

TEST_F(FuseListing, ThatHasToReadTheDirectoryDoesNotDoSoWhereNobodyMayWait) {
    created(3);
    const std::uint64_t handle = open_root();
    SomeEntries some{10};
    Turn turn{*journal, Turn::Waiting::kForbidden};
    const Answered busy =
        list_directory(*volume, turn, {}, root(), handle, 0, ListingStyle::kNames, some);
    ASSERT_FALSE(busy.ok());
    EXPECT_TRUE(Ending{busy.error().code}.is_busy());
    const Entries first = read(handle, 0, 1);
    EXPECT_TRUE(list_directory(*volume, turn, {}, root(), handle, first.back().next,
                               ListingStyle::kNames, some)
                    .ok());
}

TEST_F(FuseListing, ComesBackToItsMomentFromAPlaceThatIsNotOfIt) {
    created(500);
    const std::uint64_t handle = open_root();
    const Entries first = read(handle, 0, 100);
    for (int i = 0; i < 500; i += 2) {
        const std::string name = "message" + std::to_string(i);
        ASSERT_TRUE(rename(name, "z" + name).ok());
    }
    (void)read(handle, 12345, 1);
    Entries all = first;
    const Entries rest = read_all(handle, first.back().next, [] {});
    all.insert(all.end(), rest.begin(), rest.end());
    EXPECT_EQ(counted(all).size(), 500U);
    EXPECT_EQ(counted(all).count("zmessage0"), 0U);
}

TEST_F(FuseListing, FromTheMiddleOfADirectoryThatDoesNotChangeIsSharedToo) {
    created(500);
    const std::uint64_t first = open_root();
    const Entries all = read_all(first);
    volume->open_directories.close(first);
    const std::size_t one = volume->open_directories.used_bytes();
    for (std::size_t i = 0; i < all.size(); i += 50) {
        const std::uint64_t handle = open_root();
        EXPECT_EQ(read_all(handle, all[i].next, [] {}).size(), all.size() - i - 1);
        EXPECT_EQ(volume->open_directories.used_bytes(), one);
    }
}

// What the successor of a forgotten Inode has open must not be closed, nor shown the past.
TEST_F(FuseListing, OfAnInodeThatIsForgottenIsNotThatOfItsSuccessor) {
    const ObjectId inner = create("inner", root(), S_IFDIR | 0755);
    OpenDirectories& table = volume->open_directories;
    const std::uint64_t before = instance_of(inner);
    volume->inodes.forget(inner, 1);
    ASSERT_FALSE(volume->inodes.find(inner));
    look("inner");
    const std::uint64_t after = instance_of(inner);
    EXPECT_NE(before, after);
    table.open(after);
    table.forget(before);
    EXPECT_EQ(table.size(), 1U);
}

TEST_F(FuseListing, DoesNotShowWhereSomethingIsMountedButAllTheOthers) {
    created(50);
    ASSERT_EQ(::mkdir(path("inner").c_str(), 0755), 0);
    ASSERT_EQ(::mount("none", path("inner").c_str(), "tmpfs", 0, nullptr), 0);
    const auto seen = counted(read_all(open_root()));
    EXPECT_EQ(::umount2(path("inner").c_str(), MNT_DETACH), 0);
    EXPECT_EQ(seen.size(), 50U);
    EXPECT_EQ(seen.count("inner"), 0U);
}

class DirectoryMoments : public FuseTest {
   protected:
    std::shared_ptr<const DirectoryMoment> moment_of_tree(DirectoryMoment::Taken taken) {
        const Fd fd{::open(tree.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
        auto moment = DirectoryMoment::read(fd.get(), taken, used);
        EXPECT_TRUE(moment.ok());
        return moment.ok() ? *moment : nullptr;
    }
    void fill(int count) {
        for (int i = 0; i < count; ++i)
            ASSERT_EQ(::mknod(path("file" + std::to_string(i)).c_str(), S_IFREG | 0600, 0), 0);
    }
    static Words names_of(DirectoryMoment::Reader& reader) {
        Words names;
        for (; const auto entry = reader.peek(); reader.skip()) names.emplace_back(entry->name);
        return names;
    }
    std::atomic<std::size_t> used{0};
};

TEST_F(DirectoryMoments, OfADirectoryThatIsTooLargeAreSeveral) {
    fill(10'000);
    const auto all = moment_of_tree({});
    EXPECT_FALSE(all->is_cut());
    DirectoryMoment::Reader reader{all};
    const Words names = names_of(reader);
    EXPECT_EQ(names.size(), 10'002U);

    Words found;
    std::int64_t place = 0;
    int parts = 0;
    for (bool more = true; more; ++parts) {
        const auto part = moment_of_tree({.place = place, .most_bytes = 200'000});
        more = part->is_cut();
        DirectoryMoment::Reader of_part{part};
        for (const std::string& name : names_of(of_part)) found.push_back(name);
        place = of_part.place();
        // Its end is where another moment goes on.
        DirectoryMoment::Reader again{part};
        EXPECT_EQ(again.seek(place), !more);
    }
    EXPECT_GE(parts, 3);
    EXPECT_EQ(found, names);
}

TEST_F(DirectoryMoments, GiveTheirMemoryBack) {
    fill(100);
    auto moment = moment_of_tree({});
    EXPECT_EQ(used, moment->memory_bytes());
    EXPECT_GT(used, 0U);
    moment.reset();
    EXPECT_EQ(used, 0U);
}

TEST_F(DirectoryMoments, GoWithTheReaderThatHasNotComeBackForLongestWhenThereAreTooMany) {
    fill(1000);
    const std::size_t one = moment_of_tree({})->memory_bytes();
    OpenDirectories table{3 * one + one / 2};
    std::vector<std::shared_ptr<OpenDirectory>> open;
    for (std::uint64_t instance = 1; instance <= 6; ++instance) {
        open.push_back(table.find(table.open(instance), instance));
        const std::lock_guard lock{open.back()->mutex};
        const Fd fd{::open(tree.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
        auto moment = DirectoryMoment::read(fd.get(), {}, table.used_bytes());
        ASSERT_TRUE(moment.ok());
        open.back()->reader.emplace(std::move(*moment));
        table.make_room(*open.back());
        EXPECT_LE(table.used_bytes(), 3 * one + one / 2);
    }
    for (std::size_t i = 0; i < open.size(); ++i) EXPECT_EQ(open[i]->reader.has_value(), i >= 3);
}

}  // namespace
}  // namespace twinspool::test
