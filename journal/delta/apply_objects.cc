// SPDX-License-Identifier: Apache-2.0
// The part of ApplyRun that changes contents and attributes.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <utility>

#include "journal/delta/apply_run.h"

namespace twinspool {
namespace {

constexpr std::size_t kMaxOpenDirectories = 128;
constexpr const char* kCapability = "security.capability";

bool same_time(const struct stat& status, const FileTime& time) {
    return status.st_mtim.tv_sec == time.seconds &&
           static_cast<std::uint32_t>(status.st_mtim.tv_nsec) == time.nanoseconds;
}

}  // namespace

Error ApplyRun::diverged(const ObjectChange& change, std::string_view what) const {
    return make_error(EUCLEAN, "apply \"{}\" at Lsn {} to object {:016x}, which {}",
                      change.first_word, change.first.value, raw(change.id), what);
}

Result<int> ApplyRun::directory_fd(ObjectId directory) {
    const auto it = open_.find(directory);
    if (it != open_.end()) return it->second.get();
    TS_ASSIGN(Fd fd, open_changed(*delta_.find(directory), O_PATH | O_DIRECTORY));
    if (!fd.valid()) return -1;
    if (open_.size() >= kMaxOpenDirectories) open_.clear();
    return open_.emplace(directory, std::move(fd)).first->second.get();
}

Result<Fd> ApplyRun::open_changed(const ObjectChange& change, int flags) {
    TS_ASSIGN(const auto known, index_.find(change.id));
    if (!known) {
        if (change.links.empty() && (change.unlinked || change.told)) return Fd{};
        return diverged(change, "is not in the replica");
    }
    if ((flags & O_PATH) == 0 && known->type != S_IFREG) return diverged(change, "is not a file");
    auto fd = tree_.open_object(known->handle, flags);
    if (fd.ok() || fd.error().code != ESTALE) return fd;
    // Redo: it may have been there when the range began, and be gone since.
    if (change.links.empty() && (change.unlinked || delta_.seeded())) return Fd{};
    return diverged(change, "is gone from the replica");
}

Status ApplyRun::change_contents() {
    for (const ObjectChange& change : delta_.objects())
        if (!change.content.empty() && !change.elided()) TS_TRY(write_content(change));
    return {};
}

Status ApplyRun::write_content(const ObjectChange& change) {
    TS_ASSIGN(const Fd fd, open_changed(change, O_RDWR));
    if (!fd.valid()) return {};
    ++counters_.written;
    // To be written to costs a file its capability; whether it lost it in the source is said there.
    std::byte capability[64];
    const ssize_t size = ::fgetxattr(fd.get(), kCapability, capability, sizeof capability);
    TS_TRY(tree_.change_content(fd.get(), change.content));
    if (size < 0 || change.xattrs_cleared || change.xattrs.contains(kCapability)) return {};
    return tree_.set_xattr(fd.get(), kCapability,
                           Bytes{capability}.first(static_cast<std::size_t>(size)));
}

Status ApplyRun::set_attributes() {
    counters_.elided = delta_.elided();
    for (const ObjectChange& change : delta_.objects()) {
        if (change.id == kRootObject || change.elided()) continue;
        if (change.directory) touched_.insert(change.id);
        if (change.attributes || change.xattrs_cleared || !change.xattrs.empty() ||
            (change.mtime && !change.directory))
            TS_TRY(set_attributes_of(change));
    }
    return {};
}

// The owner first: a new one costs the set-id bits and the capabilities. The mode after the xattrs:
// a new ACL changes it, and it changes the ACL's mask.
Status ApplyRun::set_attributes_of(const ObjectChange& change) {
    TS_ASSIGN(const Fd fd, open_changed(change, O_PATH));
    if (!fd.valid()) return {};
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return last_error("look at an object");
    const auto& wanted = change.attributes;
    if (wanted && (status.st_uid != wanted->uid || status.st_gid != wanted->gid))
        TS_TRY(tree_.set_owner(fd.get(), wanted->uid, wanted->gid));
    TS_TRY(set_xattrs(fd.get(), change));
    if (wanted && !S_ISLNK(status.st_mode)) {
        if (::fstat(fd.get(), &status) != 0) return last_error("look at an object");
        if ((status.st_mode & 07777) != (wanted->mode & 07777))
            TS_TRY(tree_.set_mode(fd.get(), wanted->mode));
    }
    if (S_ISDIR(status.st_mode)) {
        touched_.insert(change.id);
    } else if (change.mtime && !same_time(status, *change.mtime)) {
        TS_TRY(tree_.set_mtime(fd.get(), *change.mtime));
    }
    return {};
}

Status ApplyRun::set_xattrs(int object, const ObjectChange& change) {
    if (change.xattrs_cleared) {
        TS_ASSIGN(const auto names, tree_.list_xattrs(object));
        for (const auto& name : names) {
            const auto it = change.xattrs.find(name);
            if (it == change.xattrs.end() || !it->second) TS_TRY(tree_.remove_xattr(object, name));
        }
    }
    for (const auto& [name, value] : change.xattrs) {
        if (value) {
            TS_TRY(tree_.set_xattr(object, name, *value));
        } else if (!change.xattrs_cleared) {
            TS_TRY(tree_.remove_xattr(object, name));
        }
    }
    return {};
}

// What lost its last name in an earlier, interrupted apply is in the index still.
Status ApplyRun::forget_the_gone() {
    for (const ObjectChange& change : delta_.objects()) {
        if (!change.unlinked || !change.links.empty()) continue;
        TS_ASSIGN(const auto known, index_.find(change.id));
        if (!known) continue;
        const auto fd = tree_.open_object(known->handle, O_PATH);
        if (!fd.ok() && fd.error().code != ESTALE) return fd.error();
        struct stat status {};
        if (!fd.ok() || (::fstat(fd.value().get(), &status) == 0 && status.st_nlink == 0))
            TS_TRY(index_.erase(change.id));
        else
            TS_TRY(note_if_kept(change.id, *known, fd.value().get()));
    }
    return {};
}

Status ApplyRun::set_directory_times() {
    for (const ObjectId id : touched_)
        if (id != kRootObject) TS_TRY(set_time_of(id));
    return {};
}

Status ApplyRun::set_time_of(ObjectId directory) {
    TS_ASSIGN(auto known, index_.find(directory));
    if (!known) return {};  // removed
    const auto fd = tree_.open_object(known->handle, O_PATH);
    if (!fd.ok()) return fd.error().code == ESTALE ? Status{} : Status{fd.error()};
    const ObjectChange* change = delta_.find(directory);
    const FileTime mtime = change != nullptr && change->mtime ? *change->mtime : known->mtime;
    TS_TRY(tree_.set_mtime(fd.value().get(), mtime));
    if (mtime == known->mtime) return {};
    known->mtime = mtime;
    return index_.put(directory, *known);
}

}  // namespace twinspool
