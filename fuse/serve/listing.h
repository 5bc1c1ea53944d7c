// SPDX-License-Identifier: Apache-2.0
// Listing: READDIR and READDIRPLUS. What an open directory lists is one moment
// (directory_moment.h), taken when it is first read, and again when it is read from the beginning.
// Places are the backing file system's own, so whoever comes with one that is not the moment's,
// from an earlier opening perhaps, is served from there.
//
// Names are those of the moment. Attributes are those of now, and go only with what still stands at
// its name; so nothing that the kernel takes into its caches from here is older than the request,
// during which it lets nobody change the directory. Threads: any. A listing that has to wait for a
// disk or for a change that is going on ends as busy where that is not allowed.
#pragma once

#include <cstdint>

#include "fuse/objects/volume.h"
#include "fuse/serve/answer.h"

namespace twinspool {

struct ListedEntry {
    const char* name;
    ObjectId object;
    mode_t type;        // S_IFMT
    std::int64_t next;  // the cookie behind it
};

// Puts entries into the answer's buffer in the kernel's format: fuse/serve/handlers.
class EntryWriter {
   public:
    virtual ~EntryWriter() = default;
    // False: no room for it, and nothing was written.
    virtual bool add(const ListedEntry& entry) = 0;
    // With attributes; takes over one lookup count of the kernel's for `inode`. Without one it is a
    // mere name, and the kernel learns nothing else of it.
    virtual bool add_plus(const ListedEntry& entry, const struct statx& now, Inode* inode) = 0;
    [[nodiscard]] virtual std::size_t size() const = 0;
};

enum class ListingStyle : std::uint8_t { kNames, kAttributes };

// OPENDIR: with a handle.
Answered open_directory(Volume& volume, Turn& turn, const Request& request, ObjectId directory);

// `handle`: what open_directory() gave.
Answered list_directory(Volume& volume, Turn& turn, const Request& request, ObjectId directory,
                        std::uint64_t handle, std::int64_t place, ListingStyle style,
                        EntryWriter& writer);

}  // namespace twinspool
