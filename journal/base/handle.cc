// SPDX-License-Identifier: Apache-2.0
#include "journal/base/handle.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/xattr.h>

#include <cstdio>
#include <cstring>

namespace twinspool {
namespace {

// The xattr's value; 16 bytes and the handle.
struct IdentityValue {
    std::uint64_t object;      // 0
    std::uint32_t generation;  // 8
    std::uint8_t version;      // 12
    std::uint8_t complete;     // 13
    std::int16_t handle_type;  // 14
    std::byte handle[kMaxHandleBytes];
};
constexpr std::size_t kIdentityFixedBytes = 16;
constexpr std::uint8_t kIdentityVersion = 1;
static_assert(offsetof(IdentityValue, handle) == kIdentityFixedBytes);

constexpr int kTriesWithoutMemory = 1000;

union HandleBuffer {
    struct file_handle header;
    char bytes[sizeof(struct file_handle) + kMaxHandleBytes];
};

Result<FileHandle> name_to_handle(int dir_fd, const char* name, int flags) {
    HandleBuffer buffer;
    buffer.header.handle_bytes = kMaxHandleBytes;
    int mount_id = 0;
    if (::name_to_handle_at(dir_fd, name, &buffer.header, &mount_id, flags) != 0)
        return last_error("get the file handle of '{}'", name);
    FileHandle handle{.type = buffer.header.handle_type, .size = buffer.header.handle_bytes};
    std::memcpy(handle.bytes.data(), buffer.header.f_handle, handle.size);
    return handle;
}

}  // namespace

Result<FileHandle> handle_of(int fd) { return name_to_handle(fd, "", AT_EMPTY_PATH); }

Result<FileHandle> handle_at(int dir_fd, const char* name) {
    return name_to_handle(dir_fd, name, 0);
}

Result<Fd> open_handle(int mount_fd, const FileHandle& handle, int flags) {
    HandleBuffer buffer;
    buffer.header.handle_type = handle.type;
    buffer.header.handle_bytes = handle.size;
    std::memcpy(buffer.header.f_handle, handle.bytes.data(), handle.size);
    for (int tries = 0;; ++tries) {
        Fd fd{::open_by_handle_at(mount_fd, &buffer.header, flags | O_CLOEXEC)};
        if (fd.valid()) return fd;
        // ext4 says ENOMEM while the object's number is being given to a new one.
        if (errno != ENOMEM || tries == kTriesWithoutMemory)
            return last_error("open an object by its file handle");
        ::sched_yield();
    }
}

Result<std::optional<Identity>> read_identity(int fd, const FileHandle& own) {
    IdentityValue value;
    const ssize_t size = ::getxattr(ProcPath{fd}.c_str(), kIdentityXattr, &value, sizeof value);
    if (size < 0) {
        if (errno == ENODATA || errno == ERANGE) return std::optional<Identity>{};
        return last_error("read the xattr {}", kIdentityXattr);
    }
    const auto handle_size = static_cast<std::size_t>(size) - kIdentityFixedBytes;
    if (static_cast<std::size_t>(size) <= kIdentityFixedBytes ||
        value.version != kIdentityVersion || value.object == 0 || handle_size != own.size ||
        value.handle_type != own.type || std::memcmp(value.handle, own.bytes.data(), own.size) != 0)
        return std::optional<Identity>{};
    return std::optional<Identity>{Identity{.object = ObjectId{value.object},
                                            .generation = value.generation,
                                            .complete = value.complete != 0,
                                            .handle = own}};
}

Status write_identity(int fd, const Identity& identity) {
    IdentityValue value{.object = raw(identity.object),
                        .generation = identity.generation,
                        .version = kIdentityVersion,
                        .complete = static_cast<std::uint8_t>(identity.complete ? 1 : 0),
                        .handle_type = static_cast<std::int16_t>(identity.handle.type),
                        .handle = {}};
    std::memcpy(value.handle, identity.handle.bytes.data(), identity.handle.size);
    if (::setxattr(ProcPath{fd}.c_str(), kIdentityXattr, &value,
                   kIdentityFixedBytes + identity.handle.size, 0) != 0)
        return last_error("write the xattr {}", kIdentityXattr);
    return {};
}

ProcPath::ProcPath(int fd) : text_{} {
    (void)std::snprintf(text_.data(), text_.size(), "/proc/self/fd/%d", fd);
}

}  // namespace twinspool
