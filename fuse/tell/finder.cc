// SPDX-License-Identifier: Apache-2.0
#include "fuse/tell/finder.h"

#include <fcntl.h>

#include <array>

namespace twinspool {
namespace {

// Two who find the same unknown object at once must not give it two ids.
std::mutex& adoption_mutex(std::uint64_t number) {
    static std::array<std::mutex, 16> mutexes;
    return mutexes[number % mutexes.size()];
}

void remember_attributes(Inode& inode, const struct statx& now) {
    inode.privileged = (now.stx_mode & (S_ISUID | S_ISGID)) != 0;
}

std::unique_ptr<Inode> make_inode(Volume& volume, std::uint32_t directory, const FileHandle& handle,
                                  const std::optional<Identity>& identity,
                                  const struct statx& now) {
    auto fresh = std::make_unique<Inode>();
    const bool ours = identity && volume.is_ours(*identity);
    fresh->id = ours ? identity->object : volume.journal.new_object_id();
    fresh->directory = directory;
    fresh->type = now.stx_mode & S_IFMT;
    fresh->number = now.stx_ino;
    fresh->handle = handle;
    remember_attributes(*fresh, now);
    if (!ours || identity->generation != volume.generation) return fresh;
    if (volume.is_suspicious(fresh->id, now)) {
        fresh->suspect = true;
        return fresh;
    }
    fresh->generation = identity->generation;
    fresh->complete = identity->complete;
    return fresh;
}

// The object is in the table, or nothing is.
Result<Found> find_known(Volume& volume, const Inode& parent, int parent_fd, const char* name) {
    Found found;
    if (const int error = stat_entry(parent_fd, name, found.attributes)) return plain(error);
    if (!belongs(volume.directories[parent.directory], found.attributes)) return plain(EXDEV);
    found.inode = volume.inodes.find(parent.directory, found.attributes.stx_ino);
    return found;
}

Result<Found> identify(Volume& volume, const Turn& turn, Inode& parent, int parent_fd,
                       const char* name) {
    TS_ASSIGN(Found found, find_known(volume, parent, parent_fd, name));
    if (found.inode) return found;
    // Who makes an object here holds the lock until it has its identity and is in the table.
    ObjectLocks locks;
    if (!locks.lock({&parent}, turn)) return plain(Ending::busy());
    TS_ASSIGN(found, find_known(volume, parent, parent_fd, name));
    if (found.inode) return found;
    const Fd object{::openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)};
    if (!object.valid()) return plain(errno);
    if (const int error = stat_object(object.get(), found.attributes)) return plain(error);
    if (!belongs(volume.directories[parent.directory], found.attributes)) return plain(EXDEV);
    TS_ASSIGN(found.inode,
              identify_object(volume, parent.directory, object.get(), found.attributes));
    return found;
}

// Whether the standbys have this name of an object that they have been told of.
bool is_known_name(Volume& volume, const Inode& parent, const char* name, const Found& found) {
    if (!volume.walking || S_ISDIR(found.attributes.stx_mode) || found.attributes.stx_nlink <= 1)
        return true;
    const KnownNames::Name as{.parent = parent.id, .name = name};
    if (volume.names.contains(found.inode->id, as)) return true;
    const GatePass pass{volume.gate};  // no new generation begins meanwhile
    if (!volume.told(*found.inode)) return false;
    // Nothing but changes made underneath is looked for, and here were none: it has been there
    // before.
    if (volume.suspicion != Volume::Suspicion::kSet || !parent.complete) return false;
    volume.names.insert(found.inode->id, as);
    return true;
}

}  // namespace

bool belongs(const Directory& directory, const struct statx& now) {
    const bool same_mount = (now.stx_mask & STATX_MNT_ID) == 0 || now.stx_mnt_id == directory.mount;
    return same_mount && now.stx_dev_major == directory.device_major &&
           now.stx_dev_minor == directory.device_minor;
}

Result<InodeRef> identify_object(Volume& volume, std::uint32_t directory, int fd,
                                 const struct statx& now) {
    TS_ASSIGN(const FileHandle handle, handle_of(fd));
    const std::lock_guard lock{adoption_mutex(now.stx_ino)};
    InodeRef known = volume.inodes.find(directory, now.stx_ino);
    if (known) return known;
    // Under the lock: whoever met it by another name may have given it one meanwhile.
    TS_ASSIGN(const auto identity, read_identity(fd, handle));
    auto fresh = make_inode(volume, directory, handle, identity, now);
    return volume.inodes.insert(fresh);
}

Result<Found> identify_entry(Volume& volume, const Turn& turn, Inode& parent, const char* name) {
    TS_ASSIGN(const Lease parent_lease, volume.lease(parent));
    return identify(volume, turn, parent, parent_lease.fd(), name);
}

Result<Found> find_entry(Volume& volume, Turn& turn, Inode& parent, const char* name) {
    TS_ASSIGN(const Lease parent_lease, volume.lease(parent));
    TS_ASSIGN(Found found, identify(volume, turn, parent, parent_lease.fd(), name));
    // With a journal that cannot be written nothing changes any more, but reading goes on.
    if (volume.journal.failure() != 0) return found;
    if (volume.told(*found.inode)) {
        if (is_known_name(volume, parent, name, found)) return found;
        const Ending ending =
            tell_name(volume, turn, parent, parent_lease.fd(), name, *found.inode);
        if (!ending.is_done()) return plain(ending);
        return found;
    }
    if (!volume.told(parent)) {
        const Ending ending = ensure_directory_told(volume, turn, parent);
        if (!ending.is_done()) return plain(ending);
    }
    const GatePass pass{volume.gate};
    ObjectLocks locks;
    if (!locks.lock({&parent, found.inode.get()}, turn)) return plain(Ending::busy());
    if (volume.told(*found.inode)) return found;
    if (!volume.told(parent)) return plain(Ending::busy());
    const Telling telling = found.inode->suspect ? Telling::kAgain : Telling::kFirst;
    const Ending ending =
        tell_entry(volume, turn, parent, parent_lease.fd(), name, *found.inode, telling);
    if (!ending.is_done()) return plain(ending);
    report_change(volume, parent_lease.fd(), name, telling);
    if (volume.walking && found.attributes.stx_nlink > 1)
        volume.names.insert(found.inode->id, {.parent = parent.id, .name = name});
    found.told_here = true;
    if (const int error = stat_entry(parent_lease.fd(), name, found.attributes))
        return plain(error);
    return found;
}

void ObjectLocks::unlock() {
    while (count_ > 0) objects_[--count_]->mutex.unlock();
}

bool ObjectLocks::lock(std::initializer_list<Inode*> objects, const Turn& turn) {
    TS_ASSERT(objects.size() <= kMost && count_ == 0);
    std::array<Inode*, kMost> ordered{};
    std::size_t count = 0;
    for (Inode* each : objects) {
        if (each == nullptr) continue;
        std::size_t place = count++;
        for (; place > 0 && ordered[place - 1]->id > each->id; --place)
            ordered[place] = ordered[place - 1];
        ordered[place] = each;
    }
    for (std::size_t i = 0; i < count; ++i) {
        if (i > 0 && ordered[i] == ordered[i - 1]) continue;
        if (turn.may_wait())
            ordered[i]->mutex.lock();
        else if (!ordered[i]->mutex.try_lock())
            return false;
        objects_[count_++] = ordered[i];
    }
    return true;
}

}  // namespace twinspool
