// SPDX-License-Identifier: Apache-2.0
// Checker: compares a standby's tree with the check records of a range that has just been applied
// to it. What does not agree, or cannot be read, is a finding; nothing is an error, and nothing is
// changed. One for each range; one thread (the applier's, with the tree and the index to itself).
//
// Content is compared as if the file had the size that the check says, so a truncate to that size
// and the ranges that are found are all that it takes to make the file right.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/delta/pending_checks.h"
#include "journal/delta/tree.h"
#include "journal/format/finding.h"

namespace twinspool {

class Checker {
   public:
    Checker(const Tree& tree, ObjectIndex& index) : tree_(tree), index_(index) {}

    // A check that is superseded, and one that is `skipped`, is found to be changed meanwhile.
    enum class How : std::uint8_t { kCompare, kSkip };
    void check(const PendingCheck& check, How how);
    // Since the last call; in the order of the checks.
    std::vector<Finding> take() { return std::exchange(findings_, {}); }
    [[nodiscard]] std::size_t found() const { return findings_.size(); }

   private:
    // A regular file that is read, or the names of a directory, for checks of one object in a row.
    struct Opened {
        ObjectId object{};
        IndexEntry entry;
        Fd fd;
        struct stat status {};
        std::vector<std::string> names;  // sorted
        bool size_said = false;
    };

    // False: there is a finding instead.
    bool open(const PendingCheck& check, std::uint32_t type, int flags);
    void compare(const PendingCheck& check, const CheckContentOp& op);
    void compare(const PendingCheck& check, const CheckObjectOp& op);
    void compare(const PendingCheck& check, const CheckEntriesOp& op);
    void compare_blocks(const PendingCheck& check, const CheckContentOp& op, Bytes hashes);
    void compare_xattrs(const PendingCheck& check, const CheckObjectOp& op, int fd);
    Result<bool> same_attributes(const CheckObjectOp& op, const struct stat& status, int fd) const;
    void compare_entry(const PendingCheck& check, std::string_view name, ObjectId object);
    void find(const PendingCheck& check, FindingKind kind, std::uint64_t offset = 0,
              std::uint64_t length = 0, std::string_view name = {});
    void unreadable(const PendingCheck& check, const Error& error);

    const Tree& tree_;
    ObjectIndex& index_;
    std::optional<Opened> opened_;
    std::vector<Finding> findings_;
};

}  // namespace twinspool
