// SPDX-License-Identifier: Apache-2.0
// Mutation: the one door through which the tree is changed. Each verb takes credit for its records,
// locks what it changes, notes it, acts on the backing tree, and logs the outcome; an error of the
// tree is the answer, and nothing is logged then.
//
// Invariants: the records of one object stand in the journal in the order in which they happened to
// it; an object that the standbys have not been told of in this generation is changed without a
// record, because the walker will tell of it as it is then. Threads: any. A verb that would wait on
// a thread that must not ends as busy, with nothing done.
#pragma once

#include <string_view>

#include "fuse/objects/volume.h"
#include "fuse/serve/answer.h"

namespace twinspool {

struct NewObject {
    mode_t mode = 0;  // with the type
    dev_t device = 0;
};

struct AttributeChange {
    bool set_mode = false, set_uid = false, set_gid = false, set_size = false;
    bool set_atime = false, set_mtime = false;
    bool kill_privileges = false;  // set-uid, set-gid and capabilities go, as with a write
    mode_t mode = 0;
    uid_t uid = 0;
    gid_t gid = 0;
    std::uint64_t size = 0;
    timespec atime{};  // or UTIME_NOW in tv_nsec
    timespec mtime{};
};

enum class Removed : std::uint8_t { kName, kDirectory };
enum class Privileges : std::uint8_t { kKeep, kKill };
// Where written data come from: a call, or pages that a program has changed through a mapping.
enum class Written : std::uint8_t { kByCall, kBack };

// Larger than this, what is written or freed goes to the pool.
inline constexpr std::size_t kSmallWriteBytes = std::size_t{32} * 1024;
inline constexpr std::uint64_t kLargeFileBytes = std::uint64_t{64} << 20;

// --- names (mutation_create.cc, mutation_names.cc)
Answered make_object(Volume& volume, Turn& turn, const Request& request, ObjectId parent,
                     const char* name, NewObject what);
Answered make_symlink(Volume& volume, Turn& turn, const Request& request, ObjectId parent,
                      const char* name, const char* target);
Answered make_link(Volume& volume, Turn& turn, const Request& request, ObjectId object,
                   ObjectId parent, const char* name);
Answered remove_name(Volume& volume, Turn& turn, const Request& request, ObjectId parent,
                     const char* name, Removed what);
Answered rename_entry(Volume& volume, Turn& turn, const Request& request, ObjectId source_parent,
                      const char* source_name, ObjectId target_parent, const char* target_name,
                      unsigned flags);

// --- content (mutation_content.cc)
Answered write_data(Volume& volume, Turn& turn, const Request& request, ObjectId object, Bytes data,
                    off_t offset, Privileges privileges, Written how);
Answered allocate(Volume& volume, Turn& turn, const Request& request, ObjectId object, int mode,
                  off_t offset, off_t length);

// --- attributes (mutation_attributes.cc)
Answered set_attributes(Volume& volume, Turn& turn, const Request& request, ObjectId object,
                        AttributeChange change);
Answered set_xattr(Volume& volume, Turn& turn, const Request& request, ObjectId object,
                   const char* name, Bytes value, int flags);
Answered remove_xattr(Volume& volume, Turn& turn, const Request& request, ObjectId object,
                      const char* name);

}  // namespace twinspool
