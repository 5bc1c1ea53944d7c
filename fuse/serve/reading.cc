// SPDX-License-Identifier: Apache-2.0
#include "fuse/serve/reading.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <charconv>
#include <cstring>

#include "fuse/objects/orphans.h"
#include "fuse/objects/xattrs.h"
#include "fuse/tell/finder.h"

namespace twinspool {
namespace {

// The FUSE root is in no backing tree: it has one entry for each directory.
struct statx root_attributes(const Volume& volume) {
    struct statx root {};
    root.stx_mode = S_IFDIR | 0755;
    root.stx_nlink = static_cast<std::uint32_t>(2 + volume.directories.size());
    root.stx_blksize = 4096;
    return root;
}

Answered look_up_directory(Volume& volume, const char* name) {
    std::size_t index = 0;
    const char* const end = name + std::strlen(name);
    const auto [stop, error] = std::from_chars(name, end, index);
    if (error != std::errc{} || stop != end || index >= volume.directories.size() ||
        (name[0] == '0' && end != name + 1))
        return Answer{Answer::NoEntry{}};
    const Directory& directory = volume.directories[index];
    Answer::Entry entry{.inode = directory.root.share(), .attributes = {}};
    if (const int failed = stat_object(directory.backing_fd, entry.attributes))
        return plain(failed);
    return Answer{std::move(entry)};
}

struct Target {
    InodeRef inode;
    Lease lease;
    [[nodiscard]] int fd() const { return lease.fd(); }
};

Result<Target> open_target(Volume& volume, ObjectId id) {
    InodeRef inode = volume.inodes.find(id);
    if (!inode) return plain(ESTALE);
    TS_ASSIGN(Lease lease, volume.lease(*inode));
    return Target{.inode = std::move(inode), .lease = std::move(lease)};
}

// Without waiting; -1 with EAGAIN if that cannot be done.
ssize_t read_at_once(int fd, char* into, std::size_t size, off_t offset) {
    const iovec part{.iov_base = into, .iov_len = size};
    const ssize_t got = ::preadv2(fd, &part, 1, offset, RWF_NOWAIT);
    if (got < 0 && errno == EOPNOTSUPP) errno = EAGAIN;
    return got;
}

Result<std::size_t> read_fully(int fd, char* into, std::size_t size, off_t offset, bool may_wait) {
    std::size_t done = 0;
    while (done < size) {
        const off_t at = offset + static_cast<off_t>(done);
        const ssize_t got = may_wait ? ::pread(fd, into + done, size - done, at)
                                     : read_at_once(fd, into + done, size - done, at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return plain(errno == EAGAIN ? Ending::kBusyCode : errno);
        if (got == 0) break;
        done += static_cast<std::size_t>(got);
    }
    return done;
}

// How answers of variable size go out: a request of size 0 asks for the size.
Answered sized(const Request& request, std::size_t asked, std::size_t size) {
    if (asked == 0) return Answer{Answer::Size{.size = size}};
    if (size > asked) return plain(ERANGE);
    return Answer{Answer::Data{.data = request.buffer, .size = size}};
}

}  // namespace

Answered look_up(Volume& volume, Turn& turn, const Request& /*request*/, ObjectId parent_id,
                 const char* name) {
    if (parent_id == kRootObject) return look_up_directory(volume, name);
    const InodeRef parent = volume.inodes.find(parent_id);
    if (!parent) return plain(ESTALE);
    if (is_hidden(volume, *parent, name)) return Answer{Answer::NoEntry{}};
    auto found = find_entry(volume, turn, *parent, name);
    if (!found.ok()) {
        if (found.error().code == ENOENT) return Answer{Answer::NoEntry{}};
        return found.error();
    }
    found->inode->attributes_kept.store(true, std::memory_order_relaxed);
    return Answer{Answer::Entry{.inode = std::move(found->inode), .attributes = found->attributes}};
}

Answered get_attributes(Volume& volume, Turn& /*turn*/, const Request& /*request*/, ObjectId id) {
    if (id == kRootObject)
        return Answer{Answer::Object{.id = id, .attributes = root_attributes(volume)}};
    TS_ASSIGN(const Target target, open_target(volume, id));
    Answer::Object object{.id = id, .attributes = {}, .orphaned = target.inode->orphaned};
    if (const int error = stat_object(target.fd(), object.attributes)) return plain(error);
    target.inode->attributes_kept.store(true, std::memory_order_relaxed);
    return Answer{object};
}

Answered read_data(Volume& volume, Turn& turn, const Request& request, ObjectId id,
                   std::size_t size, off_t offset) {
    TS_ASSIGN(const Target target, open_target(volume, id));
    if (size > request.buffer_size) return plain(EINVAL);
    // Reading changes the atime, and the kernel forgets that one.
    target.inode->attributes_kept.store(false, std::memory_order_relaxed);
    TS_ASSIGN(const std::size_t got,
              read_fully(target.fd(), request.buffer, size, offset, turn.may_wait()));
    return Answer{Answer::Data{.data = request.buffer, .size = got}};
}

Answered seek_data(Volume& volume, Turn& /*turn*/, const Request& /*request*/, ObjectId id,
                   off_t offset, int whence) {
    TS_ASSIGN(const Target target, open_target(volume, id));
    const off_t at = ::lseek(target.fd(), offset, whence);
    if (at < 0) return plain(errno);
    return Answer{Answer::Offset{.offset = at}};
}

Answered read_link(Volume& volume, Turn& /*turn*/, const Request& request, ObjectId id) {
    TS_ASSIGN(const Target target, open_target(volume, id));
    const ssize_t size = ::readlinkat(target.fd(), "", request.buffer, PATH_MAX);
    if (size < 0) return plain(errno);
    return Answer{Answer::Data{.data = request.buffer, .size = static_cast<std::size_t>(size)}};
}

Answered get_xattr(Volume& volume, Turn& /*turn*/, const Request& request, ObjectId id,
                   const char* name, std::size_t size) {
    if (id == kRootObject || is_private_xattr(name)) return plain(ENODATA);
    const InodeRef inode = volume.inodes.find(id);
    if (!inode) return plain(ESTALE);
    if (inode->xattrs == Knowledge::kNo) return plain(ENODATA);
    TS_ASSIGN(const Lease lease, volume.lease(*inode));
    if (size > request.buffer_size) size = request.buffer_size;
    const ssize_t got = ::getxattr(ProcPath{lease.fd()}.c_str(), name, request.buffer, size);
    if (got < 0) return plain(errno);
    return sized(request, size, static_cast<std::size_t>(got));
}

Answered list_xattrs(Volume& volume, Turn& /*turn*/, const Request& request, ObjectId id,
                     std::size_t size) {
    if (id == kRootObject) return sized(request, size, 0);
    const InodeRef inode = volume.inodes.find(id);
    if (!inode) return plain(ESTALE);
    if (inode->xattrs == Knowledge::kNo) return sized(request, size, 0);
    TS_ASSIGN(const Lease lease, volume.lease(*inode));
    // That there are none is remembered only if nobody is changing that.
    const std::unique_lock lock{inode->mutex, std::try_to_lock};
    const ssize_t got = ::listxattr(ProcPath{lease.fd()}.c_str(), request.buffer, XATTR_LIST_MAX);
    if (got < 0) return plain(errno);
    std::string_view rest{request.buffer, static_cast<std::size_t>(got)};
    std::size_t kept = 0;
    while (!rest.empty()) {
        const std::string_view name = rest.substr(0, rest.find('\0'));
        if (!is_private_xattr(name)) {
            std::memmove(request.buffer + kept, name.data(), name.size() + 1);
            kept += name.size() + 1;
        }
        rest.remove_prefix(name.size() + 1);
    }
    if (kept == 0 && lock.owns_lock()) inode->xattrs = Knowledge::kNo;
    return sized(request, size, kept);
}

Answered get_space(Volume& volume, Turn& /*turn*/, const Request& /*request*/, ObjectId id) {
    int fd = volume.directories.front().backing_fd;
    const InodeRef inode = volume.inodes.find(id);
    if (inode) fd = volume.backing_fd(*inode);
    Answer::Space space{};
    if (::fstatvfs(fd, &space.space) != 0) return plain(errno);
    return Answer{space};
}

}  // namespace twinspool
