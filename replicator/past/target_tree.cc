// SPDX-License-Identifier: Apache-2.0
#include "replicator/past/target_tree.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "journal/base/handle.h"
#include "journal/delta/tree.h"

namespace twinspool {
namespace {

constexpr mode_t kPrivateDirectory = 0700;
constexpr mode_t kPrivateFile = 0600;
constexpr std::string_view kKernelsOwn = "security.";  // labels that a policy gives to each object
constexpr std::string_view kCapability = "security.capability";

Result<Fd> open_at(int directory, const std::string& name, int flags) {
    open_how how{};
    how.flags = static_cast<std::uint64_t>(flags | O_NOFOLLOW | O_CLOEXEC);
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
    for (;;) {
        Fd fd{static_cast<int>(::syscall(SYS_openat2, directory, name.c_str(), &how, sizeof how))};
        if (fd.valid()) return fd;
        // EAGAIN: something was renamed or mounted somewhere meanwhile.
        if (errno != EINTR && errno != EAGAIN) return make_error(errno, "open it");
    }
}

bool same_mtime(const struct stat& status, const FileTime& mtime) {
    return status.st_mtim.tv_sec == mtime.seconds &&
           static_cast<std::uint32_t>(status.st_mtim.tv_nsec) == mtime.nanoseconds;
}

bool same_mode(const struct stat& status, const Wanted& wanted) {
    return S_ISLNK(status.st_mode) || (status.st_mode & 07777) == (wanted.attributes.mode & 07777);
}

bool stays(const std::string& name) { return name.starts_with(kKernelsOwn) && name != kCapability; }

bool same_xattrs(const Xattrs& found, const Xattrs& wanted) {
    for (const auto& [name, value] : wanted) {
        const auto at = found.find(name);
        if (at == found.end() || at->second != value) return false;
    }
    return std::all_of(found.begin(), found.end(), [&](const auto& each) {
        return stays(each.first) || wanted.contains(each.first);
    });
}

Status set_xattrs(int fd, const Xattrs& wanted) {
    TS_ASSIGN(const auto found, xattrs_of(fd));
    const ProcPath path{fd};
    for (const auto& [name, value] : found) {
        if (wanted.contains(name) || stays(name)) continue;
        if (::removexattr(path.c_str(), name.c_str()) != 0 && errno != ENODATA)
            return last_error("remove its xattr {}", name);
    }
    for (const auto& [name, value] : wanted) {
        const auto at = found.find(name);
        if (at != found.end() && at->second == value) continue;
        if (::setxattr(path.c_str(), name.c_str(), value.data(), value.size(), 0) != 0)
            return last_error("set its xattr {} ({} bytes)", name, value.size());
    }
    return {};
}

// Whoever owns the directory could have put something else there at once, and have it given away.
Status check_just_made(int fd, std::uint32_t type) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return last_error("look at what was just made");
    const bool ours = (status.st_mode & S_IFMT) == type && status.st_uid == ::geteuid() &&
                      (S_ISDIR(type) || status.st_nlink == 1);
    if (ours) return {};
    return make_error(EBUSY, "make it: somebody else puts things there meanwhile");
}

}  // namespace

Result<Wanted> wanted_of(Image& image, ObjectId object) {
    Wanted wanted{.object = object};
    TS_ASSIGN(wanted.attributes, image.attributes(object));
    TS_ASSIGN(wanted.xattrs, image.xattrs(object));
    if (S_ISLNK(wanted.attributes.mode)) {
        TS_ASSIGN(wanted.target, image.target(object));
    }
    return wanted;
}

Result<std::optional<Occupant>> look_at(int directory, const std::string& name) {
    auto fd = open_at(directory, name, O_PATH);
    if (!fd.ok() && fd.error().code == ENOENT) return std::optional<Occupant>{};
    if (!fd.ok()) return fd.error();
    Occupant occupant{.fd = std::move(fd).value()};
    if (::fstat(occupant.fd.get(), &occupant.status) != 0) return last_error("look at it");
    return std::optional{std::move(occupant)};
}

Result<Fd> open_directory(int directory, const std::string& name) {
    return open_at(directory, name, O_RDONLY | O_DIRECTORY);
}

Result<Fd> open_file(const Occupant& file) {
    Fd fd{::open(ProcPath{file.fd.get()}.c_str(), O_RDONLY | O_NOATIME | O_CLOEXEC)};
    if (!fd.valid()) return last_error("open it");
    return fd;
}

Result<std::vector<std::string>> names_in(int directory) {
    auto names = Tree::list(directory);
    if (!names.ok()) return make_error(names.error().code, "read it");
    std::sort(names->begin(), names->end());
    return names;
}

Result<std::string> target_of(const Occupant& symlink) {
    std::string target(4096, '\0');  // longer ones there are not
    const ssize_t size = ::readlinkat(symlink.fd.get(), "", target.data(), target.size());
    if (size < 0) return last_error("read where it leads");
    target.resize(static_cast<std::size_t>(size));
    return target;
}

Result<Xattrs> xattrs_of(int fd) {
    Xattrs found;
    const ProcPath path{fd};
    std::string names(65536, '\0');  // XATTR_LIST_MAX: longer lists there are not
    const ssize_t size = ::listxattr(path.c_str(), names.data(), names.size());
    if (size < 0 && errno == EOPNOTSUPP) return found;
    if (size < 0) return last_error("list its xattrs");
    std::string value(65536, '\0');  // XATTR_SIZE_MAX
    for (std::size_t at = 0; at < static_cast<std::size_t>(size);) {
        std::string name{names.c_str() + at};
        at += name.size() + 1;
        if (name.starts_with(kPrivateXattrPrefix)) continue;
        const ssize_t length = ::getxattr(path.c_str(), name.c_str(), value.data(), value.size());
        if (length < 0 && errno == ENODATA) continue;  // it went meanwhile
        if (length < 0) return last_error("read its xattr {}", name);
        found.emplace(std::move(name), value.substr(0, static_cast<std::size_t>(length)));
    }
    return found;
}

Result<bool> has_attributes(int fd, const struct stat& status, const Wanted& wanted) {
    const auto& attributes = wanted.attributes;
    if (status.st_uid != attributes.uid || status.st_gid != attributes.gid ||
        !same_mode(status, wanted) || !same_mtime(status, attributes.mtime))
        return false;
    TS_ASSIGN(const auto found, xattrs_of(fd));
    return same_xattrs(found, wanted.xattrs);
}

// The owner first, because a new one takes set-id bits and capabilities away; ACLs before the mode,
// which they change.
Status set_attributes(int fd, const Wanted& wanted, WithMtime with_mtime) {
    const auto& attributes = wanted.attributes;
    struct stat status {};
    if (::fstat(fd, &status) != 0) return last_error("look at it");
    if ((status.st_uid != attributes.uid || status.st_gid != attributes.gid) &&
        ::fchownat(fd, "", attributes.uid, attributes.gid, AT_EMPTY_PATH) != 0)
        return last_error("give it to {}:{}", attributes.uid, attributes.gid);
    TS_TRY(set_xattrs(fd, wanted.xattrs));
    if (::fstat(fd, &status) != 0) return last_error("look at it");
    if (!same_mode(status, wanted) && ::chmod(ProcPath{fd}.c_str(), attributes.mode & 07777) != 0)
        return last_error("set its mode to {:o}", attributes.mode & 07777);
    if (with_mtime == WithMtime::kNo) return {};
    if (::fstat(fd, &status) != 0) return last_error("look at it");
    if (same_mtime(status, attributes.mtime)) return {};
    timespec times[2]{};
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_sec = attributes.mtime.seconds;
    times[1].tv_nsec = attributes.mtime.nanoseconds;
    if (::utimensat(fd, "", times, AT_EMPTY_PATH) != 0) return last_error("set its mtime");
    return {};
}

Result<Fd> make_file(int directory, const std::string& name) {
    Fd fd{::openat(directory, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                   kPrivateFile)};
    if (!fd.valid()) return last_error("make it");
    return fd;
}

Result<Fd> make_directory(int directory, const std::string& name) {
    if (::mkdirat(directory, name.c_str(), kPrivateDirectory) != 0) return last_error("make it");
    TS_ASSIGN(auto fd, open_directory(directory, name));
    TS_TRY(check_just_made(fd.get(), S_IFDIR));
    return fd;
}

Result<Fd> make_special(int directory, const std::string& name, const Wanted& wanted) {
    const int result = wanted.type() == S_IFLNK
                           ? ::symlinkat(wanted.target.c_str(), directory, name.c_str())
                           : ::mknodat(directory, name.c_str(), wanted.type() | kPrivateFile,
                                       wanted.attributes.device);
    if (result != 0) return last_error("make it");
    TS_ASSIGN(auto fd, open_at(directory, name, O_PATH));
    TS_TRY(check_just_made(fd.get(), wanted.type()));
    return fd;
}

Status link_at(int object, int directory, const std::string& name) {
    if (::linkat(object, "", directory, name.c_str(), AT_EMPTY_PATH) != 0)
        return last_error("link it");
    return {};
}

Status rename_at(int source_directory, const std::string& source, int target_directory,
                 const std::string& target, RenameWay way) {
    const unsigned flags = way == RenameWay::kOnlyNew ? RENAME_NOREPLACE : 0;
    if (::renameat2(source_directory, source.c_str(), target_directory, target.c_str(), flags) == 0)
        return {};
    if (flags == 0 || errno != EINVAL) return last_error("put it in its place");
    // A file system that cannot do that at one moment.
    TS_ASSIGN(const auto occupant, look_at(target_directory, target));
    if (occupant) return make_error(EEXIST, "put it in its place");
    return rename_at(source_directory, source, target_directory, target, RenameWay::kReplace);
}

Status unlink_at(int directory, const std::string& name) {
    if (::unlinkat(directory, name.c_str(), 0) == 0 || errno == ENOENT) return {};
    return last_error("remove it");
}

Result<bool> remove_directory_at(int directory, const std::string& name) {
    if (::unlinkat(directory, name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) return true;
    if (errno == ENOTEMPTY || errno == EEXIST) return false;
    return last_error("remove it");
}

}  // namespace twinspool
