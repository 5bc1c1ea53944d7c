// SPDX-License-Identifier: Apache-2.0
// The part of fuse/serve/mutation that gives objects names and takes them away.
#include <fcntl.h>
#include <linux/fs.h>
#include <unistd.h>
#include <cstdio>

#include "fuse/objects/orphans.h"
#include "fuse/serve/change.h"
#include "fuse/serve/mutation.h"

namespace twinspool {
namespace {

struct Parent {
    InodeRef inode;
    Lease lease;
    [[nodiscard]] int fd() const { return lease.fd(); }
};

// A directory in which names are changed: known, told, open, and the name is nobody's secret.
Result<Parent> open_parent(Volume& volume, Turn& turn, ObjectId id, const char* name) {
    if (id == kRootObject) return plain(EPERM);
    InodeRef inode = volume.inodes.find(id);
    if (!inode) return plain(ESTALE);
    if (is_hidden(volume, *inode, name)) return plain(EPERM);
    const Ending told = ensure_directory_told(volume, turn, *inode);
    if (!told.is_done()) return plain(told);
    TS_ASSIGN(Lease lease, volume.lease(*inode));
    return Parent{.inode = std::move(inode), .lease = std::move(lease)};
}

// What stands to lose its name.
bool loses_last_name(const Found& found) {
    return S_ISDIR(found.attributes.stx_mode) || found.attributes.stx_nlink <= 1;
}

bool is_root(const Volume& volume, const Inode& inode) {
    return inode.id == volume.directories[inode.directory].root->id;
}

// Keeps the object usable for those who have it open. Before acting.
Status keep_usable(Volume& volume, const Found& found, bool root_is_locked, int parent_fd,
                   const char* name) {
    if (!loses_last_name(found)) return {};
    found.inode->large = found.attributes.stx_size > kLargeFileBytes;
    TS_ASSIGN(const bool pinned,
              volume.descriptors.pin(*found.inode, volume.backing_fd(*found.inode)));
    if (pinned || S_ISDIR(found.attributes.stx_mode)) return {};
    return keep_orphan(volume, *found.inode, root_is_locked, parent_fd, name);
}

// Before the name goes: it may be all by which the standbys have the object, and its other names
// may be told of as mere names. Then it must be told again, wherever it is found.
void prepare_loss(Volume& volume, const Found& found, KnownNames::Name name) {
    if (!volume.walking || loses_last_name(found) ||
        volume.names.contains_other(found.inode->id, name))
        return;
    const auto lease = volume.lease(*found.inode);
    if (lease.ok())
        (void)write_identity(lease->fd(), {.object = found.inode->id,
                                           .generation = volume.generation - 1,
                                           .complete = false,
                                           .handle = found.inode->handle});
    found.inode->complete = false;
    found.inode->generation = 0;
    if (volume.walk != nullptr) volume.walk->repeat();
}

// Of it, when it has lost one.
std::uint32_t names_left(const Found& found) {
    return loses_last_name(found) ? 0 : found.attributes.stx_nlink - 1;
}

void name_lost(Volume& volume, const Found& found, KnownNames::Name name) {
    if (volume.walking) volume.names.erase(found.inode->id, name);
    if (loses_last_name(found)) volume.inodes.unname(*found.inode);
}

void name_moved(Volume& volume, const Found& found, KnownNames::Name from, KnownNames::Name to) {
    if (!volume.walking || found.inode->type == S_IFDIR) return;
    volume.names.erase(found.inode->id, from);
    if (found.attributes.stx_nlink > 1) volume.names.insert(found.inode->id, to);
}

// The walker may have passed the place to which this goes, and not have come to the one it leaves.
void tell_walker(Volume& volume, const Found& found) {
    if (!volume.walking || volume.walk == nullptr) return;
    if (found.inode->type == S_IFDIR || !found.inode->complete) volume.walk->revisit(*found.inode);
}

Result<FileTime> mtime_now(int fd) {
    struct statx now {};
    if (const int error = stat_object(fd, now)) return plain(error);
    return mtime_of(now);
}

struct RenameParts {
    Parent source;
    Parent target;
    Found object;
    std::optional<Found> replaced;
};

Result<RenameParts> find_rename(Volume& volume, Turn& turn, ObjectId source_parent,
                                const char* source_name, ObjectId target_parent,
                                const char* target_name, unsigned flags) {
    TS_ASSIGN(Parent source, open_parent(volume, turn, source_parent, source_name));
    TS_ASSIGN(Parent target, open_parent(volume, turn, target_parent, target_name));
    if (source.inode->directory != target.inode->directory) return plain(EXDEV);
    TS_ASSIGN(Found object, find_entry(volume, turn, *source.inode, source_name));
    auto replaced = find_entry(volume, turn, *target.inode, target_name);
    if (!replaced.ok() && replaced.error().code != ENOENT) return replaced.error();
    if (replaced.ok() && (flags & RENAME_NOREPLACE) != 0) return plain(EEXIST);
    std::optional<Found> there;
    if (replaced.ok()) there.emplace(std::move(*replaced));
    return RenameParts{.source = std::move(source),
                       .target = std::move(target),
                       .object = std::move(object),
                       .replaced = std::move(there)};
}

Status log_rename(Volume& volume, Turn& turn, const RenameParts& parts, const char* source_name,
                  const char* target_name, bool exchange) {
    TS_ASSIGN(const FileTime source_mtime, mtime_now(parts.source.fd()));
    TS_ASSIGN(const FileTime target_mtime, mtime_now(parts.target.fd()));
    const bool lost = parts.replaced && !exchange;
    turn.append(RenameOp{.object = parts.object.inode->id,
                         .source_parent = parts.source.inode->id,
                         .source_name = source_name,
                         .target_parent = parts.target.inode->id,
                         .target_name = target_name,
                         .replaced = parts.replaced ? parts.replaced->inode->id : kNoObject,
                         .exchange = static_cast<std::uint8_t>(exchange ? 1 : 0),
                         .source_mtime = source_mtime,
                         .target_mtime = target_mtime,
                         .names_left = lost ? names_left(*parts.replaced) : 0});
    const KnownNames::Name from{.parent = parts.source.inode->id, .name = source_name};
    const KnownNames::Name to{.parent = parts.target.inode->id, .name = target_name};
    if (parts.replaced && exchange) name_moved(volume, *parts.replaced, to, from);
    if (lost) name_lost(volume, *parts.replaced, to);
    name_moved(volume, parts.object, from, to);
    return {};
}

Status log_link(Volume& volume, Turn& turn, const Parent& parent, const char* name,
                const Found& found) {
    if (!volume.told(*found.inode)) {
        const Ending told = tell_entry(volume, turn, *parent.inode, parent.fd(), name, *found.inode,
                                       found.inode->suspect ? Telling::kAgain : Telling::kFirst);
        if (!told.is_done()) return plain(told);
    }
    TS_ASSIGN(const FileTime parent_mtime, mtime_now(parent.fd()));
    turn.append(LinkOp{.object = found.inode->id,
                       .parent = parent.inode->id,
                       .name = name,
                       .parent_mtime = parent_mtime});
    if (volume.walking)
        volume.names.insert(found.inode->id, {.parent = parent.inode->id, .name = name});
    return {};
}

}  // namespace

Answered make_link(Volume& volume, Turn& turn, const Request& request, ObjectId object_id,
                   ObjectId parent_id, const char* name) {
    if (volume.journal.failure() != 0) return plain(EROFS);
    const std::string_view entry{name};
    if (entry.size() > NAME_MAX) return plain(ENAMETOOLONG);
    if (!turn.take_credit(max_encoded_size(entry.size()))) return plain(Ending::no_credit());
    Found found{.inode = volume.inodes.find(object_id), .attributes = {}};
    if (!found.inode) return plain(ESTALE);
    TS_ASSIGN(const Parent parent, open_parent(volume, turn, parent_id, name));
    if (found.inode->directory != parent.inode->directory) return plain(EXDEV);
    TS_ASSIGN(const Lease object, volume.lease(*found.inode));

    Change change{volume, turn};
    const Ending begun = change.begin({parent.inode.get(), found.inode.get()});
    if (!begun.is_done()) return plain(begun);
    if (!volume.told(*parent.inode)) return plain(Ending::busy());
    tell_walker(volume, found);
    // The kernel does not say by which name it knows the object. One that was not told is told
    // here.
    const bool told = volume.told(*found.inode);
    if (!told && !turn.earmark_credit(kMaxFramePayload)) return plain(Ending::no_credit());
    change.note(*parent.inode, entry).note(*found.inode).noted();
    act_as(request.caller);
    if (::linkat(object.fd(), "", parent.fd(), name, AT_EMPTY_PATH) != 0) return plain(errno);
    change.acted();
    const Status logged = log_link(volume, turn, parent, name, found);
    if (!logged.ok()) {
        (void)::unlinkat(parent.fd(), name, 0);
        return logged.error();
    }
    change.logged();
    if (!told && volume.walk != nullptr) volume.walk->revisit(*found.inode);
    if (const int error = stat_object(object.fd(), found.attributes)) return plain(error);
    return Answer{Answer::Entry{.inode = std::move(found.inode),
                                .attributes = found.attributes,
                                .keep = Answer::Keep::kNot}};
}

Answered remove_name(Volume& volume, Turn& turn, const Request& /*request*/, ObjectId parent_id,
                     const char* name, Removed what) {
    if (volume.journal.failure() != 0) return plain(EROFS);
    const std::string_view entry{name};
    if (entry.size() > NAME_MAX) return plain(ENAMETOOLONG);
    if (!turn.take_credit(max_encoded_size(entry.size()))) return plain(Ending::no_credit());
    TS_ASSIGN(const Parent parent, open_parent(volume, turn, parent_id, name));
    TS_ASSIGN(const Found found, identify_entry(volume, turn, *parent.inode, name));

    Change change{volume, turn};
    const Ending begun = change.begin({parent.inode.get(), found.inode.get()});
    if (!begun.is_done()) return plain(begun);
    if (!volume.told(*parent.inode)) return plain(Ending::busy());
    if (!turn.may_wait() && loses_last_name(found) && found.attributes.stx_size > kLargeFileBytes)
        return plain(Ending::busy());
    TS_TRY(keep_usable(volume, found, is_root(volume, *parent.inode), parent.fd(), name));
    prepare_loss(volume, found, {.parent = parent.inode->id, .name = entry});
    change.note(*parent.inode, entry).note(*found.inode).noted();
    if (::unlinkat(parent.fd(), name, what == Removed::kDirectory ? AT_REMOVEDIR : 0) != 0) {
        const int error = errno;
        volume.descriptors.unpin(*found.inode);
        if (found.inode->orphaned.exchange(false)) remove_orphan(volume, *found.inode);
        return plain(error);
    }
    change.acted();
    TS_ASSIGN(const FileTime parent_mtime, mtime_now(parent.fd()));
    turn.append(UnlinkOp{.object = found.inode->id,
                         .parent = parent.inode->id,
                         .name = entry,
                         .parent_mtime = parent_mtime,
                         .names_left = names_left(found)});
    name_lost(volume, found, {.parent = parent.inode->id, .name = entry});
    change.logged();
    return nothing();
}

Answered rename_entry(Volume& volume, Turn& turn, const Request& /*request*/,
                      ObjectId source_parent, const char* source_name, ObjectId target_parent,
                      const char* target_name, unsigned flags) {
    if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0)
        return plain(EINVAL);
    const bool exchange = (flags & RENAME_EXCHANGE) != 0;
    const std::string_view from{source_name};
    const std::string_view to{target_name};
    if (from.size() > NAME_MAX || to.size() > NAME_MAX) return plain(ENAMETOOLONG);
    if (volume.journal.failure() != 0) return plain(EROFS);
    if (!turn.take_credit(max_encoded_size(from.size() + to.size())))
        return plain(Ending::no_credit());
    TS_ASSIGN(const RenameParts parts, find_rename(volume, turn, source_parent, source_name,
                                                   target_parent, target_name, flags));
    const RenameParts& at = parts;
    Inode* const replaced = at.replaced ? at.replaced->inode.get() : nullptr;
    if (exchange && replaced == nullptr) return plain(ENOENT);
    if (replaced == at.object.inode.get()) return nothing();  // two names of one object: stays so

    Change change{volume, turn};
    const Ending begun = change.begin(
        {at.source.inode.get(), at.target.inode.get(), at.object.inode.get(), replaced});
    if (!begun.is_done()) return plain(begun);
    if (!volume.told(*at.source.inode) || !volume.told(*at.target.inode) ||
        !volume.told(*at.object.inode) || (exchange && !volume.told(*replaced)))
        return plain(Ending::busy());
    tell_walker(volume, at.object);
    if (exchange) tell_walker(volume, *at.replaced);
    if (replaced != nullptr && !exchange) {
        const bool root_is_locked =
            is_root(volume, *at.source.inode) || is_root(volume, *at.target.inode);
        TS_TRY(keep_usable(volume, *at.replaced, root_is_locked, at.target.fd(), target_name));
        prepare_loss(volume, *at.replaced, {.parent = at.target.inode->id, .name = to});
    }
    change.note(*at.source.inode, from).note(*at.target.inode, to).note(*at.object.inode);
    if (replaced != nullptr) change.note(*replaced);
    change.noted();
    if (::renameat2(at.source.fd(), source_name, at.target.fd(), target_name, flags) != 0) {
        const int error = errno;
        if (replaced != nullptr && !exchange) {
            volume.descriptors.unpin(*replaced);
            if (replaced->orphaned.exchange(false)) remove_orphan(volume, *replaced);
        }
        return plain(error);
    }
    change.acted();
    TS_TRY(log_rename(volume, turn, at, source_name, target_name, exchange));
    change.logged();
    return nothing();
}

}  // namespace twinspool
