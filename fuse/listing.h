// SPDX-License-Identifier: Apache-2.0
// Listing: READDIR and READDIRPLUS. Cookies are the backing file system's own (d_off), so they stay
// good while the directory changes, and whoever comes back with one later is served from there.
//
// Since OPENDIR is answered once and for all, nobody says when a listing ends: streams are kept in
// a small table, found by directory and place, and the one unused for longest gives way. Threads:
// any, on the pool (a listing may wait for a disk). Lock: the table's; a stream in use is out of
// it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "fuse/answer.h"
#include "fuse/volume.h"

namespace twinspool {

struct ListedEntry {
    const char* name;
    ObjectId object;
    mode_t type;        // S_IFMT
    std::int64_t next;  // the cookie behind it
};

// Puts entries into the answer's buffer in the kernel's format: fuse/handlers.
class EntryWriter {
   public:
    virtual ~EntryWriter() = default;
    // False: no room for it, and nothing was written.
    virtual bool add(const ListedEntry& entry) = 0;
    // With attributes; takes over one lookup count of the kernel's for `inode` if there is one.
    virtual bool add_plus(const ListedEntry& entry, const struct statx& now, Inode* inode) = 0;
    [[nodiscard]] virtual std::size_t size() const = 0;
};

class DirectoryStream {
   public:
    static constexpr std::size_t kBufferBytes = std::size_t{32} * 1024;
    DirectoryStream(ObjectId directory, Fd fd) : directory_(directory), fd_(std::move(fd)) {}

    struct Entry {
        std::uint64_t number;
        std::int64_t next;
        unsigned char type;
        const char* name;
    };
    // The next entry; nothing at the end. It stays until the next call.
    Result<std::optional<Entry>> peek();
    void skip();  // what peek() gave
    Status seek(std::int64_t place);
    [[nodiscard]] ObjectId directory() const { return directory_; }
    [[nodiscard]] std::int64_t place() const { return place_; }
    [[nodiscard]] int fd() const { return fd_.get(); }

   private:
    ObjectId directory_;
    Fd fd_;
    std::int64_t place_ = 0;
    std::size_t at_ = 0;
    std::size_t end_ = 0;
    std::vector<char> buffer_ = std::vector<char>(kBufferBytes);
};

class Listings {
   public:
    static constexpr std::size_t kStreams = 128;
    explicit Listings(Volume& volume) : volume_(volume) {}

    enum class Style : std::uint8_t { kNames, kAttributes };
    Answered list(Turn& turn, const Request& request, ObjectId directory, std::int64_t place,
                  Style style, EntryWriter& writer);

   private:
    Result<std::unique_ptr<DirectoryStream>> take(Inode& directory, std::int64_t place);
    void give_back(std::unique_ptr<DirectoryStream> stream);
    Answered list_roots(const Request& request, std::int64_t place, Style style,
                        EntryWriter& writer);
    Ending add(Turn& turn, Inode& directory, const DirectoryStream::Entry& entry, Style style,
               EntryWriter& writer, bool& full);

    Volume& volume_;
    std::mutex mutex_;
    std::list<std::unique_ptr<DirectoryStream>> streams_;  // least lately used first
};

}  // namespace twinspool
