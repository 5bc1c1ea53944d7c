// SPDX-License-Identifier: Apache-2.0
// Journal: what the overlay, the walker and the links see of the journal. Append, wait, read on.
//
// Append path (any thread; no lock, no allocation): take credit, act, append, give the rest back.
// Credit is frame space promised beforehand, so that an outcome can always be logged once the tree
// has been changed. Order of the Lsn is order of append(); callers hold the object's lock over act
// and append so that two changes of one object are logged in the order in which they happened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/format/note.h"
#include "journal/format/op.h"
#include "journal/format/record.h"
#include "journal/log/commit.h"
#include "journal/log/tail.h"

namespace twinspool {

struct JournalOptions {
    std::string directory;     // of the segments
    std::string tail_path;     // on tmpfs
    std::uint64_t volume = 0;  // random id of the volume
    std::uint8_t node = 1;     // for object ids
    std::uint64_t segment_bytes = std::uint64_t{64} << 20;
    std::uint64_t limit_bytes = std::uint64_t{8} << 30;
    Nanoseconds linger{2'000'000};
    std::uint32_t standby_count = 1;
    AckRule ack = AckRule::kAll;
    CommitMode mode = CommitMode::kFsync;
};

// What a new start found: where the reign before ended.
struct Predecessor {
    Lsn end;                       // last record of the journal
    bool clean = false;            // it ended with ClosedOp
    WallTime unchanged_before{};   // objects with a ctime >= this may have changed without a record
    std::uint32_t generation = 0;  // of the seed in progress, or of the last one; 0: none yet
    std::uint32_t seeded = 0;      // newest generation whose seed is complete; 0: none
    std::vector<Note> notes;       // operations in flight when it was killed (same boot only)
};

// A frame as it went to the segment: shared by the local write and the links, never changed.
struct SealedFrame {
    Lsn first;
    Lsn last;
    Bytes bytes;  // header and stored payload, without the padding; lives in the tail
};

// Told of each sealed frame, in order, by who sealed it: the writer's thread, or one that waits for
// the commit; must not block. The pin keeps the bytes; who is too slow drops it and reads the frame
// from the segment later.
class FrameSink {
   public:
    virtual ~FrameSink() = default;
    virtual void offer(const std::shared_ptr<const SealedFrame>& frame) = 0;
};

struct JournalCounters {
    Lsn appended;
    Lsn durable;
    Lsn committed;
    Lsn checkpoint;
    std::uint64_t bytes = 0;   // segments on disk
    std::uint64_t frames = 0;  // written in this reign
};

class Journal {
   public:
    // Recovers what is there (or makes a new journal), begins an epoch. The writer runs from here
    // on.
    static Result<std::unique_ptr<Journal>> open(const JournalOptions& options);
    ~Journal();
    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;

    // --- append path
    // Takes the credit for one record of at most `bytes` (see max_encoded_size()) if there is any.
    [[nodiscard]] bool try_take_credit(std::size_t bytes);
    // Waits for it. Not for threads that serve a FUSE queue. False: the journal has failed.
    [[nodiscard]] bool take_credit(std::size_t bytes);
    void give_credit(std::size_t bytes);
    // `resume` is called once, from another thread, when credit may be there again: try again then.
    void when_credit(std::function<void()> resume);
    // Uses up credit taken before. Fills in the record's Lsn, never fails, never waits.
    template <typename T>
    Lsn append(const T& op) {
        const std::size_t size = encoded_size(op);
        const Reservation place = reserve(size);
        encode(op, place.lsn, place.bytes);
        complete(place);
        return place.lsn;
    }

    // A note slot for the calling thread, for as long as it lives (released at thread exit is not
    // needed: threads that mutate live as long as the journal). ENOSPC asserts: kNoteSlots bounds
    // it.
    Note& note_for_this_thread();

    ObjectId new_object_id();

    // --- durability
    Commit& commit();
    // Seals and writes what is appended so far even if nobody waits.
    void push();
    // Appends and waits until it is durable here (not: on standbys). Not for FUSE queue threads.
    Status make_durable(Lsn lsn);
    // Non-zero once the local journal cannot be written any more (an errno): changes get EROFS.
    [[nodiscard]] int failure() const;

    // --- seed generations: stamped into every frame, so that they survive the recycling of
    // segments Durable when it returns: a standby may be told to start over.
    void begin_generation(std::uint32_t generation);
    void generation_seeded(std::uint32_t generation);  // logs SeededOp

    // --- links
    void attach(FrameSink& sink);
    void detach(FrameSink& sink);

    // --- state
    [[nodiscard]] const Predecessor& predecessor() const;
    void forget_notes();  // their outcome is logged
    [[nodiscard]] Epoch epoch() const;
    // All reigns there ever were, in the order in which they began (journal/log/epochs.h).
    [[nodiscard]] const std::vector<Epoch>& epochs() const;
    [[nodiscard]] std::uint32_t generation() const;  // that is told now, or was told last
    [[nodiscard]] std::uint32_t seeded() const;      // the newest whose end is durable here
    [[nodiscard]] JournalCounters counters() const;
    [[nodiscard]] Lsn appended() const;
    [[nodiscard]] Lsn oldest() const;  // first Lsn still in a segment

    // Records that every change up to `lsn` is in the synced backing trees, and recycles segments
    // below it that no standby needs (`keep_from`: the first Lsn that one does).
    Status checkpoint(Lsn lsn);
    Status recycle(Lsn keep_from);

    // Ends the reign: everything durable; the writer stops. `closed`: the clean end is recorded.
    struct CloseOptions {
        bool clean = true;
    };
    Status close(CloseOptions options);

   private:
    struct Reservation {
        Lsn lsn;
        std::span<std::byte> bytes;
        std::uint32_t slot = 0;
        std::uint32_t index = 0;
    };
    struct Parts;
    explicit Journal(std::unique_ptr<Parts> parts);
    Reservation reserve(std::size_t size);
    void complete(const Reservation& place);

    std::unique_ptr<Parts> parts_;
};

}  // namespace twinspool
