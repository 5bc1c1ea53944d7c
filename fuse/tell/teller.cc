// SPDX-License-Identifier: Apache-2.0
// The part of fuse/tell/finder that tells the standbys of an object: its entry, attributes and
// xattrs.
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <climits>

#include <string>

#include "fuse/objects/xattrs.h"
#include "fuse/tell/finder.h"
#include "journal/base/fault.h"

namespace twinspool {
namespace {

constexpr std::uint64_t kChangesNamed = 20;

std::string path_of(int dir_fd, const char* name) {
    std::string path(PATH_MAX, '\0');
    const ssize_t size = ::readlink(ProcPath{dir_fd}.c_str(), path.data(), path.size());
    path.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    return path + "/" + name;
}

// What is told of an object together, under its lock.
struct Told {
    struct statx now;
    std::vector<Xattr> xattrs;
    std::string target;
};

Result<Told> look(int fd) {
    Told told;
    if (const int error = stat_object(fd, told.now)) return plain(error);
    TS_ASSIGN(told.xattrs, read_xattrs(fd));
    if (S_ISLNK(told.now.stx_mode)) {
        TS_ASSIGN(told.target, link_target(fd));
    }
    return told;
}

Ending take_credit_for(Volume& volume, Turn& turn, const Told& told, std::size_t name_size) {
    std::size_t bytes = max_encoded_size(name_size + told.target.size());
    for (const Xattr& xattr : told.xattrs) bytes += xattr.credit();
    // More than a frame of xattrs cannot be told at once.
    if (bytes > kMaxFramePayload) return E2BIG;
    if (volume.journal.failure() != 0) return EROFS;
    return turn.take_credit(bytes) ? Ending::done() : Ending::no_credit();
}

void log_xattrs(Turn& turn, Inode& object, const Told& told) {
    for (const Xattr& xattr : told.xattrs) turn.append(xattr.op(object.id));
    object.xattrs = told.xattrs.empty() ? Knowledge::kNo : Knowledge::kYes;
}

Ending note_told(Volume& volume, int fd, Inode& object, Telling telling) {
    const std::uint32_t generation = volume.generation;
    // The names in a directory that was made underneath are not known, other than by the look of
    // it.
    const bool made_underneath =
        volume.suspicion == Volume::Suspicion::kSet && object.generation != generation;
    const bool has_content = object.type == S_IFREG ||
                             (object.type == S_IFDIR &&
                              (telling == Telling::kAgain || made_underneath || volume.by_hash));
    TS_FAULT(walker_told);
    const Status written = keep_identity(fd, {.object = object.id,
                                              .generation = generation,
                                              .complete = !has_content,
                                              .handle = object.handle});
    if (!written.ok()) return written.error().code;
    object.complete = !has_content;
    object.suspect = false;
    object.tellings.fetch_add(1, std::memory_order_relaxed);
    object.generation.store(generation, std::memory_order_release);
    if (has_content && volume.walk != nullptr && !volume.in_round) volume.walk->revisit(object);
    return Ending::done();
}

// The entry under which a directory stands, found from the directory itself.
Result<std::string> name_in_parent(int fd, const Inode& directory, int parent_fd) {
    std::string path(PATH_MAX, '\0');
    const ssize_t size = ::readlink(ProcPath{fd}.c_str(), path.data(), path.size());
    if (size < 0) return plain(errno);
    path.resize(static_cast<std::size_t>(size));
    std::string name = path.substr(path.rfind('/') + 1);
    struct statx now {};
    if (const int error = stat_entry(parent_fd, name.c_str(), now)) return plain(error);
    if (now.stx_ino != directory.number) return plain(ESTALE);
    return name;
}

}  // namespace

Result<std::string> link_target(int fd) {
    std::string target(PATH_MAX, '\0');
    const ssize_t size = ::readlinkat(fd, "", target.data(), target.size());
    if (size < 0) return plain(errno);
    target.resize(static_cast<std::size_t>(size));
    return target;
}

Status keep_identity(int fd, const Identity& identity) {
    Status written = write_identity(fd, identity);
    if (written.ok()) return {};
    switch (written.error().code) {
        case EPERM:
        case EACCES:
        case EROFS:
        case ENOSPC:
        case EDQUOT:
            return {};
        default:
            return written;
    }
}

namespace {

Ending append_entry(Volume& volume, Turn& turn, Inode& parent, int fd, const char* name,
                    Inode& object) {
    auto told = look(fd);
    if (!told.ok()) return told.error().code;
    if (told->now.stx_ino != object.number) return Ending::busy();  // replaced meanwhile
    const std::string_view entry{name};
    const Ending credit = take_credit_for(volume, turn, *told, entry.size());
    if (!credit.is_done()) return credit;
    volume.touch(object);
    turn.append(AdoptOp{.object = object.id,
                        .parent = parent.id,
                        .name = entry,
                        .attributes = attributes_of(told->now),
                        .device = device_of(told->now),
                        .target = told->target});
    log_xattrs(turn, object, *told);
    return Ending::done();
}

}  // namespace

Ending tell_entry(Volume& volume, Turn& turn, Inode& parent, int parent_fd, const char* name,
                  Inode& object, Telling telling) {
    const Fd fd{::openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)};
    if (!fd.valid()) return errno;
    const Ending appended = append_entry(volume, turn, parent, fd.get(), name, object);
    if (!appended.is_done()) return appended;
    return note_told(volume, fd.get(), object, telling);
}

Ending repeat_entry(Volume& volume, Turn& turn, Inode& parent, int parent_fd, const char* name,
                    Inode& object) {
    const Fd fd{::openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)};
    if (!fd.valid()) return errno;
    return append_entry(volume, turn, parent, fd.get(), name, object);
}

Ending repeat_root(Volume& volume, Turn& turn, Inode& root) {
    const Directory& directory = volume.directories[root.directory];
    auto told = look(directory.backing_fd);
    if (!told.ok()) return told.error().code;
    const Ending credit = take_credit_for(volume, turn, *told, directory.path.size());
    if (!credit.is_done()) return credit;
    volume.touch(root);
    turn.append(DirectoryOp{
        .object = root.id, .path = directory.path, .attributes = attributes_of(told->now)});
    log_xattrs(turn, root, *told);
    return Ending::done();
}

void report_change(Volume& volume, int parent_fd, const char* name, Telling telling) {
    // Without the set everything that is new is only the seed's.
    if (telling == Telling::kFirst && volume.suspicion != Volume::Suspicion::kSet) return;
    const std::uint64_t count = ++volume.found_changed;
    if (count > kChangesNamed + 1) return;
    const char* const how = volume.journal.predecessor().clean
                                ? "was changed while nothing was mounted"
                                : "may have changed when or after the last daemon was killed";
    if (count <= kChangesNamed)
        spdlog::info("{} {}", path_of(parent_fd, name), how);
    else
        spdlog::info("more {}; it is only counted from here on", how);
}

Ending tell_name(Volume& volume, Turn& turn, Inode& parent, int parent_fd, const char* name,
                 Inode& object) {
    const std::string_view entry{name};
    if (!volume.told(parent)) {
        const Ending told = ensure_directory_told(volume, turn, parent);
        if (!told.is_done()) return told;
    }
    if (!turn.take_credit(max_encoded_size(entry.size()))) return Ending::no_credit();
    const GatePass pass{volume.gate};
    ObjectLocks locks;
    if (!locks.lock({&parent, &object}, turn)) return Ending::busy();
    if (!volume.told(parent) || !volume.told(object)) return Ending::busy();
    struct statx now {};
    if (const int error = stat_entry(parent_fd, name, now)) return error;
    if (now.stx_ino != object.number) return Ending::busy();
    struct statx above {};
    if (const int error = stat_object(parent_fd, above)) return error;
    turn.append(LinkOp{
        .object = object.id, .parent = parent.id, .name = entry, .parent_mtime = mtime_of(above)});
    volume.names.insert(object.id, {.parent = parent.id, .name = entry});
    return Ending::done();
}

Ending tell_root(Volume& volume, Turn& turn, Inode& root, Telling telling) {
    const Ending repeated = repeat_root(volume, turn, root);
    if (!repeated.is_done()) return repeated;
    return note_told(volume, volume.backing_fd(root), root, telling);
}

Ending ensure_directory_told(Volume& volume, Turn& turn, Inode& directory) {
    if (volume.told(directory)) return Ending::done();
    auto lease = volume.lease(directory);
    if (!lease.ok()) return lease.error().code;
    const bool is_root = directory.id == volume.directories[directory.directory].root->id;
    if (is_root) {
        const GatePass pass{volume.gate};
        ObjectLocks locks;
        if (!locks.lock({&directory}, turn)) return Ending::busy();
        if (volume.told(directory)) return Ending::done();
        return tell_root(volume, turn, directory,
                         directory.suspect ? Telling::kAgain : Telling::kFirst);
    }
    const Fd above{::openat(lease->fd(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!above.valid()) return errno;
    struct statx now {};
    if (const int error = stat_object(above.get(), now)) return error;
    auto parent = identify_object(volume, directory.directory, above.get(), now);
    if (!parent.ok()) return parent.error().code;
    const Ending parent_told = ensure_directory_told(volume, turn, **parent);
    if (!parent_told.is_done()) return parent_told;
    const GatePass pass{volume.gate};
    ObjectLocks locks;
    if (!locks.lock({parent->get(), &directory}, turn)) return Ending::busy();
    if (volume.told(directory)) return Ending::done();
    if (!volume.told(**parent)) return Ending::busy();
    auto name = name_in_parent(lease->fd(), directory, above.get());
    if (!name.ok()) return name.error().code;
    return tell_entry(volume, turn, **parent, above.get(), name->c_str(), directory,
                      directory.suspect ? Telling::kAgain : Telling::kFirst);
}

}  // namespace twinspool
