// SPDX-License-Identifier: Apache-2.0
// A mounted view of a plain directory is that directory, for every way to look at it.
#include "fuse/view/view_fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <set>
#include <thread>

#include "fuse/kernel/mount.h"
#include "tests/unit/journal_support.h"
#include "tests/unit/plain_image.h"

namespace twinspool::test {
namespace {

constexpr uid_t kStranger = 1234;

// The plain directory with some of its subdirectories as the volume's, and a switch that breaks it.
class ManyRoots final : public PlainImage {
   public:
    explicit ManyRoots(const std::string& directory) : PlainImage(directory, directory) {}
    void add(const std::string& subdirectory, std::string path) {
        ObjectId object = PlainImage::roots().front().object;
        for (const auto& part : std::filesystem::path{subdirectory})
            object = *find(object, part.string());
        roots_.push_back({.path = std::move(path), .object = object});
    }
    [[nodiscard]] const std::vector<ImageRoot>& roots() const override { return roots_; }
    Result<ImageAttributes> attributes(ObjectId object) override {
        if (broken) return given_up();
        return PlainImage::attributes(object);
    }
    Result<ObjectId> find(ObjectId directory, std::string_view name) override {
        if (broken) return given_up();
        return PlainImage::find(directory, name);
    }
    Result<std::vector<ImageEntry>> list(ObjectId directory) override {
        ++listed;
        if (broken) return given_up();
        return PlainImage::list(directory);
    }
    Result<std::size_t> read(ObjectId file, std::uint64_t offset,
                             std::span<std::byte> into) override {
        if (broken) return given_up();
        return PlainImage::read(file, offset, into);
    }

    std::atomic<bool> broken{false};
    std::atomic<int> listed{0};

   private:
    static Error given_up() { return make_error(EIO, "read a snapshot that was given up"); }
    std::vector<ImageRoot> roots_;
};

// Who the thread is for file systems; its capabilities go with it.
class ActingAs {
   public:
    explicit ActingAs(uid_t uid) { ::setfsgid(uid), ::setfsuid(uid); }
    ~ActingAs() { ::setfsuid(0), ::setfsgid(0); }
    ActingAs(const ActingAs&) = delete;
    ActingAs& operator=(const ActingAs&) = delete;
};

std::string content_of(const std::string& path) {
    std::ifstream file{path, std::ios::binary};
    return {std::istreambuf_iterator<char>{file}, {}};
}

std::map<std::string, std::string> xattrs_of(const std::string& path) {
    std::map<std::string, std::string> found;
    std::string names(65536, '\0');
    const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
    for (ssize_t at = 0; at < size;) {
        const std::string name{names.c_str() + at};
        at += static_cast<ssize_t>(name.size()) + 1;
        std::string value(65536, '\0');
        const ssize_t length = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
        value.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
        found[name] = length < 0 ? std::strerror(errno) : value;
    }
    return found;
}

std::set<std::string> names_in(const std::string& path) {
    std::set<std::string> names;
    for (const auto& each : std::filesystem::directory_iterator{path})
        EXPECT_TRUE(names.insert(each.path().filename()).second) << "listed twice";
    return names;
}

// The data ranges of a file, as SEEK_DATA and SEEK_HOLE tell them.
std::vector<std::pair<off_t, off_t>> ranges_of(const std::string& path) {
    std::vector<std::pair<off_t, off_t>> ranges;
    const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    for (off_t at = 0;;) {
        const off_t data = ::lseek(fd.get(), at, SEEK_DATA);
        if (data < 0) return ranges;
        at = ::lseek(fd.get(), data, SEEK_HOLE);
        ranges.emplace_back(data, at);
    }
}

void expect_same(const std::string& ours, const std::string& theirs) {
    SCOPED_TRACE(ours);
    struct stat a {};
    struct stat b {};
    ASSERT_EQ(::lstat(ours.c_str(), &a), 0) << std::strerror(errno);
    ASSERT_EQ(::lstat(theirs.c_str(), &b), 0);
    EXPECT_EQ(a.st_mode, b.st_mode);
    EXPECT_EQ(a.st_uid, b.st_uid);
    EXPECT_EQ(a.st_gid, b.st_gid);
    EXPECT_EQ(a.st_ino, b.st_ino);
    EXPECT_EQ(a.st_size, b.st_size);
    EXPECT_EQ(a.st_rdev, b.st_rdev);
    EXPECT_EQ(a.st_mtim.tv_sec, b.st_mtim.tv_sec);
    EXPECT_EQ(a.st_mtim.tv_nsec, b.st_mtim.tv_nsec);
    if (!S_ISDIR(a.st_mode)) {
        EXPECT_EQ(a.st_nlink, b.st_nlink);
    }
    EXPECT_EQ(xattrs_of(ours), xattrs_of(theirs));
    if (S_ISLNK(a.st_mode)) {
        EXPECT_EQ(std::filesystem::read_symlink(ours), std::filesystem::read_symlink(theirs));
    }
    if (S_ISREG(a.st_mode)) {
        EXPECT_TRUE(content_of(ours) == content_of(theirs));
        EXPECT_EQ(ranges_of(ours), ranges_of(theirs));
        EXPECT_EQ(a.st_blocks * 512 < a.st_size, b.st_blocks * 512 < b.st_size);
    }
    if (!S_ISDIR(a.st_mode)) return;
    const auto names = names_in(ours);
    EXPECT_EQ(names, names_in(theirs));
    for (const auto& name : names)
        expect_same(fmt::format("{}/{}", ours, name), fmt::format("{}/{}", theirs, name));
}

// u::rw,u:user:r,g::-,m::r,o::- in the kernel's form.
std::string acl_for(uid_t user) {
    struct Entry {
        std::uint16_t tag;
        std::uint16_t permissions;
        std::uint32_t id;
    };
    const Entry entries[] = {{1, 6, ~0U}, {2, 4, user}, {4, 0, ~0U}, {16, 4, ~0U}, {32, 0, ~0U}};
    const std::uint32_t version = 2;
    std::string value(sizeof version + sizeof entries, '\0');
    std::memcpy(value.data(), &version, sizeof version);
    std::memcpy(value.data() + sizeof version, entries, sizeof entries);
    return value;
}

class FuseView : public testing::Test {
   protected:
    void SetUp() override {
        if (::geteuid() != 0) GTEST_SKIP() << "needs root";
        std::filesystem::permissions(folder.path(), std::filesystem::perms{0755});
        for (const auto& path : {source, mountpoint}) std::filesystem::create_directory(path);
        std::filesystem::create_directories(source + "/mail");
        image.emplace(source);
    }
    void show() {
        if (image->roots().empty()) image->add("mail", "/var/spool/mail");
        auto mounted = View::mount(
            {.mountpoint = mountpoint, .source = "vol@noon", .disk = folder.path()}, *image);
        ASSERT_TRUE(mounted.ok()) << mounted.error().text();
        view = std::move(*mounted);
    }
    void write(const std::string& name, const std::string& content, mode_t mode = 0644) {
        std::ofstream{mail(name), std::ios::binary} << content;
        ASSERT_EQ(::chmod(mail(name).c_str(), mode), 0);
    }
    [[nodiscard]] std::string mail(const std::string& name) const {
        return source + "/mail/" + name;
    }
    [[nodiscard]] std::string shown(const std::string& name = "") const {
        return mountpoint + "/var/spool/mail" + (name.empty() ? "" : "/" + name);
    }

    FreshFolder folder;
    const std::string source = folder.path() + "/source";
    const std::string mountpoint = folder.path() + "/mountpoint";
    std::optional<ManyRoots> image;
    std::unique_ptr<View> view;
};

TEST_F(FuseView, IsTheDirectory) {
    write("empty", "");
    write("small", "one message", 04751);
    write("large", std::string(3'000'001, 'x') + std::string(70'000, 'y'), 0600);
    ASSERT_EQ(::chown(mail("large").c_str(), kStranger, 77), 0);
    ASSERT_EQ(::symlink("../somewhere/else", mail("symlink").c_str()), 0);
    ASSERT_EQ(::symlink(std::string(4095, 'l').c_str(), mail("longest").c_str()), 0);
    ASSERT_EQ(::mknod(mail("pipe").c_str(), S_IFIFO | 0640, 0), 0);
    ASSERT_EQ(::mknod(mail("null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
    ASSERT_EQ(::mknod(mail("disk").c_str(), S_IFBLK | 0600, makedev(259, 70'000)), 0);
    ASSERT_EQ(::mknod(mail("socket").c_str(), S_IFSOCK | 0600, 0), 0);
    std::filesystem::create_directories(mail("Maildir/new/deep/er"));
    ASSERT_EQ(::chmod(mail("Maildir/new").c_str(), 03770), 0);
    std::filesystem::create_hard_link(mail("small"), mail("Maildir/new/small"));
    write("old", "before 1970");
    const timespec times[] = {{.tv_sec = -77, .tv_nsec = 5}, {.tv_sec = -77, .tv_nsec = 123456789}};
    ASSERT_EQ(::utimensat(AT_FDCWD, mail("old").c_str(), times, 0), 0);
    for (const char* name : {"user.colour", "trusted.secret", "security.other"})
        ASSERT_EQ(::setxattr(mail("large").c_str(), name, "\0blue", 5, 0), 0);
    const auto acl = acl_for(kStranger);
    ASSERT_EQ(
        ::setxattr(mail("small").c_str(), "system.posix_acl_access", acl.data(), acl.size(), 0), 0);
    ASSERT_EQ(
        ::setxattr(mail("Maildir").c_str(), "system.posix_acl_default", acl.data(), acl.size(), 0),
        0);
    show();
    expect_same(shown(), source + "/mail");
}

TEST_F(FuseView, NamesAreBytes) {
    const std::set<std::string> names{
        "new\nline", "\xff\xfe not UTF-8", std::string(255, 'n'), "\\", " ", "...", "\x01"};
    for (const auto& name : names) write(name, name);
    show();
    expect_same(shown(), source + "/mail");
    EXPECT_EQ(names_in(shown()), names);
    struct stat status {};
    EXPECT_EQ(::lstat(shown(std::string(256, 'n')).c_str(), &status), -1);
    EXPECT_EQ(errno, ENAMETOOLONG);
    EXPECT_EQ(::lstat(shown("absent").c_str(), &status), -1);
    EXPECT_EQ(errno, ENOENT);
}

TEST_F(FuseView, HolesAreHoles) {
    for (const char* name : {"sparse", "ends in a hole", "begins with one", "nothing else"})
        write(name, "");
    constexpr std::pair<const char*, off_t> kPieces[] = {{"sparse", 0},
                                                         {"sparse", 1 << 20},
                                                         {"sparse", 5 << 20},
                                                         {"ends in a hole", 4096},
                                                         {"begins with one", 10 << 20}};
    const std::string piece(100'000, 'd');
    for (const auto& [name, offset] : kPieces) {
        const Fd fd{::open(mail(name).c_str(), O_WRONLY | O_CLOEXEC)};
        ASSERT_EQ(::pwrite(fd.get(), piece.data(), piece.size(), offset), 100'000);
    }
    ASSERT_EQ(::truncate(mail("ends in a hole").c_str(), 3 << 20), 0);
    ASSERT_EQ(::truncate(mail("nothing else").c_str(), off_t{1} << 40), 0);
    show();
    struct stat status {};
    ASSERT_EQ(::stat(shown("nothing else").c_str(), &status), 0);
    EXPECT_EQ(status.st_size, off_t{1} << 40);
    EXPECT_EQ(status.st_blocks, 0);
    EXPECT_TRUE(ranges_of(shown("nothing else")).empty());
    std::filesystem::remove(mail("nothing else"));
    for (const char* name : {"sparse", "ends in a hole", "begins with one"})
        expect_same(shown(name), mail(name));
}

TEST_F(FuseView, AFileWithVeryManyHolesIsSparse) {
    write("file", "");
    const Fd fd{::open(mail("file").c_str(), O_WRONLY | O_CLOEXEC)};
    for (off_t at = 0; at < 3000; ++at) ASSERT_EQ(::pwrite(fd.get(), "x", 1, at * 4 * 4096), 1);
    show();
    struct stat status {};
    ASSERT_EQ(::stat(shown("file").c_str(), &status), 0);
    EXPECT_NEAR(static_cast<double>(status.st_blocks) * 512, 3000 * 4096, 100 * 4096);
    EXPECT_EQ(ranges_of(shown("file")), ranges_of(mail("file")));
}

TEST_F(FuseView, ALargeDirectoryIsListedOnce) {
    constexpr int kEntries = 20'000;
    for (int i = 0; i < kEntries; ++i) {
        const Fd fd{::open(mail("message " + std::to_string(i)).c_str(), O_CREAT | O_WRONLY, 0600)};
        ASSERT_TRUE(fd.valid());
    }
    show();
    EXPECT_EQ(names_in(shown()), names_in(source + "/mail"));
    EXPECT_EQ(image->listed, 1);
    // Somebody who goes back to where he was reads the same again.
    DIR* const open = ::opendir(shown().c_str());
    for (int i = 0; i < 12'000; ++i) ASSERT_NE(::readdir(open), nullptr);
    const long place = ::telldir(open);
    const std::string next = ::readdir(open)->d_name;
    ::rewinddir(open);
    EXPECT_STREQ(::readdir(open)->d_name, ".");
    ::seekdir(open, place);
    EXPECT_EQ(::readdir(open)->d_name, next);
    ::closedir(open);
}

TEST_F(FuseView, DirectoriesStandAtTheirFullPaths) {
    std::filesystem::create_directories(source + "/lib/db");
    std::filesystem::create_directories(source + "/lib/dbx");
    std::ofstream{source + "/lib/db/table"} << "rows";
    image->add("mail", "/var/spool/mail");
    image->add("lib/db", "/var/lib/db");
    image->add("lib/dbx", "/var/lib/dbx");
    std::filesystem::create_directory(source + "/srv");
    image->add("srv", "/srv");
    show();
    using Names = std::set<std::string>;
    EXPECT_EQ(names_in(mountpoint), (Names{"var", "srv"}));
    EXPECT_EQ(names_in(mountpoint + "/var"), (Names{"spool", "lib"}));
    EXPECT_EQ(names_in(mountpoint + "/var/lib"), (Names{"db", "dbx"}));
    EXPECT_EQ(content_of(mountpoint + "/var/lib/db/table"), "rows");
    std::set<ino_t> numbers;
    for (const char* path : {"", "/var", "/var/lib", "/var/spool"}) {
        struct stat status {};
        ASSERT_EQ(::stat((mountpoint + path).c_str(), &status), 0);
        EXPECT_EQ(status.st_mode, S_IFDIR | 0555U);
        EXPECT_EQ(status.st_uid, 0U);
        EXPECT_TRUE(numbers.insert(status.st_ino).second);
    }
    EXPECT_EQ(::access((mountpoint + "/var/lib/no").c_str(), F_OK), -1);
    EXPECT_EQ(errno, ENOENT);
    EXPECT_TRUE(xattrs_of(mountpoint + "/var").empty());
}

TEST_F(FuseView, NoDirectoryOfAVolumeIsWithinAnother) {
    image->add("mail", "/var/mail");
    for (const char* path :
         {"/var/mail", "/var/mail/x", "/var", "relative", "/", "/a//b", "/a/.."}) {
        ManyRoots nested{source};
        nested.add("mail", "/var/mail");
        nested.add("mail", path);
        const auto refused = View::mount(
            {.mountpoint = mountpoint, .source = "vol@noon", .disk = folder.path()}, nested);
        ASSERT_FALSE(refused.ok()) << path;
        EXPECT_EQ(refused.error().code, EINVAL);
    }
    EXPECT_TRUE(names_in(mountpoint).empty());
}

TEST_F(FuseView, NothingCanBeChanged) {
    write("file", "content", 0666);
    show();
    const auto path = shown("file");
    const auto refused = [](int result) { return result == -1 && errno == EROFS; };
    EXPECT_TRUE(refused(::open(path.c_str(), O_WRONLY | O_CLOEXEC)));
    EXPECT_TRUE(refused(::open(path.c_str(), O_RDONLY | O_TRUNC | O_CLOEXEC)));
    EXPECT_TRUE(refused(::open(shown("new").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)));
    EXPECT_TRUE(refused(::truncate(path.c_str(), 0)));
    EXPECT_TRUE(refused(::unlink(path.c_str())));
    EXPECT_TRUE(refused(::rename(path.c_str(), shown("new").c_str())));
    EXPECT_TRUE(refused(::link(path.c_str(), shown("new").c_str())));
    EXPECT_TRUE(refused(::symlink("x", shown("new").c_str())));
    EXPECT_TRUE(refused(::mkdir(shown("new").c_str(), 0700)));
    EXPECT_TRUE(refused(::mkdir((mountpoint + "/new").c_str(), 0700)));
    EXPECT_TRUE(refused(::mknod(shown("new").c_str(), S_IFIFO | 0600, 0)));
    EXPECT_TRUE(refused(::chmod(path.c_str(), 0600)));
    EXPECT_TRUE(refused(::chown(path.c_str(), 1, 1)));
    EXPECT_TRUE(refused(::utimensat(AT_FDCWD, path.c_str(), nullptr, 0)));
    EXPECT_TRUE(refused(::setxattr(path.c_str(), "user.x", "y", 1, 0)));
    EXPECT_TRUE(refused(::removexattr(path.c_str(), "user.x")));
    EXPECT_EQ(content_of(path), "content");
    expect_same(shown(), source + "/mail");
}

TEST_F(FuseView, PermissionsHold) {
    write("root's", "secret", 0600);
    write("everybody's", "open", 0644);
    write("the stranger's by ACL", "shared", 0600);
    ASSERT_EQ(::setxattr(mail("everybody's").c_str(), "trusted.x", "y", 1, 0), 0);
    const auto acl = acl_for(kStranger);
    ASSERT_EQ(::setxattr(mail("the stranger's by ACL").c_str(), "system.posix_acl_access",
                         acl.data(), acl.size(), 0),
              0);
    std::filesystem::create_directory(mail("closed"));
    ASSERT_EQ(::chmod(mail("closed").c_str(), 0700), 0);
    write("closed/within", "x", 0644);
    ASSERT_EQ(::mknod(mail("null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
    show();
    const auto opens = [&](const char* name) {
        return Fd{::open(shown(name).c_str(), O_RDONLY | O_CLOEXEC)}.valid() ? 0 : errno;
    };
    EXPECT_EQ(opens("null"), EACCES);  // seen, but no way to a device
    {
        const ActingAs stranger{kStranger};
        EXPECT_EQ(opens("root's"), EACCES);
        EXPECT_EQ(opens("everybody's"), 0);
        EXPECT_EQ(opens("the stranger's by ACL"), 0);
        EXPECT_EQ(opens("closed/within"), EACCES);
        EXPECT_EQ(opens("closed"), EACCES);
        EXPECT_TRUE(xattrs_of(shown("everybody's")).empty());
    }
    const ActingAs other{kStranger + 1};
    EXPECT_EQ(opens("the stranger's by ACL"), EACCES);
}

TEST_F(FuseView, AFailedImageIsAnError) {
    write("cached", "read before");
    write("seen", "looked at, not read");
    write("unseen", "x");
    show();
    EXPECT_EQ(content_of(shown("cached")), "read before");
    struct stat status {};
    EXPECT_EQ(::stat(shown("seen").c_str(), &status), 0);
    image->broken = true;
    EXPECT_EQ(content_of(shown("cached")), "read before");
    char byte = 0;
    const Fd fd{::open(shown("seen").c_str(), O_RDONLY | O_CLOEXEC)};
    EXPECT_EQ(::read(fd.get(), &byte, 1), -1);
    EXPECT_EQ(errno, EIO);
    EXPECT_EQ(::stat(shown("unseen").c_str(), &status), -1);
    EXPECT_EQ(errno, EIO);
    DIR* const open = ::opendir(shown().c_str());
    ASSERT_NE(open, nullptr);
    errno = 0;
    EXPECT_EQ(::readdir(open), nullptr);
    EXPECT_EQ(errno, EIO);
    ::closedir(open);
}

TEST_F(FuseView, ShowsWhoseItIs) {
    show();
    std::ifstream table{"/proc/self/mountinfo"};
    std::string line;
    std::string found;
    while (std::getline(table, line))
        if (line.find(" " + mountpoint + " ") != std::string::npos) found = line;
    EXPECT_NE(found.find(" - fuse.twinspool-view vol@noon ro,"), std::string::npos) << found;
    EXPECT_NE(found.find("ro,nosuid,nodev"), std::string::npos) << found;
    struct statvfs space {};
    struct statvfs disk {};
    ASSERT_EQ(::statvfs(shown().c_str(), &space), 0);
    ASSERT_EQ(::statvfs(folder.path().c_str(), &disk), 0);
    EXPECT_EQ(space.f_blocks * space.f_frsize, disk.f_blocks * disk.f_frsize);
    EXPECT_EQ(space.f_namemax, 255U);
}

TEST_F(FuseView, EndsWhenItIsUnmounted) {
    write("file", "x");
    show();
    std::atomic<bool> ended{false};
    std::thread waiting{[&] {
        view->wait();
        ended = true;
    }};
    {
        const Fd open{::open(shown("file").c_str(), O_RDONLY | O_CLOEXEC)};
        EXPECT_EQ(::umount2(mountpoint.c_str(), 0), -1);
        EXPECT_EQ(errno, EBUSY);
        EXPECT_TRUE(detach_fuse(mountpoint, view->device()).ok());
        EXPECT_TRUE(names_in(mountpoint).empty());
        char byte = 0;
        EXPECT_EQ(::read(open.get(), &byte, 1), 1) << "who has a file open keeps it";
        EXPECT_FALSE(ended);
        EXPECT_FALSE(detach_fuse(mountpoint, view->device()).ok()) << "it is not there";
    }
    waiting.join();
    EXPECT_TRUE(ended);
}

TEST_F(FuseView, ManyReadersAtOnce) {
    std::string content;
    for (int i = 0; content.size() < 8'000'000; ++i) content += std::to_string(i * 7919) + "\n";
    write("file", content);
    show();
    std::vector<std::thread> readers;
    std::atomic<int> right{0};
    readers.reserve(12);
    for (int reader = 0; reader < 12; ++reader)
        readers.emplace_back([&, reader] {
            const Fd fd{
                ::open(shown("file").c_str(), O_RDONLY | O_CLOEXEC | (reader % 2 ? O_DIRECT : 0))};
            alignas(4096) static thread_local char buffer[1 << 16];
            for (std::size_t i = 0; i < 100; ++i) {
                const std::size_t at = (i * 37 + static_cast<std::size_t>(reader)) % 120 << 16;
                const ssize_t got =
                    ::pread(fd.get(), buffer, sizeof buffer, static_cast<off_t>(at));
                if (got == sizeof buffer &&
                    content.compare(at, sizeof buffer, buffer, sizeof buffer) == 0)
                    ++right;
            }
        });
    for (auto& reader : readers) reader.join();
    EXPECT_EQ(right, 1200);
}

}  // namespace
}  // namespace twinspool::test
