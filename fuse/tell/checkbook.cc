// SPDX-License-Identifier: Apache-2.0
#include "fuse/tell/checkbook.h"

#include <algorithm>

namespace twinspool {
namespace {

constexpr std::uint64_t bit(std::uint32_t standby) { return std::uint64_t{1} << standby; }

}  // namespace

void Checkbook::begin(std::uint64_t standbys) {
    const std::lock_guard lock{mutex_};
    standbys_ = standbys;
    open_.clear();
    open_bytes_ = 0;
    answers_.clear();
}

std::uint64_t Checkbook::standbys() const {
    const std::lock_guard lock{mutex_};
    return standbys_;
}

std::vector<CheckAnswer> Checkbook::take(std::chrono::milliseconds patience) {
    std::unique_lock lock{mutex_};
    if (answers_.empty() && !open_.empty())
        answered_.wait_for(lock, patience, [this] { return !answers_.empty(); });
    return std::exchange(answers_, {});
}

std::size_t Checkbook::open_checks() const {
    const std::lock_guard lock{mutex_};
    return open_.size();
}

std::uint64_t Checkbook::open_bytes() const {
    const std::lock_guard lock{mutex_};
    return open_bytes_;
}

bool Checkbook::empty() const {
    const std::lock_guard lock{mutex_};
    return open_.empty() && answers_.empty();
}

Lsn Checkbook::last() const {
    const std::lock_guard lock{mutex_};
    return last_;
}

void Checkbook::close_front(bool lost) {
    Check& check = open_.front();
    open_bytes_ -= check.asked.bytes;
    answers_.push_back({.asked = std::move(check.asked), .lost = lost, .findings = {}});
    if (!lost) answers_.back().findings = std::move(check.findings);
    open_.pop_front();
}

void Checkbook::close_answered() {
    while (!open_.empty()) {
        const Lsn lsn = open_.front().lsn;
        for (std::uint32_t i = 0; i < kMostStandbys; ++i)
            if ((standbys_ & bit(i)) != 0 && applied_[i] < lsn) return;
        close_front(false);
        answered_.notify_all();
    }
}

void Checkbook::session_began(std::uint32_t standby) {
    TS_ASSERT(standby < kMostStandbys);
    const std::lock_guard lock{mutex_};
    applied_[standby] = {};
    if ((standbys_ & bit(standby)) == 0) return;
    while (!open_.empty()) close_front(true);
    answered_.notify_all();
}

// Of a standby that need not answer, too: what is open to it is heard.
void Checkbook::heard_findings(std::uint32_t standby, const std::vector<Finding>& findings) {
    const std::lock_guard lock{mutex_};
    for (const Finding& finding : findings) {
        const auto check =
            std::lower_bound(open_.begin(), open_.end(), finding.check,
                             [](const Check& one, Lsn lsn) { return one.lsn < lsn; });
        if (check != open_.end() && check->lsn == finding.check)
            check->findings.push_back({.standby = standby, .finding = finding});
    }
}

void Checkbook::heard_applied(std::uint32_t standby, Lsn lsn) {
    TS_ASSERT(standby < kMostStandbys);
    const std::lock_guard lock{mutex_};
    applied_[standby] = std::max(applied_[standby], lsn);
    close_answered();
}

}  // namespace twinspool
