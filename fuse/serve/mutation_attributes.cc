// SPDX-License-Identifier: Apache-2.0
// The part of fuse/serve/mutation that changes attributes, sizes and xattrs.
#include <fcntl.h>
#include <limits.h>
#include <linux/xattr.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>

#include "fuse/objects/xattrs.h"
#include "fuse/serve/change.h"
#include "fuse/serve/mutation.h"
#include "fuse/serve/privileges.h"

namespace twinspool {
namespace {

constexpr std::size_t kAclCredit = max_encoded_size(65536 + 64);

// An errno, 0 for success. In the order in which a later step cannot undo an earlier one.
int act(Inode& inode, int fd, const AttributeChange& change) {
    if (change.set_uid || change.set_gid) {
        const uid_t uid = change.set_uid ? change.uid : static_cast<uid_t>(-1);
        const gid_t gid = change.set_gid ? change.gid : static_cast<gid_t>(-1);
        if (::fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) return errno;
    }
    if (change.set_mode) {
        const mode_t mode = change.mode & 07777;
        const int failed = inode.type == S_IFREG || inode.type == S_IFDIR
                               ? ::fchmod(fd, mode)
                               : ::chmod(ProcPath{fd}.c_str(), mode);
        if (failed != 0) return errno;
        if ((mode & (S_ISUID | S_ISGID)) != 0) inode.privileged = true;
    }
    if (change.kill_privileges) {
        const Status dropped = drop_set_id_bits(inode, fd);
        if (!dropped.ok()) return dropped.error().code;
    }
    if (change.set_size && ::ftruncate(fd, static_cast<off_t>(change.size)) != 0) return errno;
    if (change.set_atime || change.set_mtime) {
        constexpr timespec kOmit{.tv_sec = 0, .tv_nsec = UTIME_OMIT};
        const timespec times[2] = {change.set_atime ? change.atime : kOmit,
                                   change.set_mtime ? change.mtime : kOmit};
        if (::utimensat(fd, "", times, AT_EMPTY_PATH) != 0) return errno;
    }
    return 0;
}

// As they stand after a change of mode, owner or ACL: each goes into the other.
Status log_acl(Turn& turn, Inode& inode, int fd, const char* name) {
    TS_ASSIGN(const auto acl, read_xattr(fd, name));
    if (acl)
        turn.append(acl->op(inode.id));
    else
        turn.append(RemoveXattrOp{.object = inode.id, .name = name});
    return {};
}

bool changes_attributes(const AttributeChange& change) {
    return change.set_mode || change.set_uid || change.set_gid || change.set_mtime;
}

Status log_attributes(Turn& turn, Inode& inode, int fd, const struct statx& now,
                      const AttributeChange& change, bool had_capability) {
    if (change.set_size)
        turn.append(TruncateOp{.object = inode.id, .size = now.stx_size, .mtime = mtime_of(now)});
    if (changes_attributes(change) || change.kill_privileges)
        turn.append(AttributesOp{.object = inode.id, .attributes = attributes_of(now)});
    if (change.set_mode && inode.type != S_IFLNK && inode.xattrs != Knowledge::kNo) {
        TS_ASSIGN(const auto acl, read_xattr(fd, kAccessAcl));
        if (acl) turn.append(acl->op(inode.id));
    }
    if (had_capability) log_lost_capability(turn, inode, fd);
    return {};
}

// Who is not of the file's group loses set-gid with a new ACL. libfuse does not pass the kernel's
// flag for that, so it is decided here; supplementary groups are unknown, and do not count.
int drop_set_gid(const Request& request, Inode& inode, int fd) {
    struct statx now {};
    if (const int error = stat_object(fd, now)) return error;
    if ((now.stx_mode & S_ISGID) == 0 || request.caller.uid == 0) return 0;
    if (request.caller.gid == now.stx_gid) return 0;
    const mode_t mode = now.stx_mode & 07777U & ~static_cast<mode_t>(S_ISGID);
    return ::chmod(ProcPath{fd}.c_str(), mode) == 0 ? 0 : (inode.privileged = true, errno);
}

struct XattrTarget {
    InodeRef inode;
    Lease lease;
};

Result<XattrTarget> open_xattr_target(Volume& volume, Turn& turn, ObjectId id, const char* name,
                                      std::size_t value_size) {
    if (is_private_xattr(name)) return plain(EPERM);
    if (std::strlen(name) > XATTR_NAME_MAX) return plain(ERANGE);
    if (volume.journal.failure() != 0) return plain(EROFS);
    const std::size_t own = max_encoded_size(std::string_view{name}.size() + value_size);
    const std::size_t acl = is_acl(name) ? kAclCredit : 0;
    if (!turn.take_credit(own + max_encoded_size(0) + acl)) return plain(Ending::no_credit());
    InodeRef inode = volume.inodes.find(id);
    if (!inode) return plain(id == kRootObject ? EPERM : ESTALE);
    TS_ASSIGN(Lease lease, volume.lease(*inode));
    return XattrTarget{.inode = std::move(inode), .lease = std::move(lease)};
}

// The outcome of a changed ACL: it, the mode, and what the file system has made of both.
Status log_changed_acl(Turn& turn, Inode& inode, int fd, const char* name) {
    TS_TRY(log_acl(turn, inode, fd, name));
    struct statx now {};
    if (const int error = stat_object(fd, now)) return plain(error);
    turn.append(AttributesOp{.object = inode.id, .attributes = attributes_of(now)});
    return {};
}

}  // namespace

Answered set_attributes(Volume& volume, Turn& turn, const Request& request, ObjectId id,
                        AttributeChange wanted) {
    if (volume.journal.failure() != 0) return plain(EROFS);
    const InodeRef inode = volume.inodes.find(id);
    if (!inode) return plain(id == kRootObject ? EPERM : ESTALE);
    const bool may_have_acl = wanted.set_mode && inode->xattrs != Knowledge::kNo;
    if (!turn.take_credit(2 * max_encoded_size(0) + max_encoded_size(64) +
                          (may_have_acl ? kAclCredit : 0)))
        return plain(Ending::no_credit());
    TS_ASSIGN(const Lease lease, volume.lease(*inode));

    Change change{volume, turn};
    const Ending begun = change.begin({inode.get()});
    if (!begun.is_done()) return plain(begun);
    struct statx now {};
    if (wanted.set_size && !turn.may_wait()) {
        if (const int error = stat_object(lease.fd(), now)) return plain(error);
        if (now.stx_size > wanted.size + kLargeFileBytes) return plain(Ending::busy());
    }
    const bool logged = !inode->unlinked && volume.told(*inode);
    if (logged) {
        change.note(*inode);
        if (wanted.set_size) change.note_range(wanted.size, UINT64_MAX);
        change.noted();
    }
    act_as(request.caller);
    const bool content =
        inode->type == S_IFREG && (wanted.set_size || wanted.set_uid || wanted.set_gid);
    const bool capable = content && may_have_capability(*inode, lease.fd());
    const int error = act(*inode, lease.fd(), wanted);
    change.acted();
    if (const int unseen = stat_object(lease.fd(), now)) return plain(unseen);
    inode->privileged = (now.stx_mode & (S_ISUID | S_ISGID)) != 0;
    // Also after an error: the steps before the one that failed have been done.
    if (logged) {
        TS_TRY(log_attributes(turn, *inode, lease.fd(), now, wanted, capable));
        change.logged();
    }
    if (error != 0) return plain(error);
    // After an error it keeps what it had, though a part has been done.
    change.outdates(Change::Outdates::kKernelItself);
    return Answer{Answer::Object{
        .id = id,
        .attributes = now,
        .orphaned = inode->orphaned,
        .keep = inode->type == S_IFREG ? Answer::Keep::kNot : Answer::Keep::kForever}};
}

Answered set_xattr(Volume& volume, Turn& turn, const Request& request, ObjectId id,
                   const char* name, Bytes value, int flags) {
    TS_ASSIGN(const XattrTarget target, open_xattr_target(volume, turn, id, name, value.size()));
    Inode& inode = *target.inode;
    const int fd = target.lease.fd();
    Change change{volume, turn};
    const Ending begun = change.begin({&inode});
    if (!begun.is_done()) return plain(begun);
    change.note(inode).noted();
    act_as(request.caller);
    if (::setxattr(ProcPath{fd}.c_str(), name, value.data(), value.size(), flags) != 0)
        return plain(errno);
    inode.xattrs = Knowledge::kUnknown;
    inode.capability = Knowledge::kUnknown;
    inode.default_acl = Knowledge::kUnknown;
    int error = 0;
    if (std::string_view{name} == kAccessAcl) error = drop_set_gid(request, inode, fd);
    change.acted();
    if (!inode.unlinked && volume.told(inode)) {
        if (is_acl(name))
            TS_TRY(log_changed_acl(turn, inode, fd, name));
        else
            turn.append(SetXattrOp{.object = id, .name = name, .value = value});
    }
    change.logged();
    if (error != 0) return plain(error);
    return nothing();
}

Answered remove_xattr(Volume& volume, Turn& turn, const Request& request, ObjectId id,
                      const char* name) {
    TS_ASSIGN(const XattrTarget target, open_xattr_target(volume, turn, id, name, 0));
    Inode& inode = *target.inode;
    const int fd = target.lease.fd();
    Change change{volume, turn};
    const Ending begun = change.begin({&inode});
    if (!begun.is_done()) return plain(begun);
    change.note(inode).note_xattr(name).noted();
    act_as(request.caller);
    if (::removexattr(ProcPath{fd}.c_str(), name) != 0) return plain(errno);
    inode.default_acl = Knowledge::kUnknown;
    change.acted();
    if (!inode.unlinked && volume.told(inode)) {
        if (is_acl(name))
            TS_TRY(log_changed_acl(turn, inode, fd, name));
        else
            turn.append(RemoveXattrOp{.object = id, .name = name});
    }
    change.logged();
    return nothing();
}

}  // namespace twinspool
