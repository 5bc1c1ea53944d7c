// SPDX-License-Identifier: Apache-2.0
// Image: a volume as it was at one position, for whoever reads it: the view, restore, diff, export.
// Objects are found by id; names lead from roots() downwards.
//
// What the functions return never changes while the image lives, although the volume goes on and
// other snapshots come and go. When the image is no longer whole (its history was given up) every
// call fails with EIO: it is never a mixture. ESTALE: the object is not in the image.
// Threads: any number at once. Implemented by replicator/; the interface is here because fuse/
// shows images, too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/format/op.h"

namespace twinspool {

struct ImageAttributes {
    std::uint32_t mode = 0;  // type and permissions
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    FileTime mtime;
    std::uint64_t size = 0;    // bytes; of a symlink: of its target
    std::uint32_t links = 1;   // names
    std::uint64_t device = 0;  // st_rdev
    friend bool operator==(const ImageAttributes&, const ImageAttributes&) = default;
};

struct ImageEntry {
    std::string name;
    ObjectId object{};
};

// One of the volume's directories.
struct ImageRoot {
    std::string path;  // absolute, as programs see it
    ObjectId object{};
};

struct ImageRange {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;  // never 0
};

class Image {
   public:
    virtual ~Image() = default;

    // Sorted by path.
    [[nodiscard]] virtual const std::vector<ImageRoot>& roots() const = 0;
    virtual Result<ImageAttributes> attributes(ObjectId object) = 0;
    // kNoObject: there is no such name.
    virtual Result<ObjectId> find(ObjectId directory, std::string_view name) = 0;
    // Sorted by name (bytewise).
    virtual Result<std::vector<ImageEntry>> list(ObjectId directory) = 0;
    // As pread(2): short at the end of the file only.
    virtual Result<std::size_t> read(ObjectId file, std::uint64_t offset,
                                     std::span<std::byte> into) = 0;
    // The next range at or after `offset` that is not a hole; nothing if there is none.
    virtual Result<std::optional<ImageRange>> next_data(ObjectId file, std::uint64_t offset) = 0;
    virtual Result<std::string> target(ObjectId symlink) = 0;
    // ACLs too, as system.posix_acl_*; not our own. Name → value.
    virtual Result<std::map<std::string, std::string>> xattrs(ObjectId object) = 0;
    // Equal in two images of one volume only if nothing of the object differs between them:
    // attributes, xattrs, content, the names in a directory (not what they lead to).
    virtual Result<std::uint64_t> version(ObjectId object) = 0;
};

}  // namespace twinspool
