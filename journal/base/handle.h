// SPDX-License-Identifier: Apache-2.0
// FileHandle and Identity: how an object is found again without its name, and the xattr
// `trusted.twinspool.id` that ties an ObjectId to the one inode it was given to. A copy that
// carries the xattr (cp -a, rsync -X) has another handle, so its value does not count. Free
// functions over descriptors; any thread. Needs CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "journal/base/fd.h"
#include "journal/base/result.h"
#include "journal/base/units.h"

namespace twinspool {

inline constexpr std::size_t kMaxHandleBytes = 40;  // ext4 8, XFS 12 to 24, btrfs up to 40
inline constexpr const char* kIdentityXattr = "trusted.twinspool.id";
inline constexpr std::string_view kPrivateXattrPrefix = "trusted.twinspool.";

struct FileHandle {
    std::int32_t type = 0;
    std::uint32_t size = 0;
    std::array<std::byte, kMaxHandleBytes> bytes{};
    friend bool operator==(const FileHandle&, const FileHandle&) = default;
    [[nodiscard]] bool empty() const { return size == 0; }
};
static_assert(sizeof(FileHandle) == 48);

// Of the object that `fd` (O_PATH will do) refers to. EOVERFLOW: the file system's are too long.
Result<FileHandle> handle_of(int fd);
// Of the entry itself (a symlink is not followed).
Result<FileHandle> handle_at(int dir_fd, const char* name);
// ESTALE when the object is gone. `mount_fd`: any descriptor on that file system.
Result<Fd> open_handle(int mount_fd, const FileHandle& handle, int flags);

struct Identity {
    ObjectId object{};
    std::uint32_t generation = 0;  // of the seed in which the standbys were told of the object
    bool complete = false;         // its content has been told too
    FileHandle handle;
};

// The identity that the xattr holds; nothing if there is none, or if it was given to another inode
// (`own` is the object's own handle). Works on O_PATH descriptors of any type of object.
Result<std::optional<Identity>> read_identity(int fd, const FileHandle& own);
Status write_identity(int fd, const Identity& identity);

// "/proc/self/fd/N": the way to reach xattrs, chmod and so on of an O_PATH descriptor.
class ProcPath {
   public:
    explicit ProcPath(int fd);
    [[nodiscard]] const char* c_str() const { return text_.data(); }

   private:
    std::array<char, 32> text_;
};

}  // namespace twinspool
