// SPDX-License-Identifier: Apache-2.0
#include "journal/format/block_hash.h"

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace twinspool {
namespace {

constexpr std::size_t kReadBytes = 16 * kCheckBlockBytes;

class BlockHasher {
   public:
    explicit BlockHasher(int fd) : fd_(fd) {}

    // [begin, end) is at most kReadBytes, and not empty.
    Status add(std::uint64_t begin, std::uint64_t end) {
        const auto length = static_cast<std::size_t>(end - begin);
        const bool hole = is_hole(begin, end);
        if (!hole) TS_TRY(read(begin, length));
        for (std::size_t at = 0; at < length; at += kCheckBlockBytes) {
            const std::size_t bytes = std::min(kCheckBlockBytes, length - at);
            add_hash(hole ? hash_of_zeros(bytes) : XXH3_128bits(buffer_.data() + at, bytes));
        }
        return {};
    }
    std::vector<std::byte> hashes;

   private:
    // Asked in ascending order. A file system that knows of no holes has none.
    bool is_hole(std::uint64_t begin, std::uint64_t end) {
        if (begin >= data_) {
            const off_t found = ::lseek(fd_, static_cast<off_t>(begin), SEEK_DATA);
            data_ = found >= 0       ? static_cast<std::uint64_t>(found)
                    : errno == ENXIO ? UINT64_MAX
                                     : begin;
        }
        return data_ >= end;
    }

    Status read(std::uint64_t offset, std::size_t length) {
        buffer_.resize(kReadBytes);
        std::size_t filled = 0;
        while (filled < length) {
            const ssize_t got = ::pread(fd_, buffer_.data() + filled, length - filled,
                                        static_cast<off_t>(offset + filled));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return last_error("read {} bytes at {}", length, offset);
            if (got == 0) break;
            filled += static_cast<std::size_t>(got);
        }
        std::memset(buffer_.data() + filled, 0, length - filled);
        return {};
    }

    static XXH128_hash_t hash_of_zeros(std::size_t bytes) {
        static const std::vector<std::byte> zeros(kCheckBlockBytes);
        static const XXH128_hash_t whole = XXH3_128bits(zeros.data(), kCheckBlockBytes);
        return bytes == kCheckBlockBytes ? whole : XXH3_128bits(zeros.data(), bytes);
    }

    void add_hash(const XXH128_hash_t& hash) {
        XXH128_canonical_t canonical;
        XXH128_canonicalFromHash(&canonical, hash);
        static_assert(sizeof canonical == kBlockHashBytes);
        const auto* bytes = reinterpret_cast<const std::byte*>(&canonical);
        hashes.insert(hashes.end(), bytes, bytes + sizeof canonical);
    }

    const int fd_;
    std::uint64_t data_ = 0;  // where the next data begins
    std::vector<std::byte> buffer_;
};

}  // namespace

Result<std::vector<std::byte>> hash_blocks(int fd, std::uint64_t offset, std::uint64_t length,
                                           std::uint64_t size) {
    BlockHasher hasher{fd};
    const std::uint64_t blocks = blocks_checked(offset, length, size);
    if (blocks == 0) return std::move(hasher.hashes);
    hasher.hashes.reserve(static_cast<std::size_t>(blocks) * kBlockHashBytes);
    const std::uint64_t end = length < size - offset ? offset + length : size;
    for (std::uint64_t at = offset; at < end; at += kReadBytes)
        TS_TRY(hasher.add(at, std::min<std::uint64_t>(end, at + kReadBytes)));
    return std::move(hasher.hashes);
}

}  // namespace twinspool
