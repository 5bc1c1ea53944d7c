// SPDX-License-Identifier: Apache-2.0
// OpenDirectories: the directories that programs have open, by the handle that OPENDIR was answered
// with, and the moment that each of them lists.
//
// Invariants: a handle is never used twice; its moment goes with RELEASEDIR, or, should the kernel
// never send that, with the directory's Inode, which it keeps for as long as anybody has it open.
// Some of the newest moments stay a while, for who reads the same again; they count only as long as
// the directory has not been changed since, which their readers ask.
// Threads: any. Locks: the table's is a leaf; that of an OpenDirectory is taken before everything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "fuse/directory_moment.h"
#include "journal/units.h"

namespace twinspool {

struct OpenDirectory {
    std::mutex mutex;  // protects `reader`
    std::optional<DirectoryMoment::Reader> reader;
};

class OpenDirectories {
   public:
    OpenDirectories();
    std::uint64_t open(ObjectId directory);
    void close(std::uint64_t handle);
    // Also one that an earlier process gave out: it begins anew.
    std::shared_ptr<OpenDirectory> find(std::uint64_t handle, ObjectId directory);
    // Nobody has it open any more.
    void forget(ObjectId directory);

    // The newest moment of a directory: many who read one that does not change share it.
    std::shared_ptr<const DirectoryMoment> newest(ObjectId directory);
    void remember(ObjectId directory, std::shared_ptr<const DirectoryMoment> moment);

    MomentMemory& memory() { return memory_; }
    [[nodiscard]] std::size_t size() const;

   private:
    struct Handle {
        ObjectId directory;
        std::shared_ptr<OpenDirectory> open;
    };
    static constexpr std::size_t kMostIdle = 256;
    static constexpr std::size_t kMostIdleBytes = std::size_t{32} << 20;
    struct Here {
        std::unordered_set<std::uint64_t> handles;
        std::shared_ptr<const DirectoryMoment> newest;
        std::list<std::uint64_t>::iterator idle;  // if nobody has it open
    };
    using Moments = std::vector<std::shared_ptr<const DirectoryMoment>>;
    std::shared_ptr<OpenDirectory> insert(std::uint64_t handle, ObjectId directory);
    // What is taken out of the table here is to be freed when its lock is free.
    void make_idle(std::uint64_t directory, Moments& gone);
    void end_idle(Here& here);
    void erase(std::uint64_t directory, Moments& gone);

    MomentMemory memory_;
    mutable std::mutex mutex_;  // protects what follows
    std::uint64_t last_;
    std::unordered_map<std::uint64_t, Handle> handles_;
    std::unordered_map<std::uint64_t, Here> directories_;  // by their ids
    std::list<std::uint64_t> idle_;                        // longest idle first
    std::size_t idle_bytes_ = 0;
};

}  // namespace twinspool
