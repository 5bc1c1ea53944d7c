// SPDX-License-Identifier: Apache-2.0
// ContentChange: the net effect of a range of the journal on the content of one regular file: what
// of the old content is cut off, which extents are new, and the final size where it is known.
//
// Invariants: extents are disjoint and none is empty; a byte outside of them that lies below cut()
// is what it was before. Data is borrowed (from the frames that the delta keeps).
// Values only; no threads, no errors. Used by journal/delta/delta, journal/delta/apply.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

#include "journal/format/op.h"

namespace twinspool {

enum class ExtentKind : std::uint8_t {
    kData,       // these bytes
    kHole,       // punched: zeros, no space
    kZero,       // zeros, space kept
    kAllocated,  // old content, space made sure of
};

struct Extent {
    std::uint64_t length = 0;
    ExtentKind kind{};
    const std::byte* data = nullptr;  // kData only
};

class ContentChange {
   public:
    using Extents = std::map<std::uint64_t, Extent>;  // by offset

    void start_empty();  // nothing that was there before counts
    void write(std::uint64_t offset, Bytes data);
    void truncate(std::uint64_t size);
    void allocate(const AllocateOp& op);

    [[nodiscard]] bool empty() const { return extents_.empty() && !cut_ && !size_; }
    [[nodiscard]] const Extents& extents() const { return extents_; }
    // The smallest size it had in the range: old content beyond is dropped.
    [[nodiscard]] std::optional<std::uint64_t> cut() const { return cut_; }
    // The final size; where it is not known the extents say how far the file reaches at least.
    [[nodiscard]] std::optional<std::uint64_t> size() const { return size_; }

   private:
    void carve(std::uint64_t begin, std::uint64_t end);  // makes room
    void insert(std::uint64_t offset, Extent extent);
    void allocate_gaps(std::uint64_t begin, std::uint64_t end);

    Extents extents_;
    std::optional<std::uint64_t> cut_;
    std::optional<std::uint64_t> size_;
};

}  // namespace twinspool
