// SPDX-License-Identifier: Apache-2.0
#include "replicator/standby/checker.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>

#include "journal/format/block_hash.h"
#include "journal/format/check_list.h"

namespace twinspool {
namespace {

constexpr std::string_view kKernelsOwn = "security.";  // labels that a policy gives to each object
constexpr std::string_view kCapability = "security.capability";

bool same_mtime(const struct stat& status, const FileTime& mtime) {
    return status.st_mtim.tv_sec == mtime.seconds &&
           static_cast<std::uint32_t>(status.st_mtim.tv_nsec) == mtime.nanoseconds;
}

Result<std::string> target_of(int symlink) {
    std::string target(4096, '\0');  // longer ones there are not
    const ssize_t size = ::readlinkat(symlink, "", target.data(), target.size());
    if (size < 0) return last_error("read where a symlink leads");
    target.resize(static_cast<std::size_t>(size));
    return target;
}

Bytes hash_at(Bytes hashes, std::uint64_t block) {
    return hashes.subspan(static_cast<std::size_t>(block) * kBlockHashBytes, kBlockHashBytes);
}

}  // namespace

void Checker::check(const PendingCheck& check, How how) {
    std::visit(
        [&]<typename Op>(const Op& op) {
            if (!check.superseded && how == How::kCompare) return compare(check, op);
            if constexpr (std::is_same_v<Op, CheckContentOp>)
                find(check, FindingKind::kChangedMeanwhile, op.offset, op.length);
            else
                find(check, FindingKind::kChangedMeanwhile);
        },
        check.op);
}

void Checker::find(const PendingCheck& check, FindingKind kind, std::uint64_t offset,
                   std::uint64_t length, std::string_view name) {
    findings_.push_back({.check = check.lsn,
                         .object = check.object,
                         .kind = kind,
                         .offset = offset,
                         .length = length,
                         .name = std::string{name}});
}

void Checker::unreadable(const PendingCheck& check, const Error& error) {
    spdlog::error("check {} of object {:016x}: could not {}", check.lsn.value, raw(check.object),
                  error.text());
    find(check, FindingKind::kUnreadable, static_cast<std::uint64_t>(error.code));
}

// What has lost its last name, and is kept for a snapshot, is not there any more.
bool Checker::open(const PendingCheck& check, std::uint32_t type, int flags) {
    if (opened_ && opened_->object == check.object) return true;
    opened_.reset();
    const auto missing = [&] {
        find(check, FindingKind::kMissing);
        return false;
    };
    const auto known = index_.find(check.object);
    if (!known.ok()) return unreadable(check, known.error()), false;
    if (!*known || (*known)->kept != Lsn{} || (*known)->type != type) return missing();
    auto fd = tree_.open_object((*known)->handle, flags);
    if (!fd.ok() && fd.error().code == ESTALE) return missing();
    if (!fd.ok()) return unreadable(check, fd.error()), false;
    Opened opened{.object = check.object, .entry = **known, .fd = std::move(*fd)};
    if (::fstat(opened.fd.get(), &opened.status) != 0)
        return unreadable(check, last_error("look at it")), false;
    opened_ = std::move(opened);
    return true;
}

void Checker::compare(const PendingCheck& check, const CheckContentOp& op) {
    if (!open(check, S_IFREG, O_RDONLY | O_NOATIME)) return;
    const auto size = static_cast<std::uint64_t>(opened_->status.st_size);
    if (!check.size_changed && size != op.size && !std::exchange(opened_->size_said, true))
        find(check, FindingKind::kSize, op.size, size);
    const int fd = opened_->fd.get();
    const auto hashes = hash_blocks(fd, op.offset, op.length, op.size);
    // Nobody else reads the replica: what was read for this is not worth its memory.
    (void)::posix_fadvise(fd, static_cast<off_t>(op.offset), static_cast<off_t>(op.length),
                          POSIX_FADV_DONTNEED);
    if (!hashes.ok()) return unreadable(check, hashes.error());
    compare_blocks(check, op, *hashes);
}

void Checker::compare_blocks(const PendingCheck& check, const CheckContentOp& op, Bytes hashes) {
    const std::uint64_t blocks = hashes.size() / kBlockHashBytes;
    const std::uint64_t end = std::min(op.size, op.offset + op.length);
    const auto differs = [&](std::uint64_t block) {
        return !std::ranges::equal(hash_at(hashes, block), hash_at(op.hashes, block));
    };
    for (std::uint64_t block = 0; block < blocks; ++block) {
        if (!differs(block)) continue;
        const std::uint64_t first = block;
        while (block + 1 < blocks && differs(block + 1)) ++block;
        const std::uint64_t from = op.offset + first * kCheckBlockBytes;
        const std::uint64_t upto = std::min(end, op.offset + (block + 1) * kCheckBlockBytes);
        find(check, FindingKind::kContent, from, upto - from);
    }
}

void Checker::compare(const PendingCheck& check, const CheckObjectOp& op) {
    const auto known = index_.find(check.object);
    if (!known.ok()) return unreadable(check, known.error());
    if (!*known || (*known)->kept != Lsn{}) return find(check, FindingKind::kMissing);
    const auto fd = tree_.open_object((*known)->handle, O_PATH);
    if (!fd.ok() && fd.error().code == ESTALE) return find(check, FindingKind::kMissing);
    if (!fd.ok()) return unreadable(check, fd.error());
    struct stat status {};
    if (::fstat(fd->get(), &status) != 0) return unreadable(check, last_error("look at it"));
    const auto same = same_attributes(op, status, fd->get());
    if (!same.ok()) return unreadable(check, same.error());
    if (!*same) find(check, FindingKind::kAttributes);
    compare_xattrs(check, op, fd->get());
}

Result<bool> Checker::same_attributes(const CheckObjectOp& op, const struct stat& status,
                                      int fd) const {
    const Attributes& wanted = op.attributes;
    if ((status.st_mode & S_IFMT) != (wanted.mode & S_IFMT)) return false;
    const bool symlink = S_ISLNK(status.st_mode);  // their modes are all the same
    if (!symlink && (status.st_mode & 07777) != (wanted.mode & 07777)) return false;
    if (status.st_uid != wanted.uid || status.st_gid != wanted.gid ||
        !same_mtime(status, wanted.mtime))
        return false;
    const bool device = S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode);
    if (device && status.st_rdev != op.device) return false;
    if (!symlink) return true;
    TS_ASSIGN(const auto target, target_of(fd));
    return target == op.target;
}

// A label of the kernel's own, which the primary's system does not give, is no difference.
void Checker::compare_xattrs(const PendingCheck& check, const CheckObjectOp& op, int fd) {
    const auto wanted = checked_xattrs(op.xattrs);
    auto found = Tree::xattrs(fd);
    if (!found.ok()) return unreadable(check, found.error());
    for (const auto& [name, value] : *wanted) {
        const auto at = found->find(std::string{name});
        if (at == found->end() || at->second != value)
            find(check, FindingKind::kXattrs, 0, 0, name);
        if (at != found->end()) found->erase(at);
    }
    for (const auto& [name, value] : *found)
        if (!name.starts_with(kKernelsOwn) || name == kCapability)
            find(check, FindingKind::kXattrs, 0, 0, name);
}

void Checker::compare(const PendingCheck& check, const CheckEntriesOp& op) {
    const bool again = opened_ && opened_->object == check.object;
    if (!open(check, S_IFDIR, O_RDONLY | O_DIRECTORY | O_NOATIME)) return;
    if (!again) {
        auto names = Tree::list(opened_->fd.get());
        if (!names.ok()) {
            opened_.reset();
            return unreadable(check, names.error());
        }
        opened_->names = std::move(*names);
        std::sort(opened_->names.begin(), opened_->names.end());
    }
    const auto& names = opened_->names;
    const auto wanted = checked_entries(op.entries);
    auto there = std::upper_bound(names.begin(), names.end(), op.after);
    const auto end = op.upto.empty() ? names.end() : std::upper_bound(there, names.end(), op.upto);
    for (const auto& [name, object] : *wanted) {
        for (; there != end && *there < name; ++there)
            find(check, FindingKind::kEntryExtra, 0, 0, *there);
        if (there == end || *there != name) {
            find(check, FindingKind::kEntryMissing, 0, 0, name);
            continue;
        }
        compare_entry(check, name, object);
        ++there;
    }
    for (; there != end; ++there) find(check, FindingKind::kEntryExtra, 0, 0, *there);
}

void Checker::compare_entry(const PendingCheck& check, std::string_view name, ObjectId object) {
    const EntryName text{name};
    const auto standing = tree_.at(opened_->fd.get(), text.c_str());
    if (!standing.ok()) return unreadable(check, standing.error());
    if (!*standing) return find(check, FindingKind::kEntryMissing, 0, 0, name);
    const auto known = index_.find(object);
    if (!known.ok()) return unreadable(check, known.error());
    // More than one inode may carry an id: the index decides.
    if ((*standing)->object != object || !*known || (*known)->handle != (*standing)->handle)
        find(check, FindingKind::kEntryOther, 0, 0, name);
}

}  // namespace twinspool
