// SPDX-License-Identifier: Apache-2.0
// The part of fuse/serve/mutation that changes what is in files.
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>

#include "fuse/objects/xattrs.h"
#include "fuse/serve/change.h"
#include "fuse/serve/mutation.h"
#include "fuse/serve/privileges.h"

namespace twinspool {
namespace {

std::optional<AllocateKind> kind_of(int mode) {
    switch (mode) {
        case 0:
        case FALLOC_FL_KEEP_SIZE:
            return AllocateKind::kAllocate;
        case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
            return AllocateKind::kPunch;
        case FALLOC_FL_ZERO_RANGE:
        case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
            return AllocateKind::kZero;
        default:
            return std::nullopt;
    }
}

// Whether records of this object are wanted: it has a name, and the standbys know it.
bool is_logged(const Volume& volume, const Inode& inode) {
    return !inode.unlinked && volume.told(inode);
}

}  // namespace

Answered write_data(Volume& volume, Turn& turn, const Request& request, ObjectId id, Bytes data,
                    off_t offset, Privileges privileges, Written how) {
    if (volume.journal.failure() != 0) return plain(EROFS);
    if (!turn.take_credit(max_encoded_size(data.size()) + kPrivilegesCredit))
        return plain(Ending::no_credit());
    const InodeRef inode = volume.inodes.find(id);
    if (!inode) return plain(ESTALE);
    TS_ASSIGN(const Lease lease, volume.lease(*inode));

    Change change{volume, turn};
    const Ending begun = change.begin({inode.get()});
    if (!begun.is_done()) return plain(begun);
    change.outdates(how == Written::kBack ? Change::Outdates::kWeLater
                                          : Change::Outdates::kKernelItself);
    const bool logged = is_logged(volume, *inode);
    if (logged)
        change.note(*inode).note_range(static_cast<std::uint64_t>(offset), data.size()).noted();
    act_as(request.caller);
    if (privileges == Privileges::kKill) TS_TRY(drop_set_id_bits(*inode, lease.fd()));
    const bool capable = may_have_capability(*inode, lease.fd());
    const ssize_t written = ::pwrite(lease.fd(), data.data(), data.size(), offset);
    const int failed = written < 0 ? errno : 0;
    change.acted();
    const auto size = static_cast<std::size_t>(std::max<ssize_t>(written, 0));
    struct statx now {};
    if (const int error = stat_object(lease.fd(), now)) return plain(error);
    if (failed != 0) {
        // The mtime may have changed all the same: ext4 sets it before it finds the disk full.
        if (logged) turn.append(AttributesOp{.object = id, .attributes = attributes_of(now)});
        if (logged && capable) log_lost_capability(turn, *inode, lease.fd());
        change.logged();
        return plain(failed);
    }
    if (logged) {
        turn.append(WriteOp{.object = id,
                            .offset = static_cast<std::uint64_t>(offset),
                            .mtime = mtime_of(now),
                            .data = data.first(size)});
        log_privileges(turn, *inode, lease.fd(), now, privileges, capable);
        change.logged();
    }
    return Answer{Answer::Count{.count = size}};
}

Answered allocate(Volume& volume, Turn& turn, const Request& request, ObjectId id, int mode,
                  off_t offset, off_t length) {
    const auto kind = kind_of(mode);
    if (!kind) return plain(EOPNOTSUPP);
    if (volume.journal.failure() != 0) return plain(EROFS);
    if (!turn.take_credit(max_encoded_size(0) + kPrivilegesCredit))
        return plain(Ending::no_credit());
    const InodeRef inode = volume.inodes.find(id);
    if (!inode) return plain(ESTALE);
    TS_ASSIGN(const Lease lease, volume.lease(*inode));

    Change change{volume, turn};
    const Ending begun = change.begin({inode.get()});
    if (!begun.is_done()) return plain(begun);
    const bool logged = is_logged(volume, *inode);
    if (logged)
        change.note(*inode)
            .note_range(static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length))
            .noted();
    act_as(request.caller);
    const bool unprivileged = request.caller.uid != 0;
    const Privileges privileges = unprivileged ? Privileges::kKill : Privileges::kKeep;
    if (unprivileged) TS_TRY(drop_set_id_bits(*inode, lease.fd()));
    const bool capable = may_have_capability(*inode, lease.fd());
    const int error = ::fallocate(lease.fd(), mode, offset, length) == 0 ? 0 : errno;
    struct statx now {};
    if (const int unseen = stat_object(lease.fd(), now)) return plain(unseen);
    change.acted();
    // Also after an error: with ENOSPC a part may have been done, and the size changed.
    if (logged) {
        turn.append(AllocateOp{.object = id,
                               .kind = *kind,
                               .offset = static_cast<std::uint64_t>(offset),
                               .length = error == 0 ? static_cast<std::uint64_t>(length) : 0,
                               .size = now.stx_size,
                               .mtime = mtime_of(now)});
        log_privileges(turn, *inode, lease.fd(), now, privileges, capable);
        change.logged();
    }
    if (error != 0) return plain(error);
    return nothing();
}

}  // namespace twinspool
