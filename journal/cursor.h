// SPDX-License-Identifier: Apache-2.0
// Cursor: reads frames in order from a folder of segments while the writer goes on appending there.
// One thread at a time; reads with O_DIRECT, so it never sees a stale page.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "journal/format.h"
#include "journal/op.h"
#include "journal/record.h"
#include "journal/result.h"
#include "journal/units.h"

namespace twinspool {

struct FramePlace {
    SegmentNumber segment{};
    std::uint32_t block = 0;
    friend bool operator==(const FramePlace&, const FramePlace&) = default;
};

// A frame read back: its bytes as they stand in the segment, and the records in it, uncompressed.
struct Frame {
    FrameHeader header{};
    std::vector<std::byte> stored;   // header and stored payload, without the padding
    std::vector<std::byte> payload;  // raw records
    [[nodiscard]] Lsn first() const { return Lsn{header.first_lsn}; }
    [[nodiscard]] Lsn last() const { return Lsn{header.first_lsn + header.record_count - 1}; }
    // Calls `visit(const Record&)` for each; EBADMSG for a record that does not decode.
    template <typename Visit>
    Status for_each(Visit&& visit) const {
        Bytes rest{payload};
        while (!rest.empty()) {
            auto record = decode_record(rest);
            if (!record.ok()) return record.error();
            TS_TRY(visit(*record));
            rest = rest.subspan(record->encoded.size());
        }
        return {};
    }
};

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
