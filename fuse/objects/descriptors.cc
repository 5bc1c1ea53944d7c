// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/descriptors.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>

#include "fuse/objects/inodes.h"

namespace twinspool {
namespace {

int open_flags(mode_t type) {
    switch (type) {
        case S_IFREG:
            return O_RDWR | O_NOFOLLOW;
        case S_IFDIR:
            return O_RDONLY | O_DIRECTORY;
        default:
            return O_PATH | O_NOFOLLOW;
    }
}

// Immutable and append-only files, and the like.
bool may_still_be_read(int error) {
    return error == EPERM || error == EACCES || error == EROFS || error == ETXTBSY;
}

}  // namespace

Descriptors::Limits Descriptors::fitting_limits() {
    rlimit files{};
    Limits limits;
    if (::getrlimit(RLIMIT_NOFILE, &files) != 0) files.rlim_cur = 1024;
    const auto allowed = static_cast<std::size_t>(std::min<rlim_t>(files.rlim_cur, 20'000));
    limits.cached = std::min(limits.cached, allowed * 6 / 10);
    limits.pinned = std::min(limits.pinned, allowed * 25 / 100);
    return limits;
}

Descriptors::Shard& Descriptors::shard(const Inode& inode) {
    const std::uint64_t id = raw(inode.id);
    return shards_[(id ^ (id >> 7)) % kShards];
}

void Descriptors::link(Shard& shard, Inode& inode) {
    if (shard.hand == nullptr) {
        inode.slot.previous = inode.slot.next = &inode;
        shard.hand = &inode;
    } else {  // behind the hand: it comes round to this one last
        Inode& next = *shard.hand;
        Inode& previous = *next.slot.previous;
        inode.slot.previous = &previous;
        inode.slot.next = &next;
        previous.slot.next = &inode;
        next.slot.previous = &inode;
    }
    ++shard.size;
}

void Descriptors::unlink(Shard& shard, Inode& inode) {
    if (shard.hand == &inode) shard.hand = inode.slot.next == &inode ? nullptr : inode.slot.next;
    inode.slot.previous->slot.next = inode.slot.next;
    inode.slot.next->slot.previous = inode.slot.previous;
    inode.slot.previous = inode.slot.next = nullptr;
    --shard.size;
}

// One descriptor out of the cache, by second chance; none if all are in use.
Fd Descriptors::evict(Shard& shard) {
    for (std::size_t tries = 2 * shard.size; tries > 0 && shard.hand != nullptr; --tries) {
        Inode& candidate = *shard.hand;
        shard.hand = candidate.slot.next;
        if (candidate.slot.users.load(std::memory_order_acquire) != 0) continue;
        if (std::exchange(candidate.slot.used_lately, false)) continue;
        unlink(shard, candidate);
        cached_.fetch_sub(1, std::memory_order_relaxed);
        return Fd{std::exchange(candidate.slot.fd, -1)};
    }
    return Fd{};
}

Result<Lease> Descriptors::lease(Inode& inode, int mount_fd) {
    Shard& shard = this->shard(inode);
    {
        const std::lock_guard lock{shard.mutex};
        if (inode.slot.fd >= 0) {
            inode.slot.used_lately = true;
            inode.slot.users.fetch_add(1, std::memory_order_relaxed);
            return Lease{inode.slot, inode.slot.fd};
        }
    }
    auto opened = open_handle(mount_fd, inode.handle, open_flags(inode.type));
    for (int tries = 0; !opened.ok() && opened.error().code == EMFILE && tries < 64; ++tries) {
        for (Shard& each : shards_) {
            const std::lock_guard lock{each.mutex};
            (void)evict(each);
        }
        opened = open_handle(mount_fd, inode.handle, open_flags(inode.type));
    }
    if (!opened.ok() && inode.type == S_IFREG && may_still_be_read(opened.error().code)) {
        // Not cached, so that it is tried for writing again.
        TS_ASSIGN(Fd readable, open_handle(mount_fd, inode.handle, O_RDONLY | O_NOFOLLOW));
        return Lease{std::move(readable)};
    }
    if (!opened.ok()) return opened.error();
    return put(inode, std::move(*opened));
}

Lease Descriptors::put(Inode& inode, Fd fd) {
    Shard& shard = this->shard(inode);
    Fd surplus;  // closed after the lock is free
    const std::lock_guard lock{shard.mutex};
    if (inode.slot.fd >= 0) {
        surplus = std::move(fd);
    } else {
        if (shard.size >= std::max<std::size_t>(limits_.cached / kShards, 1))
            surplus = evict(shard);
        inode.slot.fd = fd.release();
        link(shard, inode);
        cached_.fetch_add(1, std::memory_order_relaxed);
    }
    inode.slot.used_lately = true;
    inode.slot.users.fetch_add(1, std::memory_order_relaxed);
    return Lease{inode.slot, inode.slot.fd};
}

Result<bool> Descriptors::pin(Inode& inode, int mount_fd) {
    if (pinned_.load(std::memory_order_relaxed) >= limits_.pinned) return false;
    TS_ASSIGN(const Lease lease, this->lease(inode, mount_fd));
    Shard& shard = this->shard(inode);
    const std::lock_guard lock{shard.mutex};
    if (inode.slot.pinned) return true;
    if (inode.slot.fd < 0) return false;  // open for reading only, so not in the cache
    unlink(shard, inode);
    inode.slot.pinned = true;
    cached_.fetch_sub(1, std::memory_order_relaxed);
    pinned_.fetch_add(1, std::memory_order_relaxed);
    return true;
}

void Descriptors::unpin(Inode& inode) {
    Shard& shard = this->shard(inode);
    const std::lock_guard lock{shard.mutex};
    if (!std::exchange(inode.slot.pinned, false)) return;
    link(shard, inode);
    pinned_.fetch_sub(1, std::memory_order_relaxed);
    cached_.fetch_add(1, std::memory_order_relaxed);
}

Fd Descriptors::take(Inode& inode) {
    Shard& shard = this->shard(inode);
    const std::lock_guard lock{shard.mutex};
    if (inode.slot.fd < 0) return Fd{};
    TS_ASSERT(inode.slot.users.load(std::memory_order_acquire) == 0);
    if (std::exchange(inode.slot.pinned, false)) {
        pinned_.fetch_sub(1, std::memory_order_relaxed);
    } else {
        unlink(shard, inode);
        cached_.fetch_sub(1, std::memory_order_relaxed);
    }
    return Fd{std::exchange(inode.slot.fd, -1)};
}

}  // namespace twinspool
