// SPDX-License-Identifier: Apache-2.0
#include "journal/delta/pending_checks.h"

#include <algorithm>
#include <climits>

#include "journal/format/block_hash.h"
#include "journal/format/check_list.h"
#include "journal/format/format.h"

namespace twinspool {
namespace {

constexpr std::uint64_t kMaxOffset = INT64_MAX;

std::uint64_t end_of(const CheckContentOp& op) { return std::min(op.size, op.offset + op.length); }

bool reaches_end(const CheckContentOp& op) { return op.offset + op.length >= op.size; }

}  // namespace

PendingCheck& PendingChecks::append(Lsn lsn, ObjectId object) {
    of_object_[object].push_back(all_.size());
    PendingCheck& check = all_.emplace_back();
    check.lsn = lsn;
    check.object = object;
    return check;
}

Status PendingChecks::add(Lsn lsn, const CheckContentOp& op) {
    const bool sound =
        op.size <= kMaxOffset && op.offset <= kMaxOffset && op.length <= kMaxDataBytes &&
        op.offset % kCheckBlockBytes == 0 &&
        op.hashes.size() == blocks_checked(op.offset, op.length, op.size) * kBlockHashBytes;
    if (!sound)
        return make_error(EBADMSG, "check {}+{} of a file of {} bytes by {} bytes of hashes",
                          op.offset, op.length, op.size, op.hashes.size());
    append(lsn, op.object).op = op;
    exact_ = exact_ || op.exact != 0;
    bytes_ += op.hashes.size() / kBlockHashBytes * kCheckBlockBytes;
    return {};
}

Status PendingChecks::add(Lsn lsn, const CheckObjectOp& op) {
    if (auto xattrs = checked_xattrs(op.xattrs); !xattrs.ok()) return xattrs.error();
    append(lsn, op.object).op = op;
    exact_ = exact_ || op.exact != 0;
    return {};
}

Status PendingChecks::add(Lsn lsn, const CheckEntriesOp& op) {
    if (auto entries = checked_entries(op.entries); !entries.ok()) return entries.error();
    append(lsn, op.parent).op = op;
    exact_ = exact_ || op.exact != 0;
    return {};
}

// Those of this kind that still count.
template <typename Op, typename What>
void PendingChecks::each(ObjectId id, const What& what) {
    if (all_.empty()) return;
    const auto its = of_object_.find(id);
    if (its == of_object_.end()) return;
    for (const std::size_t index : its->second) {
        PendingCheck& check = all_[index];
        const Op* op = std::get_if<Op>(&check.op);
        if (op != nullptr && !check.superseded) what(check, *op);
    }
}

void PendingChecks::object_changed(ObjectId id) {
    each<CheckObjectOp>(id,
                        [](PendingCheck& check, const CheckObjectOp&) { check.superseded = true; });
}

void PendingChecks::content_changed(ObjectId id, std::uint64_t begin, std::uint64_t end) {
    each<CheckContentOp>(id, [&](PendingCheck& check, const CheckContentOp& op) {
        check.superseded = begin < end_of(op) && op.offset < end;
    });
}

// The check that reaches the end of the file is about its size, too.
void PendingChecks::resized(ObjectId id, const std::function<bool(std::uint64_t)>& changes) {
    each<CheckContentOp>(id, [&](PendingCheck& check, const CheckContentOp& op) {
        if (!changes(op.size)) return;
        check.size_changed = true;
        check.superseded = reaches_end(op);
    });
}

void PendingChecks::written(ObjectId id, std::uint64_t offset, std::uint64_t length) {
    if (all_.empty()) return;
    content_changed(id, offset, offset + length);
    if (length != 0) resized(id, [&](std::uint64_t size) { return offset + length > size; });
    object_changed(id);
}

void PendingChecks::truncated(ObjectId id, std::uint64_t size) {
    if (all_.empty()) return;
    content_changed(id, size, UINT64_MAX);
    resized(id, [&](std::uint64_t before) { return before != size; });
    object_changed(id);
}

void PendingChecks::allocated(const AllocateOp& op) {
    if (all_.empty()) return;
    if (op.kind != AllocateKind::kAllocate)
        content_changed(op.object, op.offset, op.offset + op.length);
    resized(op.object, [&](std::uint64_t before) { return before != op.size; });
    object_changed(op.object);
}

void PendingChecks::entry_changed(ObjectId directory, std::string_view name) {
    each<CheckEntriesOp>(directory, [&](PendingCheck& check, const CheckEntriesOp& op) {
        check.superseded = name > op.after && (op.upto.empty() || name <= op.upto);
    });
}

void PendingChecks::entries_stated(ObjectId directory, std::string_view after,
                                   std::string_view upto) {
    each<CheckEntriesOp>(directory, [&](PendingCheck& check, const CheckEntriesOp& op) {
        check.superseded =
            (op.upto.empty() || after < op.upto) && (upto.empty() || op.after < upto);
    });
}

void PendingChecks::gone(ObjectId id) {
    if (all_.empty()) return;
    const auto its = of_object_.find(id);
    if (its == of_object_.end()) return;
    for (const std::size_t index : its->second) all_[index].superseded = true;
}

void PendingChecks::gone_if(const std::function<bool(ObjectId)>& gone) {
    for (PendingCheck& check : all_)
        if (gone(check.object)) check.superseded = true;
}

}  // namespace twinspool
