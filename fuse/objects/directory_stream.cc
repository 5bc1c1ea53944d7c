// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/directory_stream.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

#include "fuse/objects/turn.h"

namespace twinspool {
namespace {

struct KernelEntry {
    std::uint64_t number;
    std::int64_t next;
    unsigned short size;
    unsigned char type;
    char name[];
};

}  // namespace

DecodedEntry decode_entry(const char* bytes) {
    const auto* entry = reinterpret_cast<const KernelEntry*>(bytes);
    return {.entry = {.number = entry->number,
                      .next = entry->next,
                      .type = entry->type,
                      .name = bytes + offsetof(KernelEntry, name)},
            .size = entry->size};
}

Result<std::size_t> read_entries(int fd, char* into, std::size_t size) {
    const long got = ::syscall(SYS_getdents64, fd, into, size);
    if (got < 0 && errno == ENOENT) return std::size_t{0};
    if (got < 0) return plain(errno);
    return static_cast<std::size_t>(got);
}

bool is_dots(const char* name) {
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

Result<std::optional<DirectoryEntry>> DirectoryStream::peek() {
    if (at_ == end_) {
        at_ = end_ = 0;
        TS_ASSIGN(end_, read_entries(fd_.get(), buffer_.data(), buffer_.size()));
        if (end_ == 0) return std::optional<DirectoryEntry>{};
    }
    return std::optional{decode_entry(buffer_.data() + at_).entry};
}

void DirectoryStream::skip() { at_ += decode_entry(buffer_.data() + at_).size; }

}  // namespace twinspool
