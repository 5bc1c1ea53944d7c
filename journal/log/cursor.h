// SPDX-License-Identifier: Apache-2.0
// Cursor: reads frames in order from a folder of segments while the writer goes on appending there.
// One thread at a time; reads with O_DIRECT, so it never sees a stale page.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/format/format.h"
#include "journal/format/frame.h"

namespace twinspool {

class Cursor {
   public:
    // Stands before the frame that holds `from`. ENOENT: that frame is in no segment any more.
    static Result<Cursor> open(const std::string& directory, std::uint64_t volume, Lsn from);
    Cursor(Cursor&&) noexcept;
    Cursor& operator=(Cursor&&) noexcept;
    ~Cursor();

    // The next frame, if its last Lsn is at most `limit` (which must be durable in this folder);
    // nothing otherwise. ENOENT: the segment has been recycled under us. EBADMSG: damage, with file
    // and offset.
    Result<std::optional<Frame>> next(Lsn limit);
    [[nodiscard]] Lsn position() const;           // the first Lsn that next() would give
    [[nodiscard]] Chain previous() const;         // chain before it
    [[nodiscard]] SegmentNumber segment() const;  // the one it stands in now
    [[nodiscard]] FramePlace place() const;       // where that frame stands, or would stand there

   private:
    struct Parts;
    explicit Cursor(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

}  // namespace twinspool
