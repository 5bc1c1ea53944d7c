// SPDX-License-Identifier: Apache-2.0
// The part of Tree that writes the content of files.
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "journal/delta/tree.h"

namespace twinspool {
namespace {

constexpr std::size_t kMaxVectors = 64;
constexpr std::size_t kZeroBytes = 65536;
constexpr std::size_t kFsBlockBytes = 4096;  // of most file systems

off_t offset_of(std::uint64_t value) { return static_cast<off_t>(value); }

Status write_all(int fd, std::uint64_t offset, const std::byte* data, std::size_t size) {
    while (size != 0) {
        const ssize_t written = ::pwrite(fd, data, size, offset_of(offset));
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return last_error("write {} bytes at {}", size, offset);
        if (written == 0) return make_error(EIO, "write {} bytes at {}", size, offset);
        data += written;
        size -= static_cast<std::size_t>(written);
        offset += static_cast<std::uint64_t>(written);
    }
    return {};
}

Status write_zeros(int fd, std::uint64_t offset, std::uint64_t end) {
    static constexpr std::array<std::byte, kZeroBytes> kZeros{};
    while (offset < end) {
        const std::size_t size = std::min<std::uint64_t>(end - offset, kZeros.size());
        TS_TRY(write_all(fd, offset, kZeros.data(), size));
        offset += size;
    }
    return {};
}

}  // namespace

// Where a hole ends inside a block, what was there before the range may have kept the block: it is
// given up as well if nothing is left in it. (In the source it was one hole before it was cut.)
Status Tree::empty_edges(int fd, std::uint64_t offset, const Extent& hole) {
    for (const std::uint64_t edge : {offset, offset + hole.length}) {
        if (edge % kFsBlockBytes == 0) continue;
        const std::uint64_t block = edge - edge % kFsBlockBytes;
        std::array<std::byte, kFsBlockBytes> bytes{};
        if (::pread(fd, bytes.data(), bytes.size(), offset_of(block)) < 0)
            return last_error("read {} bytes at {}", bytes.size(), block);
        if (std::all_of(bytes.begin(), bytes.end(), [](auto each) { return each == std::byte{}; }))
            TS_TRY(make_zeros(fd, block, {.length = bytes.size(), .kind = hole.kind}, block));
    }
    return {};
}

Status Tree::change_content(int fd, const ContentChange& content) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return last_error("look at a file");
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (content.cut()) TS_TRY(cut_at(fd, *content.cut(), status));
    const auto& extents = content.extents();
    for (auto it = extents.begin(); it != extents.end();) {
        if (it->second.kind == ExtentKind::kData) {
            TS_TRY(write_data(fd, it, extents.end()));
        } else {
            TS_TRY(make_zeros(fd, it->first, it->second, content.size().value_or(size)));
            ++it;
        }
    }
    if (content.size()) TS_TRY(set_size(fd, *content.size()));
    for (const auto& [offset, extent] : extents)
        if (extent.kind == ExtentKind::kHole) TS_TRY(empty_edges(fd, offset, extent));
    return {};
}

// Also where it is no longer than that: what was reserved beyond goes, as it did in the source. To
// become longer keeps it; to be cut at the size that it has then does not.
Status Tree::cut_at(int fd, std::uint64_t cut, const struct stat& before) {
    const auto size = static_cast<std::uint64_t>(before.st_size);
    if (size <= cut && before.st_blocks == 0) return {};
    for (int times = size < cut ? 2 : 1; times != 0; --times) {
        TS_TRY(step());
        if (::ftruncate(fd, offset_of(cut)) != 0) return last_error("cut a file at {}", cut);
    }
    return {};
}

Status Tree::set_size(int fd, std::uint64_t size) {
    struct stat status {};
    if (::fstat(fd, &status) != 0) return last_error("look at a file");
    // Setting the same size again would drop space kept beyond it.
    if (static_cast<std::uint64_t>(status.st_size) == size) return {};
    TS_TRY(step());
    if (::ftruncate(fd, offset_of(size)) != 0)
        return last_error("set the size of a file to {}", size);
    return {};
}

// Writes the data from `it` on that is contiguous, and moves `it` behind it.
Status Tree::write_data(int fd, ContentChange::Extents::const_iterator& it,
                        ContentChange::Extents::const_iterator end) {
    const std::uint64_t offset = it->first;
    std::uint64_t stop = offset;
    std::array<iovec, kMaxVectors> vectors;
    std::size_t count = 0;
    const auto first = it;
    for (; it != end && count < vectors.size() && it->first == stop &&
           it->second.kind == ExtentKind::kData;
         ++it) {
        vectors[count++] = {.iov_base = const_cast<std::byte*>(it->second.data),
                            .iov_len = it->second.length};
        stop += it->second.length;
    }
    TS_TRY(step());
    const ssize_t written =
        ::pwritev(fd, vectors.data(), static_cast<int>(count), offset_of(offset));
    if (written >= 0 && static_cast<std::uint64_t>(written) == stop - offset) return {};
    // Short or refused: one by one finds out which and why.
    for (auto again = first; again != it; ++again)
        TS_TRY(write_all(fd, again->first, again->second.data, again->second.length));
    return {};
}

Status Tree::make_zeros(int fd, std::uint64_t offset, const Extent& extent,
                        std::uint64_t file_size) {
    int mode = FALLOC_FL_KEEP_SIZE;
    if (extent.kind == ExtentKind::kHole) mode |= FALLOC_FL_PUNCH_HOLE;
    if (extent.kind == ExtentKind::kZero) mode |= FALLOC_FL_ZERO_RANGE;
    TS_TRY(step());
    if (::fallocate(fd, mode, offset_of(offset), offset_of(extent.length)) == 0) return {};
    if (errno != EOPNOTSUPP) return last_error("allocate {} bytes at {}", extent.length, offset);
    if (extent.kind == ExtentKind::kAllocated) return {};  // space, but no content
    return write_zeros(fd, offset, std::min(offset + extent.length, file_size));
}

}  // namespace twinspool
