// SPDX-License-Identifier: Apache-2.0
// DirectoryMoment: the entries of a directory as they stood at one moment, from a place on: to its
// end, or, of a directory beyond kMostBytes (a million messages), as many as fit. What an open
// directory lists, so that no name is missed or comes twice however long the listing takes and
// whatever is renamed meanwhile.
//
// Invariants: the entries never change once it is there; who stands at each is asked once.
// Threads: a moment any; a Reader one at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "fuse/objects/directory_stream.h"
#include "journal/base/units.h"

namespace twinspool {

class DirectoryMoment {
   public:
    static constexpr std::size_t kMostBytes = std::size_t{64} << 20;

    // Of the open directory, what stands there from `place` on. The caller sees to it that nothing
    // changes meanwhile; `changes` is its count of changes then. `used` holds the memory of all
    // moments, and outlives it.
    struct Taken {
        std::int64_t place = 0;
        std::uint32_t changes = 0;
        std::size_t most_bytes = kMostBytes;
    };
    static Result<std::shared_ptr<const DirectoryMoment>> read(int fd, const Taken& taken,
                                                               std::atomic<std::size_t>& used);
    ~DirectoryMoment();
    DirectoryMoment(const DirectoryMoment&) = delete;
    DirectoryMoment& operator=(const DirectoryMoment&) = delete;

    [[nodiscard]] std::uint32_t changes() const { return changes_; }
    [[nodiscard]] std::int64_t place() const { return place_; }
    // The directory goes on behind the last entry.
    [[nodiscard]] bool is_cut() const { return cut_; }
    [[nodiscard]] std::size_t memory_bytes() const { return memory_bytes_; }

    // One's own place in a moment.
    class Reader {
       public:
        explicit Reader(std::shared_ptr<const DirectoryMoment> moment);
        // The next entry; nothing at the end. It stays as long as the moment.
        [[nodiscard]] std::optional<DirectoryEntry> peek() const;
        void skip();  // what peek() gave
        // To where `place` is. False: it is no place of the moment's, and nothing was done. So is
        // the end of one that is cut.
        bool seek(std::int64_t place);
        [[nodiscard]] std::int64_t place() const { return at_.place; }
        // Who stands at what peek() gave, if anybody has said so; else kNoObject.
        [[nodiscard]] ObjectId object() const;
        void set_object(ObjectId id);

       private:
        struct At {
            std::int64_t place;
            std::size_t offset = 0;
            std::size_t index = 0;
            void pass(const DecodedEntry& decoded);
        };
        bool search(At from, std::size_t to, std::int64_t wanted);

        std::shared_ptr<const DirectoryMoment> moment_;
        At at_;
        // From where the last seek() went on: programs come back to somewhere behind it when they
        // had no room for all that they were sent.
        At began_;
    };

   private:
    // Every so many entries, for seek().
    static constexpr std::size_t kEntriesBetweenMarks = 256;
    struct Mark {
        std::int64_t place;
        std::size_t offset;
    };

    DirectoryMoment(const Taken& taken, std::atomic<std::size_t>& used)
        : used_(used), place_(taken.place), changes_(taken.changes) {}
    void append(const char* bytes, std::size_t size);
    void finish();

    std::atomic<std::size_t>& used_;
    std::size_t memory_bytes_ = 0;  // of it
    const std::int64_t place_;
    const std::uint32_t changes_;
    bool cut_ = false;
    std::vector<char> bytes_;
    std::size_t entries_ = 0;
    std::int64_t end_place_ = 0;  // behind the last entry so far
    bool ascending_ = true;       // places only grow, so that marks can be searched by halves
    std::vector<Mark> marks_;
    mutable std::vector<std::atomic<std::uint64_t>> objects_;  // one for each entry
};

}  // namespace twinspool
