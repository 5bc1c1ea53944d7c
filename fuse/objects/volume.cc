// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/volume.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

#include <memory>

#include "fuse/objects/orphans.h"

namespace twinspool {
namespace {

constexpr unsigned kMask = STATX_BASIC_STATS | STATX_MNT_ID;
constexpr std::uint32_t kGenerationsKnown = 1024;

std::uint64_t mixed(ObjectId id) { return raw(id) * 0x9E3779B97F4A7C15ULL; }

}  // namespace

void TouchedObjects::insert(ObjectId id) {
    Shard& shard = shards_[mixed(id) >> 60];
    const std::lock_guard lock{shard.mutex};
    shard.ids.insert(raw(id));
}

bool TouchedObjects::contains(ObjectId id) const {
    const Shard& shard = shards_[mixed(id) >> 60];
    const std::lock_guard lock{shard.mutex};
    return shard.ids.contains(raw(id));
}

void TouchedObjects::clear() {
    for (Shard& shard : shards_) {
        const std::lock_guard lock{shard.mutex};
        std::unordered_set<std::uint64_t>{}.swap(shard.ids);
    }
}

Volume::Volume(Journal& its_journal, Descriptors::Limits limits)
    : journal(its_journal), descriptors(limits), inodes([this](Inode& inode) { drop(inode); }) {}

void Volume::drop(Inode& inode) {
    if (inode.type == S_IFDIR) open_directories.forget(inode.instance);
    Fd last = descriptors.take(inode);
    if (inode.orphaned) remove_orphan(*this, inode);
    if (!last.valid() || !inode.large) return;
    // What is freed now may be gigabytes.
    const auto kept = std::make_shared<Fd>(std::move(last));
    pool.post([kept] { kept->reset(); }, Pool::Full::kQueueAnyway);
}

void Volume::touch(Inode& inode) {
    if (suspicion.load(std::memory_order_relaxed) != Suspicion::kSet) return;
    if (inode.touched.exchange(true, std::memory_order_relaxed)) return;
    touched.insert(inode.id);
}

void Volume::begin_generation(std::uint32_t its_number, bool its_contents_by_hash) {
    generation = its_number;
    by_hash = its_contents_by_hash;
    suspicion = Suspicion::kNone;
    walking = in_round = true;
    names.clear();  // what a walk that was not complete has told is not told in this one
}

bool Volume::is_suspicious(ObjectId id, const struct statx& now) const {
    const Suspicion how = suspicion.load(std::memory_order_relaxed);
    if (how == Suspicion::kNone) return false;
    const std::int64_t changed = now.stx_ctime.tv_sec * 1'000'000'000 + now.stx_ctime.tv_nsec;
    if (changed < unchanged_before) return false;
    if (how == Suspicion::kWindow) return changed < reign_began;
    const auto epoch = static_cast<std::uint16_t>(raw(id) >> kObjectCounterBits);
    return epoch != static_cast<std::uint16_t>(journal.epoch().number) && !touched.contains(id);
}

bool Volume::is_ours(const Identity& identity) const {
    return generation.load(std::memory_order_relaxed) - identity.generation < kGenerationsKnown;
}

Attributes attributes_of(const struct statx& from) {
    return {
        .mode = from.stx_mode, .uid = from.stx_uid, .gid = from.stx_gid, .mtime = mtime_of(from)};
}

FileTime mtime_of(const struct statx& from) {
    return {.seconds = from.stx_mtime.tv_sec, .nanoseconds = from.stx_mtime.tv_nsec};
}

std::uint64_t device_of(const struct statx& from) {
    return makedev(from.stx_rdev_major, from.stx_rdev_minor);
}

int stat_object(int fd, struct statx& into) {
    return ::statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kMask, &into) == 0
               ? 0
               : errno;
}

int stat_entry(int dir_fd, const char* name, struct statx& into) {
    return ::statx(dir_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, kMask, &into) == 0 ? 0
                                                                                           : errno;
}

}  // namespace twinspool
