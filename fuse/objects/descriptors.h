// SPDX-License-Identifier: Apache-2.0
// Descriptors: a bounded cache of open descriptors of objects, opened again by file handle when
// they have been closed. Regular files are open for reading and writing, directories for reading,
// all others as O_PATH. An unlinked object cannot be opened again, so its descriptor is pinned.
//
// Invariants: a leased descriptor is not closed; at most `limit` stand in the cache (leases of more
// objects than that at once open more), at most `pinned_limit` are pinned.
// Threads: any. Lock: a shard's, protects slots and their list; taken after everything but the
// pool.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>

#include "journal/base/fd.h"
#include "journal/base/result.h"

namespace twinspool {

struct Inode;

struct DescriptorSlot {
    int fd = -1;
    std::atomic<std::uint32_t> users{0};
    bool used_lately = false;
    bool pinned = false;
    Inode* previous = nullptr;
    Inode* next = nullptr;
};

// A descriptor in use. Borrowed from the cache, or its own.
class Lease {
   public:
    Lease(DescriptorSlot& slot, int fd) : slot_(&slot), fd_(fd) {}
    explicit Lease(Fd own) : fd_(own.get()), own_(std::move(own)) {}
    Lease(Lease&& other) noexcept
        : slot_(std::exchange(other.slot_, nullptr)), fd_(other.fd_), own_(std::move(other.own_)) {}
    Lease& operator=(Lease&& other) noexcept {
        std::swap(slot_, other.slot_);
        std::swap(fd_, other.fd_);
        std::swap(own_, other.own_);
        return *this;
    }
    ~Lease() {
        if (slot_ != nullptr) slot_->users.fetch_sub(1, std::memory_order_release);
    }
    [[nodiscard]] int fd() const { return fd_; }

   private:
    DescriptorSlot* slot_ = nullptr;
    int fd_;
    Fd own_;
};

class Descriptors {
   public:
    struct Limits {
        std::size_t cached = 12'000;
        std::size_t pinned = 5'000;
    };
    // Fits the limits to how many files the process may have open.
    static Limits fitting_limits();

    explicit Descriptors(Limits limits) : limits_(limits) {}

    // `mount_fd`: any descriptor of the object's file system. ESTALE: the object is gone.
    Result<Lease> lease(Inode& inode, int mount_fd);
    // A new object's first descriptor, opened as lease() would have.
    Lease put(Inode& inode, Fd fd);
    // Before the last unlink. False: too many are pinned already.
    Result<bool> pin(Inode& inode, int mount_fd);
    // The unlink failed: back into the cache.
    void unpin(Inode& inode);
    // The object's end: its descriptor, to be closed by the caller.
    Fd take(Inode& inode);

    [[nodiscard]] std::size_t cached() const { return cached_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::size_t pinned() const { return pinned_.load(std::memory_order_relaxed); }

   private:
    static constexpr std::size_t kShards = 16;
    struct Shard {
        std::mutex mutex;
        Inode* hand = nullptr;  // of the clock: the ring's next candidate for closing
        std::size_t size = 0;
    };
    Shard& shard(const Inode& inode);
    static void link(Shard& shard, Inode& inode);
    static void unlink(Shard& shard, Inode& inode);
    Fd evict(Shard& shard);

    const Limits limits_;
    std::array<Shard, kShards> shards_;
    std::atomic<std::size_t> cached_{0};
    std::atomic<std::size_t> pinned_{0};
};

}  // namespace twinspool
