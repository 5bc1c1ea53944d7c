// SPDX-License-Identifier: Apache-2.0
// DirectoryStream: the entries of an open directory as getdents64 gives them, one after the other,
// the dots among them. What is changed meanwhile may be missed, or come twice: who must know has
// the directory's lock, looks again, or takes a DirectoryMoment. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "journal/base/fd.h"
#include "journal/base/result.h"

namespace twinspool {

// A place in a directory is what the backing file system says it is (d_off): good for as long as
// the directory is, also after the entry that stood there has gone. 0 is the beginning.
struct DirectoryEntry {
    std::uint64_t number;  // of the inode
    std::int64_t next;     // the place behind it
    unsigned char type;    // DT_*
    const char* name;      // in the bytes it was decoded from
};

// The form in which the kernel gives entries; `size` is what this one takes.
struct DecodedEntry {
    DirectoryEntry entry;
    std::size_t size;
};
DecodedEntry decode_entry(const char* bytes);
// No entry takes more.
inline constexpr std::size_t kMostEntryBytes = 288;

// Fills `into` with whole entries from the descriptor's place on; 0 at the end, and of a directory
// that has been removed.
Result<std::size_t> read_entries(int fd, char* into, std::size_t size);

[[nodiscard]] bool is_dots(const char* name);

class DirectoryStream {
   public:
    static constexpr std::size_t kBufferBytes = std::size_t{32} * 1024;
    explicit DirectoryStream(Fd fd) : fd_(std::move(fd)) {}

    // The next entry; nothing at the end. It stays until the next call.
    Result<std::optional<DirectoryEntry>> peek();
    void skip();  // what peek() gave
    [[nodiscard]] int fd() const { return fd_.get(); }

   private:
    Fd fd_;
    std::size_t at_ = 0;
    std::size_t end_ = 0;
    std::vector<char> buffer_ = std::vector<char>(kBufferBytes);
};

}  // namespace twinspool
