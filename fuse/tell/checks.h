// SPDX-License-Identifier: Apache-2.0
// Checks: logging what an object is, so that standbys compare it, and logging the primary's version
// of what they find different. Each step takes the gate and the object's lock for itself.
//
// Threads: the walker's and the verifier's; they wait for credit and disks. ESTALE: the object has
// no name any more, or a new seed has begun: nothing was logged. EROFS: the journal has failed.
#pragma once

#include <cerrno>
#include <string>
#include <vector>

#include "fuse/objects/volume.h"
#include "fuse/tell/checkbook.h"
#include "fuse/tell/finder.h"

namespace twinspool {

// How a walk for a seed tells what is in files: all of it, or hashes, and then only what a standby
// finds different.
enum class Contents : std::uint8_t { kWhole, kByHash };

// The object or entry has gone meanwhile, or is not shown.
inline bool is_gone(int error) { return error == ENOENT || error == ESTALE || error == EXDEV; }

struct ContentStep {
    std::uint64_t next = 0;    // offset behind what was dealt with
    std::uint64_t logged = 0;  // bytes of content
    bool at_end = false;
};

// A file's content, opened for checks: by its handle, for reading.
Result<Fd> open_content(Volume& volume, const Inode& file);

// Hashes of up to kMaxDataBytes from asked.offset on, at most asked.length if that is not 0. What
// was hashed without the lock counts if nothing has changed the file since.
Result<ContentStep> check_content(Volume& volume, Checkbook& book, Inode& file, int fd,
                                  Asked asked);
Status check_object(Volume& volume, Checkbook& book, Inode& object, const Asked& asked);

// The file's size as it is now: what a standby has beyond it is cut off.
Status log_size(Volume& volume, Inode& file, int fd);
Status log_attributes(Volume& volume, Inode& object, int fd);
// A piece of what the file has from `offset` on and before `end`: data, or a hole.
Result<ContentStep> log_content(Volume& volume, Inode& file, int fd, std::uint64_t offset,
                                std::uint64_t end);
// If nothing but a large hole is there: that, and nothing is to be compared. Otherwise stays there.
Result<ContentStep> log_large_hole(Volume& volume, Inode& file, int fd, std::uint64_t offset);

// Where data begins at or behind `from`, and how much of it comes in one piece, kMaxDataBytes at
// most; its size is 0 if there is none before file_size.
struct Piece {
    std::uint64_t offset = 0;
    std::size_t size = 0;
};
Result<Piece> next_piece(int fd, std::uint64_t from, std::uint64_t file_size);

// Runs `act(turn, statx)` with the object told, locked and inside the gate, after taking credit for
// `bytes` of records.
template <typename Act>
Status with_object(Volume& volume, Inode& object, int fd, std::size_t bytes, Act&& act) {
    Turn turn{volume.journal, Turn::Waiting::kAllowed};
    if (!turn.wait_for_credit(bytes)) return plain(EROFS);
    const GatePass pass{volume.gate};
    ObjectLocks locks;
    (void)locks.lock({&object}, turn);
    if (!volume.told(object) || object.unlinked) return plain(ESTALE);
    struct statx now {};
    if (const int error = stat_object(fd, now)) return plain(error);
    return act(turn, now);
}

}  // namespace twinspool
