// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/orphans.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

namespace twinspool {
namespace {

struct OrphanName {
    explicit OrphanName(ObjectId id) {
        (void)std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(raw(id)));
    }
    char text[20];
};

void restore_mtime(int fd, const struct statx& before) {
    const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT},
                               {.tv_sec = before.stx_mtime.tv_sec,
                                .tv_nsec = static_cast<long>(before.stx_mtime.tv_nsec)}};
    (void)::futimens(fd, times);
}

Status open_orphans(Directory& directory, bool root_is_locked) {
    const std::lock_guard lock{directory.orphans_mutex};
    if (directory.orphans.valid()) return {};
    std::unique_lock<std::mutex> root;
    if (!root_is_locked) {
        root = std::unique_lock{directory.root->mutex, std::try_to_lock};
        if (!root.owns_lock()) return plain(Ending::busy());
    }
    struct statx before {};
    if (const int error = stat_object(directory.backing_fd, before)) return plain(error);
    if (::mkdirat(directory.backing_fd, kOrphansName, 0700) != 0 && errno != EEXIST)
        return plain(errno);
    restore_mtime(directory.backing_fd, before);
    directory.orphans.reset(::openat(directory.backing_fd, kOrphansName,
                                     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!directory.orphans.valid()) return plain(errno);
    return {};
}

}  // namespace

Status keep_orphan(Volume& volume, Inode& object, bool root_is_locked, int parent_fd,
                   const char* entry) {
    Directory& directory = volume.directories[object.directory];
    TS_TRY(open_orphans(directory, root_is_locked));
    if (::linkat(parent_fd, entry, directory.orphans.get(), OrphanName{object.id}.text, 0) != 0)
        return plain(errno);
    object.orphaned = true;
    return {};
}

void remove_orphan(Volume& volume, Inode& object) {
    (void)::unlinkat(volume.directories[object.directory].orphans.get(), OrphanName{object.id}.text,
                     0);
}

Status clear_orphans(Directory& directory) {
    directory.orphans.reset();
    Fd hidden{::openat(directory.backing_fd, kOrphansName,
                       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
    if (!hidden.valid())
        return errno == ENOENT ? Status{} : Status{last_error("open {}", kOrphansName)};
    const int fd = hidden.get();
    const std::unique_ptr<DIR, int (*)(DIR*)> list{::fdopendir(hidden.release()), &::closedir};
    if (!list) return last_error("read {}", kOrphansName);
    std::vector<std::string> names;
    while (const dirent* entry = ::readdir(list.get()))  // NOLINT(concurrency-mt-unsafe)
        if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0)
            names.emplace_back(entry->d_name);
    for (const std::string& name : names)
        if (::unlinkat(fd, name.c_str(), 0) != 0)
            return last_error("remove {}/{}", kOrphansName, name);
    struct statx before {};
    if (const int error = stat_object(directory.backing_fd, before))
        return make_error(error, "read the attributes of {}", directory.path);
    if (::unlinkat(directory.backing_fd, kOrphansName, AT_REMOVEDIR) != 0)
        return last_error("remove {}", kOrphansName);
    restore_mtime(directory.backing_fd, before);
    return {};
}

bool is_hidden(const Volume& volume, const Inode& parent, const char* name) {
    return name[0] == '.' && std::strcmp(name, kOrphansName) == 0 &&
           parent.id == volume.directories[parent.directory].root->id;
}

}  // namespace twinspool
