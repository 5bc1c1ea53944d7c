// SPDX-License-Identifier: Apache-2.0
// PendingChecks: the checks of a range of the journal, and which of them a later record of the same
// range covers. They are made when all of the range has been applied, so what changed after one
// cannot be compared with it. Part of a delta (journal/delta/delta.h); what they point to is
// borrowed from its frames. One thread. Free where there are no checks.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/format/op.h"

namespace twinspool {

struct PendingCheck {
    Lsn lsn;
    ObjectId object{};  // the directory, for entries
    std::variant<CheckContentOp, CheckObjectOp, CheckEntriesOp> op;
    bool superseded = false;
    // Only the size of the file changed, and this content ends before it: the rest still counts.
    bool size_changed = false;
};

class PendingChecks {
   public:
    // EBADMSG: no check that anybody could have meant.
    Status add(Lsn lsn, const CheckContentOp& op);
    Status add(Lsn lsn, const CheckObjectOp& op);
    Status add(Lsn lsn, const CheckEntriesOp& op);

    // In order.
    [[nodiscard]] const std::vector<PendingCheck>& all() const { return all_; }
    // Nothing but checks may follow in this range.
    [[nodiscard]] bool exact() const { return exact_; }
    // Of content that has to be read.
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

    // --- what later records do
    void object_changed(ObjectId id);
    // `size`: of the file, at least.
    void written(ObjectId id, std::uint64_t offset, std::uint64_t length);
    void truncated(ObjectId id, std::uint64_t size);
    void allocated(const AllocateOp& op);
    void entry_changed(ObjectId directory, std::string_view name);
    void entries_stated(ObjectId directory, std::string_view after, std::string_view upto);
    void gone(ObjectId id);
    void gone_if(const std::function<bool(ObjectId)>& gone);

   private:
    PendingCheck& append(Lsn lsn, ObjectId object);
    template <typename Op, typename What>
    void each(ObjectId id, const What& what);
    void content_changed(ObjectId id, std::uint64_t begin, std::uint64_t end);
    void resized(ObjectId id, const std::function<bool(std::uint64_t)>& changes);

    std::vector<PendingCheck> all_;
    std::unordered_map<ObjectId, std::vector<std::size_t>> of_object_;
    bool exact_ = false;
    std::uint64_t bytes_ = 0;
};

}  // namespace twinspool
