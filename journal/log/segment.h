// SPDX-License-Identifier: Apache-2.0
// Segment: a preallocated file of frames; and the folder of them. A file is written with zeros
// once, then only overwritten and, when no longer needed, given a new number: no block is ever
// allocated while somebody waits for a commit. Files in use are `<16 hex digits>.seg`, spares
// `spare.<n>`.
//
// SegmentFolder is used by one thread (writer or receiver) and keeps one of its own that prepares
// spares. retire() may be called by any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "journal/base/fd.h"
#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/format/format.h"

namespace twinspool {

// A buffer that O_DIRECT accepts.
class AlignedBuffer {
   public:
    explicit AlignedBuffer(std::size_t bytes);
    AlignedBuffer(AlignedBuffer&& other) noexcept;
    AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
    ~AlignedBuffer();
    [[nodiscard]] std::byte* data() const { return data_; }
    [[nodiscard]] std::size_t size() const { return size_; }

   private:
    std::byte* data_;
    std::size_t size_;
};

struct Segment {
    Fd fd;  // O_DIRECT
    std::string path;
    SegmentHeader header{};
    [[nodiscard]] SegmentNumber number() const { return SegmentNumber{header.number}; }
    [[nodiscard]] std::uint32_t blocks() const {
        return static_cast<std::uint32_t>(header.bytes / kBlockBytes);
    }
};

struct SegmentName {
    SegmentNumber number{};
    std::string path;
};

std::string segment_path(const std::string& directory, SegmentNumber number);
// The *.seg files of a folder, by number.
Result<std::vector<SegmentName>> list_segments(const std::string& directory);
// Opens and checks the header: EBADMSG with file and reason. `volume` 0: any.
Result<Segment> open_segment(const std::string& path, std::uint64_t volume, int flags);
// What the header of a new segment must say; `number` and `bytes` are the folder's business.
struct SegmentStart {
    std::uint64_t volume = 0;
    SegmentNumber number{};
    Lsn first;
    Chain previous{};
    Epoch epoch;
};

// Room for two frames of the largest size, in whole blocks, and not beyond reason.
bool is_segment_size(std::uint64_t bytes);

class SegmentFolder {
   public:
    SegmentFolder(std::string directory, std::uint64_t segment_bytes);
    ~SegmentFolder();
    SegmentFolder(const SegmentFolder&) = delete;
    SegmentFolder& operator=(const SegmentFolder&) = delete;

    // Makes the folder; forgets half-made files; the thread that prepares spares starts.
    Status start();
    // A spare becomes the segment. Its header is durable when this returns.
    Result<Segment> begin(const SegmentStart& start);
    // The segment is not needed any more: a spare, or gone.
    Status retire(SegmentNumber number);
    // The disk is full, and somebody else needs it more: spares go, and none is prepared or kept
    // before one is wanted. Any thread.
    void give_back();
    [[nodiscard]] const std::string& directory() const { return directory_; }
    // Of all files here, spares too.
    [[nodiscard]] std::uint64_t bytes() const;

   private:
    Result<std::string> make_spare(std::uint64_t serial);
    Result<std::string> take_spare();
    void prepare();

    const std::string directory_;
    const std::uint64_t segment_bytes_;
    mutable std::mutex mutex_;  // protects what follows
    std::condition_variable changed_;
    std::vector<std::string> spares_;
    std::uint64_t serial_ = 0;
    std::uint64_t wanted_ = 0;  // who waits for a spare
    int error_ = 0;
    bool stopping_ = false;
    std::thread preparer_;
};

}  // namespace twinspool
