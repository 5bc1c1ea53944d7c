// SPDX-License-Identifier: Apache-2.0
// DirectoryMoment: the entries of a directory as they stood at one moment, from a place to its end.
// What an open directory lists, so that no name is missed or comes twice however long the listing
// takes and whatever is renamed meanwhile.
//
// Invariants: the entries never change once it is there; who stands at each is asked once. All of
// them together hold at most a limit in memory (MomentMemory); what is beyond, and what is large,
// stands in a file without a name on the directory's own file system, which is gone when the moment
// is, also after a kill. Threads: a moment any; a Reader one at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "fuse/directory_stream.h"
#include "journal/units.h"

namespace twinspool {

class MomentMemory {
   public:
    static constexpr std::size_t kMostBytes = std::size_t{128} << 20;
    static constexpr std::size_t kMostBytesEach = std::size_t{16} << 20;

    explicit MomentMemory(std::size_t most = kMostBytes, std::size_t most_each = kMostBytesEach)
        : most_(most), most_each_(most_each) {}
    // `bytes` more for one that has `size` in memory already. False: there is no room.
    bool take(std::size_t bytes, std::size_t size);
    void give_back(std::size_t bytes) { used_ -= bytes; }
    [[nodiscard]] std::size_t used() const { return used_; }

   private:
    const std::size_t most_;
    const std::size_t most_each_;
    std::atomic<std::size_t> used_{0};
};

class DirectoryMoment {
   public:
    // Of the open directory, all that stands there from `place` on. The caller sees to it that
    // nothing changes meanwhile; `changes` is its count of changes then. `memory` outlives it.
    static Result<std::shared_ptr<const DirectoryMoment>> read(int fd, std::int64_t place,
                                                               std::uint32_t changes,
                                                               MomentMemory& memory);
    ~DirectoryMoment();
    DirectoryMoment(const DirectoryMoment&) = delete;
    DirectoryMoment& operator=(const DirectoryMoment&) = delete;

    [[nodiscard]] std::uint32_t changes() const { return changes_; }
    [[nodiscard]] std::int64_t place() const { return place_; }
    [[nodiscard]] bool in_memory() const { return !file_.valid(); }
    [[nodiscard]] std::size_t memory_bytes() const { return taken_; }

    // One's own place in a moment.
    class Reader {
       public:
        explicit Reader(std::shared_ptr<const DirectoryMoment> moment);
        // The next entry; nothing at the end. It stays until the next call.
        Result<std::optional<DirectoryEntry>> peek();
        void skip();  // what peek() gave
        // To where `place` is. False: it is no place of the moment's, and nothing was done.
        Result<bool> seek(std::int64_t place);
        [[nodiscard]] std::int64_t place() const { return at_.place; }
        // Who stands at what peek() gave, if anybody has said so: kNoObject otherwise, and always
        // if the moment is not in memory.
        [[nodiscard]] ObjectId object() const;
        void set_object(ObjectId id);

       private:
        struct At {
            std::int64_t place;
            std::uint64_t offset = 0;
            std::size_t index = 0;
            void pass(const DecodedEntry& decoded);
        };
        Result<const char*> bytes_at(std::uint64_t offset);
        Result<bool> search(At from, std::uint64_t to, std::int64_t wanted);

        std::shared_ptr<const DirectoryMoment> moment_;
        At at_;
        // From where the last seek() went on: programs come back to somewhere behind it when they
        // had no room for all that they were sent.
        At began_;
        std::vector<char> window_;  // of the file
        std::uint64_t window_at_ = 0;
    };

   private:
    // Every so many entries, for seek().
    static constexpr std::size_t kEntriesBetweenMarks = 256;
    struct Mark {
        std::int64_t place;
        std::uint64_t offset;
    };

    DirectoryMoment(std::int64_t place, std::uint32_t changes, MomentMemory& memory)
        : memory_(memory), place_(place), changes_(changes) {}
    Status append(int fd, const char* bytes, std::size_t size);
    Status move_to_file(int fd);
    void mark(const char* bytes, std::size_t size);
    void make_room_for_objects();

    MomentMemory& memory_;
    std::size_t taken_ = 0;  // of it
    const std::int64_t place_;
    const std::uint32_t changes_;
    std::uint64_t size_ = 0;
    std::vector<char> bytes_;  // empty if they are in the file
    Fd file_;
    std::size_t entries_ = 0;
    std::int64_t end_place_ = 0;  // behind the last entry so far
    bool ascending_ = true;       // places only grow, so that marks can be searched by halves
    std::vector<Mark> marks_;
    mutable std::vector<std::atomic<std::uint64_t>> objects_;  // one for each entry, or none
};

}  // namespace twinspool
