// SPDX-License-Identifier: Apache-2.0
#include "journal/delta/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <utility>

namespace twinspool {
namespace {

constexpr int kDirectoryFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
constexpr mode_t kFolderMode = 0755;           // between tree/ and a directory of the volume
constexpr mode_t kPrivateMode = 0700;          // until the object's own attributes are set
constexpr std::size_t kMaxXattrBytes = 65536;  // the kernel's XATTR_SIZE_MAX

Result<Fd> open_folder(int parent, const char* name, mode_t mode) {
    if (::mkdirat(parent, name, mode) != 0 && errno != EEXIST)
        return last_error("make the folder \"{}\"", name);
    Fd fd{::openat(parent, name, kDirectoryFlags)};
    if (!fd.valid()) return last_error("open the folder \"{}\"", name);
    return fd;
}

// By name, because names that are longer than a path may be are found too.
Result<std::string> name_in(int parent, const struct stat& child) {
    Fd fd{::openat(parent, ".", kDirectoryFlags)};
    DIR* stream = fd.valid() ? ::fdopendir(fd.get()) : nullptr;
    if (stream == nullptr) return last_error("read a directory");
    (void)fd.release();
    std::string name;
    while (const dirent* entry = ::readdir(stream)) {  // NOLINT(concurrency-mt-unsafe)
        struct stat status {};
        if (entry->d_ino == child.st_ino &&
            ::fstatat(parent, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            status.st_dev == child.st_dev && status.st_ino == child.st_ino) {
            name = entry->d_name;
            break;
        }
    }
    (void)::closedir(stream);
    if (name.empty()) return make_error(ENOENT, "find a directory in its parent");
    return name;
}

Result<std::string> current_name(int directory, int parent) {
    struct stat own {};
    if (::fstat(directory, &own) != 0) return last_error("look at a directory");
    char path[PATH_MAX];
    const ssize_t size = ::readlink(ProcPath{directory}.c_str(), path, sizeof path);
    if (size > 0 && static_cast<std::size_t>(size) < sizeof path) {
        const std::string_view text{path, static_cast<std::size_t>(size)};
        std::string name{text.substr(text.rfind('/') + 1)};
        struct stat status {};
        if (!name.empty() && ::fstatat(parent, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            status.st_dev == own.st_dev && status.st_ino == own.st_ino)
            return name;
    }
    return name_in(parent, own);
}

std::string name_aside(ObjectId object, ino_t inode) {
    return fmt::format("{:016x}-{:x}", raw(object), inode);
}

Status create(int directory, const char* name, const ObjectToMake& what) {
    int result = 0;
    switch (what.type) {
        case S_IFDIR:
            result = ::mkdirat(directory, name, kPrivateMode);
            break;
        case S_IFLNK:
            result = ::symlinkat(std::string{what.target}.c_str(), directory, name);
            break;
        default:
            result = ::mknodat(directory, name, what.type | (kPrivateMode & 0600), what.device);
    }
    if (result != 0) return last_error("make \"{}\"", name);
    return {};
}

}  // namespace

EntryName::EntryName(std::string_view name) {
    TS_ASSERT(name.size() < sizeof text_);
    std::memcpy(text_, name.data(), name.size());
    text_[name.size()] = '\0';
}

Tree::Tree(Fd store, Fd tree, Fd staging, Fd parked, Options options)
    : store_(std::move(store)),
      tree_(std::move(tree)),
      staging_(std::move(staging)),
      parked_(std::move(parked)),
      options_(std::move(options)) {}

Result<std::unique_ptr<Tree>> Tree::open(const std::string& store, Options options) {
    Fd fd{::open(store.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd.valid()) return last_error("open the store {}", store);
    TS_ASSIGN(Fd tree, open_folder(fd.get(), "tree", kFolderMode));
    TS_ASSIGN(Fd staging, open_folder(fd.get(), "staging", kPrivateMode));
    TS_ASSIGN(Fd parked, open_folder(fd.get(), "parked", kPrivateMode));
    return std::unique_ptr<Tree>{new Tree{std::move(fd), std::move(tree), std::move(staging),
                                          std::move(parked), std::move(options)}};
}

Result<std::optional<Standing>> Tree::at(int directory, const char* name) const {
    Standing standing;
    standing.fd.reset(::openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!standing.fd.valid()) {
        if (errno == ENOENT) return std::optional<Standing>{};
        return last_error("look at \"{}\"", name);
    }
    if (::fstat(standing.fd.get(), &standing.status) != 0)
        return last_error("look at \"{}\"", name);
    TS_ASSIGN(standing.handle, handle_of(standing.fd.get()));
    TS_ASSIGN(const auto identity, read_identity(standing.fd.get(), standing.handle));
    if (identity) standing.object = identity->object;
    return std::optional<Standing>{std::move(standing)};
}

Result<Fd> Tree::open_object(const FileHandle& handle, int flags) const {
    return open_handle(store_.get(), handle, flags | O_NOFOLLOW);
}

Result<Fd> Tree::open_parent_of_root(std::string_view path) {
    Fd fd{::openat(tree_.get(), ".", kDirectoryFlags)};
    if (!fd.valid()) return last_error("open the tree");
    const std::string_view folders = path.substr(1, path.rfind('/'));
    for (std::size_t at = 0; at < folders.size();) {
        const auto slash = folders.find('/', at);
        if (slash == std::string_view::npos) break;
        const EntryName name{folders.substr(at, slash - at)};
        TS_TRY(step());
        TS_ASSIGN(fd, open_folder(fd.get(), name.c_str(), kFolderMode));
        at = slash + 1;
    }
    return fd;
}

Result<std::vector<std::string>> Tree::list(int directory) {
    Fd fd{::openat(directory, ".", kDirectoryFlags)};
    DIR* stream = fd.valid() ? ::fdopendir(fd.get()) : nullptr;
    if (stream == nullptr) return last_error("read a directory");
    (void)fd.release();
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = ::readdir(stream)) {  // NOLINT(concurrency-mt-unsafe)
        const std::string_view name{entry->d_name};
        if (name != "." && name != "..") names.emplace_back(name);
    }
    const int error = errno;
    (void)::closedir(stream);
    if (error != 0) return make_error(error, "read a directory");
    return names;
}

Result<Standing> Tree::make(int directory, const char* name, const ObjectToMake& what) {
    TS_TRY(step());
    TS_TRY(create(directory, name, what));
    TS_ASSIGN(auto made, at(directory, name));
    if (!made) return make_error(ENOENT, "look at \"{}\", just made", name);
    TS_TRY(step());
    TS_TRY(write_identity(
        made->fd.get(),
        {.object = what.object, .generation = 0, .complete = true, .handle = made->handle}));
    made->object = what.object;
    return std::move(*made);
}

Status Tree::link(int object, int directory, const char* name) {
    TS_TRY(step());
    if (::linkat(object, "", directory, name, AT_EMPTY_PATH) != 0)
        return last_error("link \"{}\"", name);
    return {};
}

Result<Tree::Place> Tree::place_of(int directory) {
    Place place{.parent = Fd{::openat(directory, "..", O_PATH | O_DIRECTORY | O_CLOEXEC)},
                .name = {}};
    if (!place.parent.valid()) return last_error("open the parent of a directory");
    TS_ASSIGN(place.name, current_name(directory, place.parent.get()));
    return place;
}

Status Tree::move_directory(int object, int directory, const char* name) {
    TS_ASSIGN(const Place source, place_of(object));
    TS_TRY(step());
    if (::renameat(source.parent.get(), source.name.c_str(), directory, name) != 0)
        return last_error("move the directory \"{}\" to \"{}\"", source.name, name);
    return {};
}

Status Tree::unlink(int directory, const char* name) {
    TS_TRY(step());
    if (::unlinkat(directory, name, 0) != 0 && errno != ENOENT)
        return last_error("unlink \"{}\"", name);
    return {};
}

Status Tree::remove_directory(int directory, const char* name) {
    TS_TRY(step());
    if (::unlinkat(directory, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        return last_error("remove the directory \"{}\"", name);
    return {};
}

Status Tree::set_aside(int directory, const char* name, const Standing& standing, int folder) {
    const std::string aside = name_aside(standing.object, standing.status.st_ino);
    TS_TRY(step());
    if (::renameat(directory, name, folder, aside.c_str()) != 0)
        return last_error("set \"{}\" aside", name);
    return {};
}

Status Tree::release(ObjectId object, int fd, int folder) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return last_error("look at an object");
    return unlink(folder, name_aside(object, status.st_ino).c_str());
}

Result<bool> Tree::stands_aside(ObjectId object, ino_t inode, int folder) const {
    const std::string name = name_aside(object, inode);
    if (::faccessat(folder, name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) return true;
    if (errno == ENOENT) return false;
    return last_error("look at \"{}\"", name);
}

Status Tree::set_owner(int object, std::uint32_t uid, std::uint32_t gid) {
    TS_TRY(step());
    if (::fchownat(object, "", uid, gid, AT_EMPTY_PATH) != 0)
        return last_error("set the owner to {}:{}", uid, gid);
    return {};
}

Status Tree::set_mode(int object, std::uint32_t mode) {
    TS_TRY(step());
    if (::chmod(ProcPath{object}.c_str(), mode & 07777) != 0)
        return last_error("set the mode to {:o}", mode & 07777);
    return {};
}

Status Tree::set_mtime(int object, const FileTime& mtime) {
    timespec times[2]{};
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_sec = mtime.seconds;
    times[1].tv_nsec = mtime.nanoseconds;
    TS_TRY(step());
    if (::utimensat(object, "", times, AT_EMPTY_PATH) != 0)
        return last_error("set the mtime to {}.{:09}", mtime.seconds, mtime.nanoseconds);
    return {};
}

Status Tree::set_xattr(int object, std::string_view name, Bytes value) {
    const EntryName key{name};
    TS_TRY(step());
    if (::setxattr(ProcPath{object}.c_str(), key.c_str(), value.data(), value.size(), 0) != 0)
        return last_error("set the xattr {} ({} bytes)", name, value.size());
    return {};
}

Status Tree::remove_xattr(int object, std::string_view name) {
    const EntryName key{name};
    TS_TRY(step());
    if (::removexattr(ProcPath{object}.c_str(), key.c_str()) != 0 && errno != ENODATA)
        return last_error("remove the xattr {}", name);
    return {};
}

Result<std::map<std::string, std::string>> Tree::xattrs(int object) {
    std::map<std::string, std::string> found;
    TS_ASSIGN(const auto names, list_xattrs(object));
    std::string value(kMaxXattrBytes, '\0');
    for (const auto& name : names) {
        const ssize_t size =
            ::getxattr(ProcPath{object}.c_str(), name.c_str(), value.data(), value.size());
        if (size < 0 && errno == ENODATA) continue;  // gone since
        if (size < 0) return last_error("read the xattr {}", name);
        found[name] = value.substr(0, static_cast<std::size_t>(size));
    }
    return found;
}

Result<std::vector<std::string>> Tree::list_xattrs(int object) {
    std::string buffer(1024, '\0');
    ssize_t size = 0;
    for (;;) {
        size = ::listxattr(ProcPath{object}.c_str(), buffer.data(), buffer.size());
        if (size >= 0) break;
        if (errno != ERANGE) return last_error("list xattrs");
        buffer.resize(buffer.size() * 8);
    }
    std::vector<std::string> names;
    for (std::size_t at = 0; at < static_cast<std::size_t>(size);) {
        std::string name{buffer.c_str() + at};
        at += name.size() + 1;
        if (!name.starts_with(kPrivateXattrPrefix)) names.push_back(std::move(name));
    }
    return names;
}

Status Tree::sync() {
    TS_TRY(step());
    if (::syncfs(store_.get()) != 0) return last_error("sync the store's file system");
    return {};
}

}  // namespace twinspool
