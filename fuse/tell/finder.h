// SPDX-License-Identifier: Apache-2.0
// Finder: from an entry of a backing tree to the object that stands there: who it is, whether the
// standbys have been told of it, and if not, telling them (an AdoptOp and its xattrs, never its
// content).
//
// Invariant: whoever has got an InodeRef from here may log changes of the object: it and its
// ancestors have been told, unless a new seed has begun since (Volume::told() says so).
// Threads: any. Errors carry errnos, or the codes of Ending when the attempt must be made again.
#pragma once

#include <array>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "fuse/objects/volume.h"

namespace twinspool {

struct Found {
    InodeRef inode;
    struct statx attributes;
    bool told_here = false;
};

// Takes the gate and the locks of `parent` and of the object when it tells; the caller holds none.
Result<Found> find_entry(Volume& volume, Turn& turn, Inode& parent, const char* name);

// The same without telling, for callers that only want to know who it is. Takes the lock of
// `parent` when the object is not in the table.
Result<Found> identify_entry(Volume& volume, const Turn& turn, Inode& parent, const char* name);

// Whether it is of the directory's file system, and nothing is mounted there.
[[nodiscard]] bool belongs(const Directory& directory, const struct statx& now);

// The Inode of an open object (O_PATH will do), told or not.
Result<InodeRef> identify_object(Volume& volume, std::uint32_t directory, int fd,
                                 const struct statx& now);

// That the directory, and so its ancestors, have been told in this generation. Takes the gate and
// locks.
Ending ensure_directory_told(Volume& volume, Turn& turn, Inode& directory);

// Marks it, if it can be marked: an immutable one cannot, nor one with no space for an xattr. Such
// an object is told of anew, under another id, when it has been forgotten.
Status keep_identity(int fd, const Identity& identity);

// Tells that `object` stands at this entry. The caller is inside the gate and holds the locks of
// both. kAgain: it was changed underneath, so what the standbys have of its content does not count.
enum class Telling : std::uint8_t { kFirst, kAgain };
Ending tell_entry(Volume& volume, Turn& turn, Inode& parent, int parent_fd, const char* name,
                  Inode& object, Telling telling);
// That an object which was told under another name has this one, too. The caller holds no locks.
Ending tell_name(Volume& volume, Turn& turn, Inode& parent, int parent_fd, const char* name,
                 Inode& object);
// One of the volume's directories; the conditions of tell_entry().
Ending tell_root(Volume& volume, Turn& turn, Inode& root, Telling telling);

// What tell_entry() and tell_root() log, for standbys that were told before and do not have it so;
// nothing is noted of the object. The same conditions.
Ending repeat_entry(Volume& volume, Turn& turn, Inode& parent, int parent_fd, const char* name,
                    Inode& object);
Ending repeat_root(Volume& volume, Turn& turn, Inode& root);

Result<std::string> link_target(int fd);

// Counts, and says with its path, what was told because it was changed before this reign.
void report_change(Volume& volume, int parent_fd, const char* name, Telling telling);

// The locks of some objects at once, in ascending order of their ids.
class ObjectLocks {
   public:
    static constexpr int kMost = 4;
    ObjectLocks() = default;
    ~ObjectLocks() { unlock(); }
    ObjectLocks(const ObjectLocks&) = delete;
    ObjectLocks& operator=(const ObjectLocks&) = delete;
    // Null pointers and repetitions are left out. False: one is taken, and waiting is not allowed.
    [[nodiscard]] bool lock(std::initializer_list<Inode*> objects, const Turn& turn);
    void unlock();
    [[nodiscard]] std::span<Inode* const> objects() const { return {objects_.data(), count_}; }

   private:
    std::array<Inode*, kMost> objects_{};
    std::size_t count_ = 0;
};

}  // namespace twinspool
