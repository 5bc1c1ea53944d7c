// SPDX-License-Identifier: Apache-2.0
#include "journal/format/extents.h"

#include <algorithm>
#include <iterator>

namespace twinspool {
namespace {

// What is left of `extent` when its first `skip` bytes are gone.
Extent without_head(const Extent& extent, std::uint64_t skip) {
    return {.length = extent.length - skip,
            .kind = extent.kind,
            .data = extent.data == nullptr ? nullptr : extent.data + skip};
}

bool mergeable(const Extent& a, const Extent& b) {
    return a.kind == b.kind && a.kind != ExtentKind::kData;
}

}  // namespace

void ContentChange::start_empty() {
    extents_.clear();
    cut_ = 0;
    size_ = 0;
}

void ContentChange::write(std::uint64_t offset, Bytes data) {
    if (data.empty()) return;
    carve(offset, offset + data.size());
    insert(offset, {.length = data.size(), .kind = ExtentKind::kData, .data = data.data()});
    if (size_) size_ = std::max(*size_, offset + data.size());
}

void ContentChange::truncate(std::uint64_t size) {
    carve(size, UINT64_MAX);
    cut_ = std::min(cut_.value_or(UINT64_MAX), size);
    size_ = size;
}

void ContentChange::allocate(const AllocateOp& op) {
    const std::uint64_t end = op.offset + op.length;
    if (op.length != 0) {
        if (op.kind == AllocateKind::kAllocate) {
            allocate_gaps(op.offset, end);
        } else {
            carve(op.offset, end);
            insert(op.offset, {.length = op.length,
                               .kind = op.kind == AllocateKind::kPunch ? ExtentKind::kHole
                                                                       : ExtentKind::kZero});
        }
    }
    size_ = op.size;
}

// Allocating changes no content: only what is a hole, or not known, becomes something else.
void ContentChange::allocate_gaps(std::uint64_t begin, std::uint64_t end) {
    while (begin < end) {
        auto it = extents_.upper_bound(begin);
        std::uint64_t stop = it == extents_.end() ? end : std::min(end, it->first);
        const bool covered =
            it != extents_.begin() && std::prev(it)->first + std::prev(it)->second.length > begin;
        if (!covered) {
            insert(begin, {.length = stop - begin, .kind = ExtentKind::kAllocated});
        } else {
            const auto [offset, extent] = *std::prev(it);
            stop = std::min(end, offset + extent.length);
            if (extent.kind == ExtentKind::kHole) {
                carve(begin, stop);
                insert(begin, {.length = stop - begin, .kind = ExtentKind::kZero});
            }
        }
        begin = stop;
    }
}

void ContentChange::carve(std::uint64_t begin, std::uint64_t end) {
    auto it = extents_.lower_bound(begin);
    if (it != extents_.begin()) {
        auto& [offset, extent] = *std::prev(it);
        const std::uint64_t stop = offset + extent.length;
        if (stop > end) extents_.emplace_hint(it, end, without_head(extent, end - offset));
        if (stop > begin) extent.length = begin - offset;
    }
    while (it != extents_.end() && it->first < end) {
        const auto [offset, extent] = *it;
        if (offset + extent.length > end) extents_.emplace(end, without_head(extent, end - offset));
        it = extents_.erase(it);
    }
}

void ContentChange::insert(std::uint64_t offset, Extent extent) {
    auto next = extents_.lower_bound(offset);
    if (next != extents_.end() && next->first == offset + extent.length &&
        mergeable(extent, next->second)) {
        extent.length += next->second.length;
        next = extents_.erase(next);
    }
    if (next != extents_.begin()) {
        auto& [before, previous] = *std::prev(next);
        if (before + previous.length == offset && mergeable(previous, extent)) {
            previous.length += extent.length;
            return;
        }
    }
    extents_.emplace_hint(next, offset, extent);
}

}  // namespace twinspool
