// SPDX-License-Identifier: Apache-2.0
// The part of fuse/serve/mutation that makes objects.
#include <fcntl.h>

#include <string_view>

#include "fuse/objects/orphans.h"
#include "fuse/objects/xattrs.h"
#include "fuse/serve/change.h"
#include "fuse/serve/mutation.h"

namespace twinspool {
namespace {

struct Wish {
    NewObject what;
    const char* target = "";  // of a symlink
};

// Whether what is made in this directory inherits an ACL from it; found out once.
Result<bool> has_default_acl(Inode& parent, int parent_fd) {
    if (parent.default_acl == Knowledge::kUnknown) {
        TS_ASSIGN(const auto acl, read_xattr(parent_fd, kDefaultAcl));
        parent.default_acl = acl ? Knowledge::kYes : Knowledge::kNo;
    }
    return parent.default_acl == Knowledge::kYes;
}

constexpr int kOpen = O_NOFOLLOW | O_CLOEXEC;

// An errno, 0 for success. Regular files are opened at once: act_regular().
int act(int parent_fd, const char* name, const Wish& wish, mode_t mode) {
    const mode_t bits = mode & 07777;
    switch (wish.what.mode & S_IFMT) {
        case S_IFDIR:
            return ::mkdirat(parent_fd, name, bits) == 0 ? 0 : errno;
        case S_IFLNK:
            return ::symlinkat(wish.target, parent_fd, name) == 0 ? 0 : errno;
        default: {
            const mode_t typed = (wish.what.mode & S_IFMT) | bits;
            return ::mknodat(parent_fd, name, typed, wish.what.device) == 0 ? 0 : errno;
        }
    }
}

Fd act_regular(int parent_fd, const char* name, mode_t mode) {
    return Fd{::openat(parent_fd, name, O_CREAT | O_EXCL | O_RDWR | kOpen, mode & 07777)};
}

// As the cache of descriptors would.
Fd open_new(int parent_fd, const char* name, mode_t type) {
    const int flags = S_ISDIR(type) ? O_RDONLY | O_DIRECTORY : O_PATH;
    return Fd{::openat(parent_fd, name, flags | kOpen)};
}

struct Made {
    std::unique_ptr<Inode> inode;
    Fd fd;
    struct statx now {};
};

// The new object's identity. If that fails it must not stay.
Result<Made> identify_new(Volume& volume, const Inode& parent, ObjectId id, Fd fd) {
    if (!fd.valid()) return plain(errno);
    Made made{.inode = std::make_unique<Inode>(), .fd = std::move(fd), .now = {}};
    TS_ASSIGN(made.inode->handle, handle_of(made.fd.get()));
    made.inode->id = id;
    made.inode->directory = parent.directory;
    made.inode->generation = volume.generation.load();
    made.inode->complete = true;
    TS_TRY(write_identity(made.fd.get(), {.object = id,
                                          .generation = made.inode->generation,
                                          .complete = true,
                                          .handle = made.inode->handle}));
    // After the identity, which changes the ctime.
    if (const int error = stat_object(made.fd.get(), made.now)) return plain(error);
    made.inode->type = made.now.stx_mode & S_IFMT;
    made.inode->number = made.now.stx_ino;
    made.inode->privileged = (made.now.stx_mode & (S_ISUID | S_ISGID)) != 0;
    return made;
}

// It must not stay, since it cannot be logged; but its parent's mtime has changed.
void undo(Turn& turn, const Inode& parent, int parent_fd, const char* name, mode_t mode) {
    (void)::unlinkat(parent_fd, name, S_ISDIR(mode) ? AT_REMOVEDIR : 0);
    struct statx above {};
    if (stat_object(parent_fd, above) == 0)
        turn.append(AttributesOp{.object = parent.id, .attributes = attributes_of(above)});
}

// What it inherited. The ACL may have changed the mode.
struct Inherited {
    std::vector<Xattr> xattrs;
    struct statx now {};
};
Result<Inherited> look_inherited(int fd) {
    Inherited inherited;
    TS_ASSIGN(inherited.xattrs, read_xattrs(fd));
    if (const int error = stat_object(fd, inherited.now)) return plain(error);
    return inherited;
}

// Credit for what an object may inherit. (Larger ACLs there are not.)
constexpr std::size_t kAclCredit = 2 * max_encoded_size(65536 + 64);

// The object is there: identity, attributes, records. Failing, it leaves undoing to the caller.
Result<Answer> log_new(Volume& volume, Turn& turn, const Inode& parent, int parent_fd,
                       const char* name, const Wish& wish, ObjectId id, Fd fd, bool inherits) {
    TS_ASSIGN(Made made, identify_new(volume, parent, id, std::move(fd)));
    struct statx above {};
    if (const int error = stat_object(parent_fd, above)) return plain(error);
    Inherited inherited;
    if (inherits) {
        TS_ASSIGN(inherited, look_inherited(made.fd.get()));
    }
    turn.append(CreateOp{.object = id,
                         .parent = parent.id,
                         .name = name,
                         .attributes = attributes_of(made.now),
                         .device = device_of(made.now),
                         .target = wish.target,
                         .parent_mtime = mtime_of(above)});
    for (const Xattr& xattr : inherited.xattrs) turn.append(xattr.op(id));
    if (inherits) turn.append(AttributesOp{.object = id, .attributes = attributes_of(made.now)});
    if (volume.walking && !S_ISDIR(made.now.stx_mode))
        volume.names.insert(id, {.parent = parent.id, .name = name});
    made.inode->xattrs = inherited.xattrs.empty() ? Knowledge::kNo : Knowledge::kYes;
    made.inode->default_acl = inherits ? Knowledge::kUnknown : Knowledge::kNo;
    InodeRef inode = volume.inodes.insert(made.inode);
    (void)volume.descriptors.put(*inode, std::move(made.fd));
    return Answer{Answer::Entry{.inode = std::move(inode), .attributes = made.now}};
}

Answered make(Volume& volume, Turn& turn, const Request& request, ObjectId parent_id,
              const char* name, const Wish& wish) {
    const InodeRef parent = volume.inodes.find(parent_id);
    if (!parent || parent->type != S_IFDIR) return plain(parent_id == kRootObject ? EPERM : ESTALE);
    if (is_hidden(volume, *parent, name)) return plain(EPERM);
    const std::string_view entry{name};
    const std::string_view target{wish.target};
    if (entry.size() > NAME_MAX) return plain(ENAMETOOLONG);
    if (volume.journal.failure() != 0) return plain(EROFS);
    const std::size_t credit = max_encoded_size(entry.size() + target.size());
    if (!turn.take_credit(credit + max_encoded_size(0))) return plain(Ending::no_credit());
    const Ending told = ensure_directory_told(volume, turn, *parent);
    if (!told.is_done()) return plain(told);
    TS_ASSIGN(const Lease parent_lease, volume.lease(*parent));
    const int parent_fd = parent_lease.fd();

    Change change{volume, turn};
    const Ending begun = change.begin({parent.get()});
    if (!begun.is_done()) return plain(begun);
    if (!volume.told(*parent)) return plain(Ending::busy());
    TS_ASSIGN(const bool inherits, has_default_acl(*parent, parent_fd));
    if (inherits && !turn.take_credit(kAclCredit)) return plain(Ending::no_credit());

    const ObjectId id = volume.journal.new_object_id();
    change.note(*parent, entry, id).noted();
    act_as(request.caller);
    const mode_t mode = inherits ? wish.what.mode : wish.what.mode & ~request.caller.umask;
    Fd fd;
    if (S_ISREG(mode)) {
        fd = act_regular(parent_fd, name, mode);
        if (!fd.valid()) return plain(errno);
    } else {
        if (const int error = act(parent_fd, name, wish, mode)) return plain(error);
        fd = open_new(parent_fd, name, mode & S_IFMT);
    }
    change.acted();
    Answered answer =
        log_new(volume, turn, *parent, parent_fd, name, wish, id, std::move(fd), inherits);
    if (!answer.ok()) undo(turn, *parent, parent_fd, name, mode);
    change.logged();
    return answer;
}

}  // namespace

Answered make_object(Volume& volume, Turn& turn, const Request& request, ObjectId parent,
                     const char* name, NewObject what) {
    return make(volume, turn, request, parent, name, {.what = what});
}

Answered make_symlink(Volume& volume, Turn& turn, const Request& request, ObjectId parent,
                      const char* name, const char* target) {
    return make(volume, turn, request, parent, name,
                {.what = {.mode = S_IFLNK | 0777}, .target = target});
}

}  // namespace twinspool
