// SPDX-License-Identifier: Apache-2.0
#include "fuse/tell/checks.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "fuse/objects/xattrs.h"
#include "journal/format/block_hash.h"
#include "journal/format/check_list.h"

namespace twinspool {
namespace {

// From here on a hole is logged as such; a smaller one is compared as zeros.
constexpr std::uint64_t kLargeHole = kMaxDataBytes;
constexpr std::size_t kUsualXattrBytes = std::size_t{8} * 1024;
constexpr std::size_t kMostXattrBytes = std::size_t{512} * 1024;

std::vector<std::byte>& content_buffer() {
    thread_local std::vector<std::byte> buffer(kMaxDataBytes);
    return buffer;
}

std::uint64_t end_of(std::uint64_t offset, std::uint64_t length, std::uint64_t size) {
    return std::min(size, offset + std::min<std::uint64_t>(length, size));
}

// What a file holds, hashed without its lock.
struct Glance {
    std::uint32_t changes = 0;
    std::uint64_t size = 0;
    std::vector<std::byte> hashes;
};

Result<Glance> glance_at(Inode& file, int fd, std::uint64_t offset, std::uint64_t length) {
    Glance glance;
    {
        const std::lock_guard lock{file.mutex};  // nobody is in the middle of a change
        glance.changes = file.changes.load(std::memory_order_relaxed);
    }
    struct statx now {};
    if (const int error = stat_object(fd, now)) return plain(error);
    glance.size = now.stx_size;
    (void)::readahead(fd, static_cast<off64_t>(offset), length);
    TS_ASSIGN(glance.hashes, hash_blocks(fd, offset, length, now.stx_size));
    return glance;
}

}  // namespace

Result<Fd> open_content(Volume& volume, const Inode& file) {
    return open_handle(volume.directories[file.directory].backing_fd, file.handle,
                       O_RDONLY | O_NOFOLLOW | O_NOATIME);
}

Result<Piece> next_piece(int fd, std::uint64_t from, std::uint64_t file_size) {
    if (from >= file_size) return Piece{.offset = file_size, .size = 0};
    off_t start = ::lseek(fd, static_cast<off_t>(from), SEEK_DATA);
    if (start < 0 && errno == ENXIO) return Piece{.offset = file_size, .size = 0};
    if (start < 0) start = static_cast<off_t>(from);  // a file system without that: all is data
    off_t stop = ::lseek(fd, start, SEEK_HOLE);
    if (stop < 0) stop = static_cast<off_t>(file_size);
    const std::uint64_t end = std::min(static_cast<std::uint64_t>(stop), file_size);
    const auto begin = static_cast<std::uint64_t>(start);
    if (begin >= end) return Piece{.offset = file_size, .size = 0};
    return Piece{
        .offset = begin,
        .size = static_cast<std::size_t>(std::min<std::uint64_t>(end - begin, kMaxDataBytes))};
}

Result<ContentStep> check_content(Volume& volume, Checkbook& book, Inode& file, int fd,
                                  Asked asked) {
    if (asked.length == 0) asked.length = kMaxDataBytes;
    TS_ASSIGN(Glance glance, glance_at(file, fd, asked.offset, asked.length));
    ContentStep step;
    constexpr std::size_t kHashBytes = kMaxDataBytes / kCheckBlockBytes * kBlockHashBytes;
    const auto log = [&](Turn& turn, const struct statx& now) -> Status {
        if (file.changes.load(std::memory_order_relaxed) != glance.changes) {
            TS_ASSIGN(glance.hashes, hash_blocks(fd, asked.offset, asked.length, now.stx_size));
            glance.size = now.stx_size;
        }
        step.next = std::max(asked.offset, end_of(asked.offset, asked.length, glance.size));
        step.logged = step.next - asked.offset;
        step.at_end = step.next >= glance.size;
        if (step.logged == 0 && asked.offset > 0) return {};
        asked.bytes = step.logged;
        // With the whole length: what a standby has behind the end of the file is different, too.
        book.log(turn,
                 CheckContentOp{.object = file.id,
                                .offset = asked.offset,
                                .length = asked.length,
                                .size = glance.size,
                                .exact = asked.exact(),
                                .hashes = glance.hashes},
                 asked);
        return {};
    };
    TS_TRY(with_object(volume, file, fd, max_encoded_size(kHashBytes), log));
    return step;
}

namespace {

// E2BIG: `most` is not enough for its extended attributes.
Status check_object_within(Volume& volume, Checkbook& book, Inode& object, int fd,
                           const Asked& asked, std::size_t most) {
    const auto log = [&](Turn& turn, const struct statx& now) -> Status {
        TS_ASSIGN(auto xattrs, read_xattrs(fd));
        std::sort(xattrs.begin(), xattrs.end(),
                  [](const Xattr& one, const Xattr& other) { return one.name < other.name; });
        std::vector<std::byte> encoded;
        for (const Xattr& xattr : xattrs)
            add_checked_xattr(encoded, {.name = xattr.name,
                                        .value = {reinterpret_cast<const char*>(xattr.value.data()),
                                                  xattr.value.size()}});
        std::string target;
        if (S_ISLNK(now.stx_mode)) {
            TS_ASSIGN(target, link_target(fd));
        }
        if (encoded.size() + target.size() > most) return plain(E2BIG);
        book.log(turn,
                 CheckObjectOp{.object = object.id,
                               .attributes = attributes_of(now),
                               .device = device_of(now),
                               .target = target,
                               .exact = asked.exact(),
                               .xattrs = encoded},
                 asked);
        return {};
    };
    return with_object(volume, object, fd, max_encoded_size(most), log);
}

}  // namespace

// With a descriptor of its own: a walk through everything would push the others' out of the cache.
Status check_object(Volume& volume, Checkbook& book, Inode& object, const Asked& asked) {
    TS_ASSIGN(const Fd fd,
              open_handle(volume.backing_fd(object), object.handle, O_PATH | O_NOFOLLOW));
    const Status usual =
        check_object_within(volume, book, object, fd.get(), asked, kUsualXattrBytes);
    if (usual.ok() || usual.error().code != E2BIG) return usual;
    return check_object_within(volume, book, object, fd.get(), asked, kMostXattrBytes);
}

Status log_size(Volume& volume, Inode& file, int fd) {
    return with_object(
        volume, file, fd, max_encoded_size(0), [&](Turn& turn, const struct statx& now) -> Status {
            turn.append(
                TruncateOp{.object = file.id, .size = now.stx_size, .mtime = mtime_of(now)});
            return {};
        });
}

Status log_attributes(Volume& volume, Inode& object, int fd) {
    return with_object(
        volume, object, fd, max_encoded_size(0),
        [&](Turn& turn, const struct statx& now) -> Status {
            turn.append(AttributesOp{.object = object.id, .attributes = attributes_of(now)});
            return {};
        });
}

Result<ContentStep> log_content(Volume& volume, Inode& file, int fd, std::uint64_t offset,
                                std::uint64_t end) {
    ContentStep step{.next = end};
    (void)::readahead(fd, static_cast<off64_t>(offset), kMaxDataBytes);
    const auto log = [&](Turn& turn, const struct statx& now) -> Status {
        const std::uint64_t stop = std::min<std::uint64_t>(end, now.stx_size);
        step.at_end = offset >= stop;
        if (step.at_end) return {};
        TS_ASSIGN(const Piece piece, next_piece(fd, offset, stop));
        if (piece.offset > offset) {
            step.next = std::min(piece.offset, stop);
            turn.append(AllocateOp{.object = file.id,
                                   .kind = AllocateKind::kPunch,
                                   .offset = offset,
                                   .length = step.next - offset,
                                   .size = now.stx_size,
                                   .mtime = mtime_of(now)});
        } else {
            const ssize_t got =
                ::pread(fd, content_buffer().data(), piece.size, static_cast<off_t>(offset));
            if (got < 0) return plain(errno);
            step.logged = static_cast<std::size_t>(got);
            step.next = offset + step.logged;
            turn.append(WriteOp{.object = file.id,
                                .offset = offset,
                                .mtime = mtime_of(now),
                                .data = Bytes{content_buffer()}.first(step.logged)});
        }
        step.at_end = step.next >= stop || step.next == offset;
        return {};
    };
    TS_TRY(with_object(volume, file, fd, max_encoded_size(kMaxDataBytes), log));
    return step;
}

Result<ContentStep> log_large_hole(Volume& volume, Inode& file, int fd, std::uint64_t offset) {
    ContentStep step{.next = offset};
    struct statx seen {};
    if (const int error = stat_object(fd, seen)) return plain(error);
    step.at_end = offset >= seen.stx_size;
    if (seen.stx_size < offset + kLargeHole) return step;
    const auto log = [&](Turn& turn, const struct statx& now) -> Status {
        TS_ASSIGN(const Piece piece, next_piece(fd, offset, now.stx_size));
        std::uint64_t end = std::min<std::uint64_t>(piece.offset, now.stx_size);
        if (end < now.stx_size) end -= end % kCheckBlockBytes;
        if (end < offset + kLargeHole) return {};
        turn.append(AllocateOp{.object = file.id,
                               .kind = AllocateKind::kPunch,
                               .offset = offset,
                               .length = end - offset,
                               .size = now.stx_size,
                               .mtime = mtime_of(now)});
        step.next = end;
        step.at_end = end >= now.stx_size;
        return {};
    };
    TS_TRY(with_object(volume, file, fd, max_encoded_size(0), log));
    return step;
}

}  // namespace twinspool
