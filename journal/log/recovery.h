// SPDX-License-Identifier: Apache-2.0
// Recovery: where a folder of segments ends, and what the tail of a killed process holds beyond it.
// Used by the primary's journal and by the standby's receiver (which has no tail).
//
// The table (the labels stand in journal/README.md and in the tests' names). At the place where the
// next frame should stand, there is …
//   R1  a valid frame that continues the chain               → read on
//   R2  no valid frame, and a next segment that continues it → read on there
//   R3  no valid frame, no next segment, no later frame here → the end (a torn or absent frame)
//   R4  no valid frame, but a later valid one here or in a next segment → damage, named; nothing
//   done R5  a valid frame that does not continue the chain       → the end if it is older (left
//   over from
//       before a cut), damage otherwise
// and for the first segment: a header that is damaged, of another volume or version → named.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "journal/base/units.h"
#include "journal/format/frame.h"
#include "journal/log/segment.h"
#include "journal/log/tail.h"

namespace twinspool {

struct JournalEnd {
    Position end;     // last record; {0, 0}: nothing
    FramePlace next;  // where the next frame would stand; segment 0: no segment yet
    Lsn oldest{1};    // first record that is still there
    Lsn committed;    // as the newest frame says
    Lsn checkpoint;
    Epoch epoch;                     // newest
    std::vector<Epoch> epochs;       // those that begin in the segments, oldest first
    std::optional<WallTime> closed;  // the last record is a ClosedOp
    WallTime last_time{};            // of the newest frame
    std::uint32_t generation = 0;
    std::uint32_t seeded = 0;
    WallTime suspect_from{};  // as the newest frame says; 0: everything had been looked at
};

// Reads all frames of the folder in order. EBADMSG: damage, with file and offset.
Result<JournalEnd> find_end(const std::string& directory, std::uint64_t volume);

// Writes frames one after the other, each durable before the call returns; for recovery, where
// nobody waits in between. Follows on at `end`, begins segments as needed.
class DirectAppender {
   public:
    DirectAppender(SegmentFolder& folder, std::uint64_t volume, JournalEnd& end)
        : folder_(folder), volume_(volume), end_(end) {}
    // A frame that has its place already (from the tail or a link): refuses another place.
    Status append_placed(Bytes frame);
    // Records of the given range, as a new frame.
    Status append_records(const FrameContext& context, Lsn first, std::uint32_t count,
                          Bytes payload);

   private:
    Status open_place(std::size_t blocks);
    Status write(std::span<std::byte> padded, std::size_t size);

    SegmentFolder& folder_;
    std::uint64_t volume_;
    JournalEnd& end_;
    std::optional<Segment> segment_;
};

// Brings what the tail holds beyond `end` into the segments: sealed frames byte for byte, then the
// records of the frames that were being filled, each under its own Lsn (VoidOp where one is
// missing). Notes move to `inherited`. Afterwards the tail may be reset. Killed half-way, it can be
// done again.
Status replay_tail(TailLayout& tail, SegmentFolder& folder, std::uint64_t volume, JournalEnd& end);

}  // namespace twinspool
