// SPDX-License-Identifier: Apache-2.0
// Volume: what all parts of the overlay share. The directories and their backing trees, the tables
// of objects, the gate, the pool, and where the walk and the seed are.
//
// Owned by the Overlay; made before the first thread that uses it, gone after the last. The members
// are the parts themselves; each says what it guards. Order of locks: fuse/README.md.
#pragma once

#include <sys/stat.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <unordered_set>

#include "fuse/kernel/attribute_cache.h"
#include "fuse/objects/descriptors.h"
#include "fuse/objects/gate.h"
#include "fuse/objects/inodes.h"
#include "fuse/objects/names.h"
#include "fuse/objects/open_directories.h"
#include "fuse/objects/pool.h"
#include "fuse/objects/turn.h"
#include "journal/base/handle.h"
#include "journal/log/journal.h"

namespace twinspool {

// In the root of a backing tree, never shown: names for unlinked objects that are still in use.
inline constexpr const char* kOrphansName = ".twinspool-orphans";

struct Directory {
    std::string path;
    int backing_fd = -1;  // borrowed
    std::uint64_t device_major = 0;
    std::uint64_t device_minor = 0;
    std::uint64_t mount = 0;
    InodeRef root;
    std::mutex orphans_mutex;  // protects the making of the next; after every object's lock
    Fd orphans;
};

// The ids of objects that this reign has changed, as long as the walk that looks for changes made
// underneath may take them for such. Any thread; the locks are leaves.
class TouchedObjects {
   public:
    void insert(ObjectId id);
    [[nodiscard]] bool contains(ObjectId id) const;
    void clear();

   private:
    struct Shard {
        mutable std::mutex mutex;
        std::unordered_set<std::uint64_t> ids;
    };
    static constexpr std::size_t kShards = 16;
    std::array<Shard, kShards> shards_;
};

// Where a change of the tree tells the walker that it may have missed something.
class WalkQueue {
   public:
    virtual ~WalkQueue() = default;
    // The object's content (a directory: its subtree) is to be visited (again).
    virtual void revisit(const Inode& inode) = 0;
    // An object must be told again, and nobody knows where its other names are.
    virtual void repeat() = 0;
};

struct Volume {
    Volume(Journal& its_journal, Descriptors::Limits limits);

    Journal& journal;
    Descriptors descriptors;
    OpenDirectories open_directories;
    Inodes inodes;
    std::deque<Directory> directories;  // never changed while anything runs
    Gate gate;
    Pool pool;
    AttributeCache* attribute_cache = nullptr;  // the kernel's; none while nobody is served

    // The seed in which objects must have been told; changed with the gate closed.
    std::atomic<std::uint32_t> generation{0};
    // A walk is going on: what moves past it must be told to `walk`.
    std::atomic<bool> walking{false};
    // It goes through everything, and so comes to whatever is told meanwhile.
    std::atomic<bool> in_round{false};
    // The seed is for standbys that have a tree already: they must be told what a directory does
    // not have, too. Changed as `generation` is.
    std::atomic<bool> by_hash{false};
    WalkQueue* walk = nullptr;
    KnownNames names;  // while walking

    // --- what was changed underneath before this reign
    std::int64_t unchanged_before = 0;  // ns; a ctime from here on is suspicious
    std::int64_t reign_began = 0;       // ns
    // kWindow: a seed that was begun before goes on: too many objects of our own for a set of them.
    enum class Suspicion : std::uint8_t { kNone, kSet, kWindow };
    std::atomic<Suspicion> suspicion{Suspicion::kNone};
    TouchedObjects touched;
    std::atomic<std::uint64_t> found_changed{0};

    [[nodiscard]] int backing_fd(const Inode& inode) const {
        return directories[inode.directory].backing_fd;
    }
    Result<Lease> lease(Inode& inode) { return descriptors.lease(inode, backing_fd(inode)); }
    [[nodiscard]] bool told(const Inode& inode) const {
        return inode.generation.load(std::memory_order_acquire) ==
               generation.load(std::memory_order_relaxed);
    }
    // From now on nothing counts as told. With the gate closed.
    void begin_generation(std::uint32_t its_number, bool its_contents_by_hash);
    // Before this reign changes an object for the first time.
    void touch(Inode& inode);
    [[nodiscard]] bool is_suspicious(ObjectId id, const struct statx& now) const;
    // An id counts if it was given in this generation or a late one before it.
    [[nodiscard]] bool is_ours(const Identity& identity) const;

   private:
    void drop(Inode& inode);
};

// The attributes that records carry.
Attributes attributes_of(const struct statx& from);
FileTime mtime_of(const struct statx& from);
std::uint64_t device_of(const struct statx& from);
// Of the object that a descriptor refers to / of an entry. An errno, 0 for success.
int stat_object(int fd, struct statx& into);
int stat_entry(int dir_fd, const char* name, struct statx& into);

}  // namespace twinspool
