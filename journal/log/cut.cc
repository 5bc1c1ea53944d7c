// SPDX-License-Identifier: Apache-2.0
#include "journal/log/cut.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "journal/base/fault.h"
#include "journal/log/cursor.h"
#include "journal/log/segment.h"

namespace twinspool {
namespace {

constexpr std::size_t kCopyBytes = std::size_t{1} << 20;

Status sync_folder(const std::string& directory) {
    const Fd fd{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd.valid() || ::fsync(fd.get()) != 0) return last_error("sync the folder {}", directory);
    return {};
}

// The first `kept` bytes of the segment, and zeros: what stood there must not be found again behind
// the frames that come now.
Status copy_cut(const Segment& source, std::uint64_t kept, const std::string& path) {
    const Fd target{
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600)};
    if (!target.valid()) return last_error("make {}", path);
    const AlignedBuffer buffer{kCopyBytes};
    for (std::uint64_t at = 0; at < source.header.bytes;) {
        const std::uint64_t size = std::min<std::uint64_t>(kCopyBytes, source.header.bytes - at);
        std::fill_n(buffer.data(), size, std::byte{});
        if (at < kept) {
            const std::uint64_t wanted = std::min(size, kept - at);
            if (::pread(source.fd.get(), buffer.data(), wanted, static_cast<off_t>(at)) !=
                static_cast<ssize_t>(wanted))
                return last_error("read segment {} at offset {}", source.path, at);
        }
        if (::pwrite(target.get(), buffer.data(), size, static_cast<off_t>(at)) !=
            static_cast<ssize_t>(size))
            return last_error("write {}", path);
        at += size;
    }
    if (::fsync(target.get()) != 0) return last_error("sync {}", path);
    return {};
}

}  // namespace

// The newest segment goes first, each durably before the one before it is touched; the last is
// replaced as a whole. So at any moment the folder holds a journal that is merely longer.
Status cut_back(const std::string& directory, std::uint64_t volume, Position end) {
    TS_ASSIGN(const Cursor cursor, Cursor::open(directory, volume, end.lsn + 1));
    if (cursor.position() != end.lsn + 1 || cursor.previous() != end.chain)
        return make_error(EBADMSG, "cut the journal in {} back to record {}: {}", directory,
                          end.lsn.value,
                          cursor.position() != end.lsn + 1 ? "no frame ends there"
                                                           : "its bytes are others there");
    const FramePlace place = cursor.place();
    TS_ASSIGN(const auto segments, list_segments(directory));
    for (auto each = segments.rbegin(); each->number != place.segment; ++each) {
        if (::unlink(each->path.c_str()) != 0) return last_error("remove {}", each->path);
        TS_TRY(sync_folder(directory));
        TS_FAULT(receiver_cut);
    }
    TS_ASSIGN(const Segment last,
              open_segment(segment_path(directory, place.segment), volume, O_RDONLY));
    // A name that SegmentFolder::start() takes for a spare's, and removes, if we die before.
    const std::string replacement = directory + "/spare.cut";
    TS_TRY(copy_cut(last, std::uint64_t{place.block} * kBlockBytes, replacement));
    if (::rename(replacement.c_str(), last.path.c_str()) != 0)
        return last_error("replace the segment {}", last.path);
    return sync_folder(directory);
}

}  // namespace twinspool
