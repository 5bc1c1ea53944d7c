// SPDX-License-Identifier: Apache-2.0
// The part of fuse/tell/walker that logs what is in files and directories.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "fuse/objects/directory_stream.h"
#include "fuse/objects/orphans.h"
#include "fuse/tell/walker.h"

namespace twinspool {
namespace {

constexpr std::size_t kNamesBytes = 64 * 1024;

std::vector<std::byte>& chunk_buffer() {
    thread_local std::vector<std::byte> buffer(kMaxDataBytes);
    return buffer;
}

void append_name(std::vector<std::byte>& names, const std::string& name) {
    const auto size = static_cast<std::uint32_t>(name.size());
    const auto* const head = reinterpret_cast<const std::byte*>(&size);
    names.insert(names.end(), head, head + sizeof size);
    const auto* const text = reinterpret_cast<const std::byte*>(name.data());
    names.insert(names.end(), text, text + name.size());
}

Result<std::vector<std::string>> sorted_names(const Volume& volume, const Inode& directory,
                                              int fd) {
    Fd own{::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!own.valid()) return plain(errno);
    DirectoryStream stream{std::move(own)};
    std::vector<std::string> names;
    for (;;) {
        TS_ASSIGN(const auto entry, stream.peek());
        if (!entry) break;
        std::string name = entry->name;
        if (name != "." && name != ".." && !is_hidden(volume, directory, name.c_str()))
            names.push_back(std::move(name));
        stream.skip();
    }
    std::sort(names.begin(), names.end());
    return names;
}

}  // namespace

// One more name of what was told under another; or one that is told but may not stand there yet.
Status Walker::log_name_again(Inode& parent, const char* name, Inode& object) {
    Turn turn{volume_.journal, Turn::Waiting::kAllowed};
    const std::string_view entry{name};
    if (!turn.wait_for_credit(max_encoded_size(entry.size()))) return plain(EROFS);
    TS_ASSIGN(const Lease lease, volume_.lease(parent));
    const GatePass pass{volume_.gate};
    ObjectLocks locks;
    (void)locks.lock({&parent, &object}, turn);
    struct statx now {};
    if (stat_entry(lease.fd(), name, now) != 0 || now.stx_ino != object.number) return {};
    if (!volume_.told(parent) || !volume_.told(object)) return {};
    if (object.type == S_IFDIR) {
        for (;;) {
            const Ending told = tell_entry(volume_, turn, parent, lease.fd(), name, object,
                                           object.complete ? Telling::kFirst : Telling::kAgain);
            if (told.is_done()) return {};
            if (!told.lacks_credit()) return plain(told);
            // Not kept: the next attempt takes its own.
            if (!volume_.journal.take_credit(kMaxFramePayload)) return plain(EROFS);
            volume_.journal.give_credit(kMaxFramePayload);
        }
    }
    struct statx above {};
    if (const int error = stat_object(lease.fd(), above)) return plain(error);
    turn.append(LinkOp{
        .object = object.id, .parent = parent.id, .name = entry, .parent_mtime = mtime_of(above)});
    return {};
}

Status Walker::tell_content(Inode& file) {
    if (by_hash_) return hash_walk_.compare(volume_.inodes.find(file.id));
    return ship_content(file);
}

Status Walker::ship_content(Inode& file) {
    auto fd = open_handle(volume_.directories[file.directory].backing_fd, file.handle,
                          O_RDONLY | O_NOFOLLOW | O_NOATIME);
    if (!fd.ok()) return is_gone(fd.error().code) ? Status{} : Status{fd.error()};
    {
        Turn turn{volume_.journal, Turn::Waiting::kAllowed};
        if (!turn.wait_for_credit(max_encoded_size(0))) return {};
        const GatePass pass{volume_.gate};
        ObjectLocks locks;
        (void)locks.lock({&file}, turn);
        struct statx now {};
        if (const int error = stat_object(fd->get(), now)) return plain(error);
        if (!volume_.told(file) || file.unlinked) return {};
        // Never to nothing first: a standby that had it all has it all the time, old or new.
        turn.append(TruncateOp{.object = file.id, .size = now.stx_size, .mtime = mtime_of(now)});
    }
    std::uint64_t offset = 0;
    bool at_end = false;
    while (!at_end && !interrupted()) TS_TRY(ship_chunk(file, fd->get(), offset, at_end));
    return {};
}

Status Walker::ship_chunk(Inode& file, int fd, std::uint64_t& offset, bool& at_end) {
    // Read from the disk before the lock is taken, so that it is held for a copy only.
    (void)::readahead(fd, static_cast<off64_t>(offset), kMaxDataBytes);
    std::byte peeked{};
    (void)::pread(fd, &peeked, 1, static_cast<off_t>(offset));
    Turn turn{volume_.journal, Turn::Waiting::kAllowed};
    if (!turn.wait_for_credit(max_encoded_size(kMaxDataBytes) + 2 * max_encoded_size(0))) {
        at_end = true;
        return {};
    }
    std::size_t size = 0;
    {
        const GatePass pass{volume_.gate};
        ObjectLocks locks;
        (void)locks.lock({&file}, turn);
        if (!volume_.told(file) || file.unlinked) {
            at_end = true;
            return {};
        }
        struct statx now {};
        if (const int error = stat_object(fd, now)) return plain(error);
        TS_ASSIGN(const Piece piece, next_piece(fd, offset, now.stx_size));
        // Where there is a hole now, the standby may have had data.
        if (piece.offset > offset)
            turn.append(AllocateOp{.object = file.id,
                                   .kind = AllocateKind::kPunch,
                                   .offset = offset,
                                   .length = piece.offset - offset,
                                   .size = now.stx_size,
                                   .mtime = mtime_of(now)});
        std::vector<std::byte>& buffer = chunk_buffer();
        if (piece.size > 0) {
            const ssize_t got =
                ::pread(fd, buffer.data(), piece.size, static_cast<off_t>(piece.offset));
            if (got < 0) return plain(errno);
            size = static_cast<std::size_t>(got);
            turn.append(WriteOp{.object = file.id,
                                .offset = piece.offset,
                                .mtime = mtime_of(now),
                                .data = Bytes{buffer}.first(size)});
        }
        offset = piece.offset + size;
        if (size == 0 || offset >= now.stx_size) {
            at_end = true;
            turn.append(AttributesOp{.object = file.id, .attributes = attributes_of(now)});
            volume_.touch(file);
            TS_TRY(keep_identity(fd, {.object = file.id,
                                      .generation = volume_.generation,
                                      .complete = true,
                                      .handle = file.handle}));
            file.complete = true;
        }
    }
    counters_.bytes_done += size;
    throttle(turn.last(), size);
    return {};
}

Status Walker::log_names(Turn& turn, Inode& directory, int fd) {
    struct statx now {};
    if (const int error = stat_object(fd, now)) return plain(error);
    TS_ASSIGN(const auto names, sorted_names(volume_, directory, fd));
    std::string after;
    std::vector<std::byte> chunk;
    for (std::size_t i = 0; i <= names.size(); ++i) {
        const bool last = i == names.size();
        if (!last) append_name(chunk, names[i]);
        if (!last && (chunk.size() < kNamesBytes || i + 1 == names.size())) continue;
        const std::string upto = last ? std::string{} : names[i];
        if (!turn.wait_for_credit(max_encoded_size(after.size() + upto.size() + chunk.size())))
            return plain(EROFS);
        turn.append(EntriesOp{.parent = directory.id,
                              .after = after,
                              .upto = upto,
                              .names = chunk,
                              .parent_mtime = mtime_of(now)});
        after = upto;
        chunk.clear();
    }
    return {};
}

Status Walker::state_entries(const Visit& visit) {
    TS_ASSIGN(const InodeRef directory, open_visit(visit));
    TS_ASSIGN(const Lease lease, volume_.lease(*directory));
    Turn turn{volume_.journal, Turn::Waiting::kAllowed};
    const GatePass pass{volume_.gate};
    ObjectLocks locks;
    (void)locks.lock({directory.get()}, turn);
    if (!volume_.told(*directory) || directory->unlinked) return {};
    TS_TRY(log_names(turn, *directory, lease.fd()));
    volume_.touch(*directory);
    TS_TRY(keep_identity(lease.fd(), {.object = directory->id,
                                      .generation = volume_.generation,
                                      .complete = true,
                                      .handle = directory->handle}));
    directory->complete = true;
    return {};
}

Status Walker::log_mtime(const Visit& visit) {
    TS_ASSIGN(const InodeRef directory, open_visit(visit));
    TS_ASSIGN(const Lease lease, volume_.lease(*directory));
    Turn turn{volume_.journal, Turn::Waiting::kAllowed};
    if (!turn.wait_for_credit(max_encoded_size(0))) return plain(EROFS);
    const GatePass pass{volume_.gate};
    ObjectLocks locks;
    (void)locks.lock({directory.get()}, turn);
    if (!volume_.told(*directory) || directory->unlinked) return {};
    struct statx now {};
    if (const int error = stat_object(lease.fd(), now)) return plain(error);
    turn.append(AttributesOp{.object = directory->id, .attributes = attributes_of(now)});
    return {};
}

}  // namespace twinspool
