// SPDX-License-Identifier: Apache-2.0
// Tail: the not-yet-durable end of the journal and the notes of what is being done, in a file that
// is always on tmpfs, allocated and locked in memory. It outlives a killed process, not a reboot:
// the boot id in it says which. One owner at a time (an exclusive flock).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "journal/base/fd.h"
#include "journal/base/result.h"
#include "journal/format/format.h"
#include "journal/format/note.h"

namespace twinspool {

inline constexpr std::uint32_t kNoteSlots = 256;
inline constexpr std::uint32_t kFillingSlots =
    24;                                           // frames being filled, or closed and not encoded
inline constexpr std::uint32_t kSealedSlots = 8;  // frames encoded, until durable and sent
// As many of the smallest as fit, so that frames are closed for their size, which credit counts.
inline constexpr std::uint32_t kMaxRecordsPerFrame = 24576;

static_assert(std::size_t{kMaxRecordsPerFrame} * 48 > kMaxFramePayload, "a chmod's record has 48");

// A frame being filled: raw records, and where each complete one stands.
struct FillingFrame {
    std::uint64_t first_lsn;
    std::uint64_t reserved[7];
    // [i]: (first_lsn << 24 | offset) once record i is complete: the Lsn tells it from a stale one
    std::atomic<std::uint64_t> complete[kMaxRecordsPerFrame];
    std::byte payload[kMaxFramePayload];
};

// A frame as it goes to the segment. `size` is set last.
struct SealedSlot {
    alignas(kBlockBytes) std::byte bytes[(kMaxFrameBytes / kBlockBytes + 1) * kBlockBytes];
    alignas(kBlockBytes) std::atomic<std::uint64_t> size;
};

struct TailHeader {
    std::uint64_t magic;
    std::uint32_t version;
    std::uint32_t in_use;  // 0 after a clean end
    std::uint64_t volume;
    char boot_id[40];
    // How many of `inherited` are to be looked at: notes of a dead process, kept here until what
    // they name has been logged, whoever dies meanwhile.
    std::atomic<std::uint32_t> inherited_count;
};

struct TailLayout {
    alignas(kBlockBytes) TailHeader header;
    alignas(kBlockBytes) Note notes[kNoteSlots];
    alignas(kBlockBytes) Note inherited[kNoteSlots];
    alignas(kBlockBytes) FillingFrame filling[kFillingSlots];
    alignas(kBlockBytes) SealedSlot sealed[kSealedSlots];
};

class Tail {
   public:
    // Opens or makes the file. EBUSY: another process owns it. EINVAL: `path` is not on tmpfs.
    static Result<Tail> open(const std::string& path, std::uint64_t volume);
    Tail(Tail&& other) noexcept;
    Tail& operator=(Tail&&) = delete;
    ~Tail();

    // Whether the content is what a killed process of this volume left in this boot.
    [[nodiscard]] bool left_behind() const { return left_behind_; }
    TailLayout& layout() { return *layout_; }
    // Empty but for the inherited notes, in use by this process. The caller has saved the rest.
    void reset();
    void mark_clean();  // nothing in it is needed any more

   private:
    Tail(Fd fd, TailLayout* layout, bool left_behind);
    Fd fd_;
    TailLayout* layout_;
    bool left_behind_;
};

}  // namespace twinspool
