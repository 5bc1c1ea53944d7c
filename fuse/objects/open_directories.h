// SPDX-License-Identifier: Apache-2.0
// OpenDirectories: the directories that programs have open, by the handle that OPENDIR was answered
// with, and the moment that each of them lists.
//
// Invariants: a handle is never used twice; its moment goes with RELEASEDIR, or, should the kernel
// never send that, with the directory's Inode, which it keeps for as long as anybody has it open.
// Some of the newest moments stay a while, for who reads the same again; they count only as long as
// the directory has not been changed since, which their readers ask. When all moments together
// hold more than a limit, those go first that nobody lists, then those whose reader has not come
// back for longest: it goes on from its place in another moment, as on any file system.
//
// A directory is known here by its Inode's instance, so that what was kept of an Inode is never
// taken for that of its successor. Threads: any. Locks: the table's is a leaf; that of an
// OpenDirectory is taken before everything, and under the table's only tried.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "fuse/objects/directory_moment.h"

namespace twinspool {

struct OpenDirectory {
    std::mutex mutex;  // protects what follows
    std::optional<DirectoryMoment::Reader> reader;
    // For places that are not of the moment that is listed, so that it is not lost by them.
    std::optional<DirectoryMoment::Reader> elsewhere;
    std::atomic<std::uint64_t> last_used{0};  // a count, not a time
};

class OpenDirectories {
   public:
    static constexpr std::size_t kMostBytes = std::size_t{128} << 20;

    explicit OpenDirectories(std::size_t most_bytes = kMostBytes);
    std::uint64_t open(std::uint64_t instance);
    void close(std::uint64_t handle);
    // Also one that an earlier process gave out: it begins anew.
    std::shared_ptr<OpenDirectory> find(std::uint64_t handle, std::uint64_t instance);
    // Nobody has it open any more.
    void forget(std::uint64_t instance);

    // The newest moment of a directory, from its beginning: many who read one that does not change
    // share it.
    std::shared_ptr<const DirectoryMoment> newest(std::uint64_t instance);
    void remember(std::uint64_t instance, std::shared_ptr<const DirectoryMoment> moment);

    // What moments are made with.
    std::atomic<std::size_t>& used_bytes() { return used_bytes_; }
    // After one was made for `mine`, which keeps it, and whose lock the caller holds.
    void make_room(const OpenDirectory& mine);
    [[nodiscard]] std::size_t size() const;

   private:
    static constexpr std::size_t kMostIdle = 256;
    static constexpr std::size_t kMostIdleBytes = std::size_t{32} << 20;
    struct Handle {
        std::uint64_t instance;
        std::shared_ptr<OpenDirectory> open;
    };
    struct Here {
        std::unordered_set<std::uint64_t> handles;
        std::shared_ptr<const DirectoryMoment> newest;
        std::list<std::uint64_t>::iterator idle;  // if nobody has it open
    };
    // What is taken out of the table is freed when its lock is free.
    using Moments = std::vector<std::shared_ptr<const DirectoryMoment>>;
    using Readers = std::vector<DirectoryMoment::Reader>;

    std::shared_ptr<OpenDirectory> insert(std::uint64_t handle, std::uint64_t instance);
    void make_idle(std::uint64_t instance, Moments& gone);
    void end_idle(Here& here);
    void erase(std::uint64_t instance, Moments& gone);
    bool take_moment_of_least_used(const OpenDirectory& mine, Readers& gone, Moments& newest);

    const std::size_t most_bytes_;
    std::atomic<std::size_t> used_bytes_{0};
    std::atomic<std::uint64_t> uses_{0};
    mutable std::mutex mutex_;  // protects what follows
    std::uint64_t last_;
    std::unordered_map<std::uint64_t, Handle> handles_;
    std::unordered_map<std::uint64_t, Here> directories_;  // by their instances
    std::list<std::uint64_t> idle_;                        // longest idle first
    std::size_t idle_bytes_ = 0;
};

}  // namespace twinspool
