// SPDX-License-Identifier: Apache-2.0
// Inodes: the objects that the kernel, or somebody here at work, knows at the moment. Found by
// object id (which is the FUSE node id) and by inode number of the backing tree.
//
// Invariants: one Inode for an object at a time; it lives while its count is above zero (the
// kernel's lookups and the InodeRefs); an unlinked object is no longer found by its backing number.
// Threads: any. Locks: a shard's, protects the chains of that shard; of those of ids and of backing
// numbers one at a time is held; after the objects' own locks.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "fuse/objects/descriptors.h"
#include "journal/base/handle.h"
#include "journal/base/units.h"

namespace twinspool {

// What is known of an object without asking the file system.
enum class Knowledge : std::uint8_t { kUnknown, kNo, kYes };

struct Inode {
    // --- fixed as long as it lives
    ObjectId id{};
    std::uint32_t directory = 0;  // which of the volume's
    mode_t type = 0;              // S_IFMT
    std::uint64_t number = 0;     // in the backing tree
    FileHandle handle;
    const std::uint64_t instance = next_instance();  // no two Inodes of a process have the same

    // Serializes changes of the object and their records. Taken in ascending order of the ids.
    std::mutex mutex;

    // --- changed under `mutex`, read anywhere
    std::atomic<std::uint32_t> generation{0};  // of the seed in which it was told; 0: not
    std::atomic<bool> complete{false};         // its content was told, too
    std::atomic<bool> suspect{false};          // was changed underneath, not told again yet
    std::atomic<bool> unlinked{false};         // no name any more
    std::atomic<bool> orphaned{false};         // ... but one in the hidden orphan directory
    std::atomic<bool> touched{false};          // is in the set of what this reign has changed
    std::atomic<bool> large{false};            // closing it after the last unlink takes long
    std::atomic<bool> privileged{false};       // may have set-uid or set-gid bits
    std::atomic<Knowledge> xattrs{Knowledge::kUnknown};       // any but our own
    std::atomic<Knowledge> capability{Knowledge::kUnknown};   // security.capability
    std::atomic<Knowledge> default_acl{Knowledge::kUnknown};  // of a directory

    // Counts what may have changed it, so that who looked at it without the lock can tell whether
    // that is still so: equal under the lock before and after.
    std::atomic<std::uint32_t> changes{0};
    std::atomic<std::uint32_t> tellings{0};  // how often it was told by an AdoptOp

    // The kernel was given its attributes and most likely has them still, so that a listing need
    // not bring them. Nothing but the cost of a message depends on it.
    std::atomic<bool> attributes_kept{false};

    DescriptorSlot slot;  // fuse/objects/descriptors' own

   private:
    friend class Inodes;
    static std::uint64_t next_instance() {
        static std::atomic<std::uint64_t> last{0};
        return ++last;
    }
    std::atomic<std::uint64_t> count_{0};
    Inode* next_by_id_ = nullptr;
    Inode* next_by_number_ = nullptr;
};

class Inodes;

// Keeps an Inode alive.
class InodeRef {
   public:
    InodeRef() = default;
    InodeRef(Inodes& table, Inode* counted) : table_(&table), inode_(counted) {}
    InodeRef(InodeRef&& other) noexcept
        : table_(other.table_), inode_(std::exchange(other.inode_, nullptr)) {}
    InodeRef& operator=(InodeRef&& other) noexcept {
        std::swap(table_, other.table_);
        std::swap(inode_, other.inode_);
        return *this;
    }
    InodeRef(const InodeRef&) = delete;
    InodeRef& operator=(const InodeRef&) = delete;
    ~InodeRef();

    [[nodiscard]] InodeRef share() const;
    explicit operator bool() const { return inode_ != nullptr; }
    Inode* operator->() const { return inode_; }
    Inode& operator*() const { return *inode_; }
    [[nodiscard]] Inode* get() const { return inode_; }

   private:
    Inodes* table_ = nullptr;
    Inode* inode_ = nullptr;
};

class Inodes {
   public:
    // `dropped` is called for each Inode whose count falls to zero, with no lock held.
    explicit Inodes(std::function<void(Inode&)> dropped) : dropped_(std::move(dropped)) {}
    ~Inodes();
    Inodes(const Inodes&) = delete;
    Inodes& operator=(const Inodes&) = delete;

    InodeRef find(ObjectId id);
    InodeRef find(std::uint32_t directory, std::uint64_t number);
    // The Inode of that object as it is in the table, or made from `fresh`, which is used up then.
    InodeRef insert(std::unique_ptr<Inode>& fresh);

    // The kernel's lookup count.
    void remember(Inode& inode) { inode.count_.fetch_add(1, std::memory_order_relaxed); }
    void forget(ObjectId id, std::uint64_t lookups);
    // No name leads to it any more: its backing number may soon be another object's.
    void unname(Inode& inode);

    [[nodiscard]] std::size_t size() const;

   private:
    friend class InodeRef;
    static constexpr std::size_t kShards = 64;
    struct Shard {
        mutable std::mutex mutex;
        std::vector<Inode*> chains = std::vector<Inode*>(64);
        std::size_t size = 0;
    };
    static std::uint64_t mix(std::uint64_t value);
    static std::uint64_t hash(ObjectId id) { return mix(raw(id)); }
    static std::uint64_t hash(std::uint32_t directory, std::uint64_t number) {
        return mix(number * 31 + directory);
    }
    static Shard& shard(std::array<Shard, kShards>& of, std::uint64_t hash) {
        return of[hash % kShards];
    }
    static Inode*& chain(Shard& shard, std::uint64_t hash) {
        return shard.chains[(hash / kShards) & (shard.chains.size() - 1)];
    }
    template <Inode* Inode::*Next, typename Hash>
    static void grow(Shard& shard, Hash&& hash_of);
    static bool count_if_alive(Inode& inode);
    void release(Inode& inode, std::uint64_t count);
    bool remove_number(Inode& inode);

    std::array<Shard, kShards> ids_;
    std::array<Shard, kShards> numbers_;
    std::function<void(Inode&)> dropped_;
};

inline InodeRef::~InodeRef() {
    if (inode_ != nullptr) table_->release(*inode_, 1);
}

inline InodeRef InodeRef::share() const {
    table_->remember(*inode_);
    return {*table_, inode_};
}

}  // namespace twinspool
