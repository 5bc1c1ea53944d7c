// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/content.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace twinspool {
namespace {

off_t offset_of(std::uint64_t value) { return static_cast<off_t>(value); }

// Until `into` is full or the content ends, which it should not: a file may be cut meanwhile.
Result<std::size_t> read_full(Content& content, std::uint64_t offset, std::span<std::byte> into) {
    std::size_t got = 0;
    while (got < into.size()) {
        TS_ASSIGN(const auto more, content.read(offset + got, into.subspan(got)));
        if (more == 0) break;
        got += more;
    }
    return got;
}

Status write_full(int fd, std::uint64_t offset, std::span<const std::byte> data) {
    while (!data.empty()) {
        const ssize_t written = ::pwrite(fd, data.data(), data.size(), offset_of(offset));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0)
            return make_error(written < 0 ? errno : EIO, "write {} bytes at {}", data.size(),
                              offset);
        data = data.subspan(static_cast<std::size_t>(written));
        offset += static_cast<std::uint64_t>(written);
    }
    return {};
}

std::uint64_t count_differing(std::span<const std::byte> a, std::span<const std::byte> b) {
    const std::size_t common = std::min(a.size(), b.size());
    std::uint64_t count = std::max(a.size(), b.size()) - common;
    if (std::memcmp(a.data(), b.data(), common) == 0) return count;
    for (std::size_t i = 0; i < common; ++i) count += a[i] != b[i] ? 1 : 0;
    return count;
}

// The data ranges of one side, asked for once each.
class DataAhead {
   public:
    explicit DataAhead(Content& content) : content_(content) {}
    // Where data begins at or after `offset`; `none` if there is none before.
    Result<std::uint64_t> next(std::uint64_t offset, std::uint64_t none) {
        if (!known_ || (range_ && range_->offset + range_->length <= offset)) {
            TS_ASSIGN(range_, content_.next_data(offset));
            known_ = true;
        }
        if (!range_) return none;
        return std::min(none, std::max(offset, range_->offset));
    }

   private:
    Content& content_;
    bool known_ = false;
    std::optional<ImageRange> range_;
};

}  // namespace

Result<std::size_t> FileContent::read(std::uint64_t offset, std::span<std::byte> into) {
    for (;;) {
        const ssize_t got = ::pread(fd_, into.data(), into.size(), offset_of(offset));
        if (got >= 0) return static_cast<std::size_t>(got);
        if (errno != EINTR) return last_error("read {} bytes at {}", into.size(), offset);
    }
}

Result<std::optional<ImageRange>> FileContent::next_data(std::uint64_t offset) {
    if (offset >= size_) return std::optional<ImageRange>{};
    const off_t data = ::lseek(fd_, offset_of(offset), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return std::optional<ImageRange>{};
    // A file system that knows no holes: everything is data.
    if (data < 0) return std::optional{ImageRange{.offset = offset, .length = size_ - offset}};
    const off_t hole = ::lseek(fd_, data, SEEK_HOLE);
    const auto begin = static_cast<std::uint64_t>(data);
    const auto end = hole > data ? static_cast<std::uint64_t>(hole) : size_;
    if (end <= begin) return std::optional<ImageRange>{};
    return std::optional{ImageRange{.offset = begin, .length = end - begin}};
}

Result<std::uint64_t> count_differing(Content& a, Content& b, CountWhat what,
                                      const ChunkDone& done) {
    const std::uint64_t common = std::min(a.size(), b.size());
    std::uint64_t count = std::max(a.size(), b.size()) - common;
    if (common == 0 || (what == CountWhat::kFirstOnly && count != 0)) return count;
    std::vector<std::byte> mine(std::min<std::uint64_t>(common, kContentChunk));
    std::vector<std::byte> other(mine.size());
    DataAhead data_a{a};
    DataAhead data_b{b};
    for (std::uint64_t at = 0; at < common;) {
        TS_ASSIGN(const auto next_a, data_a.next(at, common));
        TS_ASSIGN(const auto next_b, data_b.next(at, common));
        at = std::min(next_a, next_b);
        const std::size_t size = std::min<std::uint64_t>(common - at, mine.size());
        if (size == 0) break;
        TS_ASSIGN(const auto got_a, read_full(a, at, {mine.data(), size}));
        TS_ASSIGN(const auto got_b, read_full(b, at, {other.data(), size}));
        count += count_differing(std::span<const std::byte>{mine.data(), got_a},
                                 std::span<const std::byte>{other.data(), got_b});
        if (got_a != size && got_b != size) count += size - std::max(got_a, got_b);
        if (what == CountWhat::kFirstOnly && count != 0) return count;
        at += size;
        TS_TRY(done(size));
    }
    return count;
}

Status copy_content(Content& source, int target, const ChunkDone& done) {
    const std::uint64_t size = source.size();
    std::vector<std::byte> buffer(std::min<std::uint64_t>(size, kContentChunk));
    for (std::uint64_t at = 0; at < size;) {
        TS_ASSIGN(const auto range, source.next_data(at));
        if (!range || range->offset >= size) break;
        const std::uint64_t end = std::min(size, range->offset + range->length);
        for (at = std::max(at, range->offset); at < end;) {
            const std::span<std::byte> chunk{buffer.data(),
                                             std::min<std::uint64_t>(end - at, buffer.size())};
            TS_ASSIGN(const auto got, read_full(source, at, chunk));
            if (got != chunk.size())
                return make_error(EIO, "read {} bytes at {}: there are only {}", chunk.size(), at,
                                  got);
            TS_TRY(write_full(target, at, chunk));
            at += got;
            TS_TRY(done(got));
        }
    }
    if (::ftruncate(target, offset_of(size)) != 0)
        return last_error("set the size of a file to {}", size);
    return {};
}

}  // namespace twinspool
