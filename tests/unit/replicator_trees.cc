// SPDX-License-Identifier: Apache-2.0
#include "replicator_trees.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "journal/base/fd.h"
#include "journal/base/result.h"

namespace twinspool::test {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kHole = 65536;
constexpr unsigned kNoDevice = 4000;  // a major number that is nobody's

std::string content_of(const std::string& path, const struct stat& status) {
    const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
    TS_ASSERT(::pread(fd.get(), bytes.data(), bytes.size(), 0) == status.st_size);
    std::string holes;
    for (std::size_t at = 0; at + kHole <= bytes.size(); at += kHole) {
        const off_t data = ::lseek(fd.get(), static_cast<off_t>(at), SEEK_DATA);
        holes += data < 0 || static_cast<std::size_t>(data) >= at + kHole ? 'h' : 'd';
    }
    return fmt::format("{:x} {}", std::hash<std::string>{}(bytes), holes);
}

std::string xattrs_of(const std::string& path) {
    char names[4096];
    std::map<std::string, std::string> found;
    const ssize_t size = ::llistxattr(path.c_str(), names, sizeof names);
    for (ssize_t at = 0; at < size;) {
        const std::string name{names + at};
        at += static_cast<ssize_t>(name.size()) + 1;
        char value[4096];
        const ssize_t length = ::lgetxattr(path.c_str(), name.c_str(), value, sizeof value);
        TS_ASSERT(length >= 0);
        for (ssize_t i = 0; i < length; ++i)
            found[name] += fmt::format("{:02x}", static_cast<unsigned char>(value[i]));
    }
    std::string text;
    for (const auto& [name, value] : found) text += fmt::format(" {}={}", name, value);
    return text;
}

// u::rwx,u:1234:rX,g::r,m::rwx,o::X in the kernel's form.
std::string acl(char other) {
    std::string value("\2\0\0\0", 4);
    const auto entry = [&](int tag, int permissions, std::uint32_t id) {
        value += static_cast<char>(tag);
        value += '\0';
        value += static_cast<char>(permissions);
        value += '\0';
        for (int i = 0; i < 4; ++i) value += static_cast<char>(id >> (8 * i));
    };
    entry(1, 7, ~0U);
    entry(2, other, 1234);
    entry(4, 4, ~0U);
    entry(16, 7, ~0U);
    entry(32, other, ~0U);
    return value;
}

}  // namespace

Picture picture(const std::string& directory) {
    Picture found;
    std::map<ino_t, std::string> first;
    const auto look = [&](const std::string& path) {
        struct stat status {};
        TS_ASSERT(::lstat(path.c_str(), &status) == 0);
        std::string name = path.substr(std::min(path.size(), directory.size() + 1));
        std::string text =
            fmt::format("{:o} {}:{} {}.{:09} {:x}", status.st_mode, status.st_uid, status.st_gid,
                        status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_rdev);
        if (!S_ISDIR(status.st_mode))
            text += " = " + first.emplace(status.st_ino, name).first->second;
        if (S_ISREG(status.st_mode))
            text += fmt::format(" {} {}", status.st_size, content_of(path, status));
        if (S_ISLNK(status.st_mode)) text += " -> " + fs::read_symlink(path).string();
        found[std::move(name)] = text + xattrs_of(path);
    };
    look(directory);
    std::vector<std::string> paths;
    for (const auto& each : fs::recursive_directory_iterator{directory})
        paths.push_back(each.path());
    std::sort(paths.begin(), paths.end());
    for (const auto& path : paths) look(path);
    return found;
}

std::string difference(const Picture& a, const Picture& b) {
    std::string text;
    for (const auto& [name, what] : a)
        if (const auto at = b.find(name); at == b.end() || at->second != what)
            text += fmt::format("{}\n  {}\n  {}\n", name, what,
                                at == b.end() ? "is not there" : at->second);
    for (const auto& [name, what] : b)
        if (!a.contains(name)) text += fmt::format("{}\n  is not there\n  {}\n", name, what);
    return text;
}

std::string Gardener::name() {
    static const std::vector<std::string> kOdd{"new\nline", "\xff\xfe",    std::string(255, 'l'),
                                               " ",         "back\\slash", "ünï"};
    if (below(8) == 0) return kOdd[below(kOdd.size())];
    return fmt::format("n{}", below(9));
}

std::string Gardener::folder(const std::string& directory) {
    std::vector<std::string> folders{directory};
    for (const auto& each : fs::recursive_directory_iterator{directory})
        if (!each.is_symlink() && each.is_directory()) folders.push_back(each.path());
    std::sort(folders.begin(), folders.end());
    return folders[below(folders.size())];
}

std::string Gardener::something(const std::string& directory) {
    std::vector<std::string> all;
    for (const auto& each : fs::recursive_directory_iterator{directory}) all.push_back(each.path());
    std::sort(all.begin(), all.end());
    return all.empty() ? directory : all[below(all.size())];
}

void Gardener::make_file(const std::string& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) return;
    const Fd fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644)};
    TS_ASSERT(fd.valid());
    std::string bytes(below(3) == 0 ? below(200000) : below(40), static_cast<char>(random_()));
    const auto offset = static_cast<off_t>(below(4) == 0 ? below(20) * kHole : below(10));
    TS_ASSERT(::pwrite(fd.get(), bytes.data(), bytes.size(), offset) >= 0);
    if (below(6) == 0) TS_ASSERT(::ftruncate(fd.get(), static_cast<off_t>(below(30) * kHole)) == 0);
}

void Gardener::make(const std::string& path) {
    switch (below(10)) {
        case 0:
        case 1:
        case 2:
            (void)::mkdir(path.c_str(), 0755);
            break;
        case 3:
            (void)::symlink(name().c_str(), path.c_str());
            break;
        case 4:
            (void)::mkfifo(path.c_str(), 0600);
            break;
        case 5:
            (void)::mknod(path.c_str(), (below(2) == 0 ? S_IFCHR : S_IFBLK) | 0640,
                          makedev(kNoDevice, static_cast<unsigned>(below(9))));
            break;
        case 6:
            (void)::mknod(path.c_str(), S_IFSOCK | 0600, 0);
            break;
        default:
            make_file(path);
    }
}

void Gardener::dress(const std::string& path) {
    switch (below(7)) {
        case 0:
            TS_ASSERT(::lchown(path.c_str(), static_cast<uid_t>(below(3)),
                               static_cast<gid_t>(below(3))) == 0);
            break;
        case 1:
            (void)::fchmodat(AT_FDCWD, path.c_str(), static_cast<mode_t>(below(010000)) | 0500,
                             AT_SYMLINK_NOFOLLOW);
            break;
        case 2:
            (void)::lsetxattr(path.c_str(), "user.note", "12345678", 1 + below(8), 0);
            break;
        case 3:
            (void)::lremovexattr(path.c_str(), "user.note");
            break;
        case 4: {
            const std::string value = acl(static_cast<char>(below(8)));
            (void)::lsetxattr(
                path.c_str(),
                below(2) == 0 ? "system.posix_acl_access" : "system.posix_acl_default",
                value.data(), value.size(), 0);
            break;
        }
        case 5: {
            // cap_net_raw, as setcap writes it
            static constexpr char kValue[] = "\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0";
            (void)::lsetxattr(path.c_str(), "security.capability", kValue, 20, 0);
            break;
        }
        default: {
            const timespec times[2]{{.tv_sec = 0, .tv_nsec = UTIME_OMIT},
                                    {.tv_sec = static_cast<time_t>(below(2000000000)),
                                     .tv_nsec = static_cast<long>(below(1000000000))}};
            TS_ASSERT(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0);
        }
    }
}

void Gardener::work(const std::string& directory, int steps) {
    for (; steps > 0; --steps) {
        const std::string place = folder(directory) + "/" + name();
        const std::string other = something(directory);
        switch (below(12)) {
            case 0:
                if (other != directory) fs::remove_all(other);
                break;
            case 1:
            case 2:
                (void)::linkat(AT_FDCWD, other.c_str(), AT_FDCWD, place.c_str(), 0);
                break;
            case 3:
                (void)::rename(other.c_str(), place.c_str());
                break;
            case 4:
            case 5:
            case 6:
                dress(other);
                break;
            default:
                make(place);
        }
    }
}

}  // namespace twinspool::test
