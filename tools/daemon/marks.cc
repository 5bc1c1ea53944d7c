// SPDX-License-Identifier: Apache-2.0
// The part of the reign that takes and forgets snapshots, as far as the journal is concerned.
#include <spdlog/spdlog.h>

#include "tools/daemon/reign.h"

#include <algorithm>

namespace twinspool {
namespace {

using namespace std::chrono_literals;

// Beyond the time after which a standby that does not answer is given up.
constexpr Nanoseconds kMarkPatience = 5s;
constexpr Nanoseconds kUnmarkPatience = 60s;

Complaint degraded(std::string sentence) { return {ExitCode::kDegraded, std::move(sentence)}; }

}  // namespace

// What is marked must reach each of them: it is of no use on this side alone.
Verdict Reign::check_standbys(std::string_view doing) const {
    if (journal_->failure() != 0)
        return failure("the journal of {} in {} cannot be written any more: mend that disk first",
                       paths_.name, paths_.journal());
    const auto counted = counting();
    // Under ack = any one that gets it is enough; it is the others' loss.
    const bool enough = config_.ack == AckRule::kAny &&
                        std::any_of(counted.begin(), counted.end(), [](const Sender* sender) {
                            const auto standby = sender->status();
                            return standby.connected && standby.waited_for;
                        });
    for (const Sender* sender : counted) {
        const auto standby = sender->status();
        if (enough || (standby.connected && (standby.waited_for || !standby.wait))) continue;
        return degraded(fmt::format(
            "{} needs the standby {} of {}, which is {}{}{}; `twinspool status {}` shows how it is",
            doing, standby.target, paths_.name,
            standby.connected ? "still far behind" : "not connected",
            standby.trouble.empty() ? "" : ": ", standby.trouble, paths_.name));
    }
    return {};
}

std::optional<std::vector<Snapshot>> Reign::snapshots() const {
    for (const auto& sender : senders_)
        if (auto told = sender->snapshots()) return std::move(told->snapshots);
    return std::nullopt;
}

Complaint Reign::not_all_told() const {
    return degraded(fmt::format(
        "the volume {} is still looking for what the standby does not have: `twinspool status {}` "
        "shows how far it is; --incomplete takes the snapshot all the same",
        paths_.name, paths_.name));
}

Verdict Reign::may_mark(Incomplete incomplete) const {
    TS_TRY(check_standbys("a snapshot"));
    if (incomplete == Incomplete::kRefused && overlay_->walking()) return not_all_told();
    return {};
}

Outcome<Marked> Reign::mark(const MarkWish& wish, const GivenUp& given_up) {
    TS_TRY(may_mark(wish.incomplete));
    const std::uint32_t generation = generation_;
    Marked marked;
    {
        const std::lock_guard no_end_meanwhile{marking_mutex_};
        if (ending_) return degraded(fmt::format("the volume {} is going down", paths_.name));
        const auto done = overlay_->mark(wish);
        if (!done.ok() && done.error().code == EAGAIN) return not_all_told();
        if (!done.ok()) return done.error();
        marked = done.value();
        last_named_ = marked.lsn.value;
    }
    const auto reached =
        wait_for(Goal::kDurable, marked.lsn, config_.standby_timeout + kMarkPatience, given_up);
    spdlog::info("snapshot {} is record {}{}{}{}", wish.name, marked.lsn.value,
                 marked.incomplete ? ", incomplete" : "",
                 reached.reached ? "" : "; not durable: ", reached.why_not);
    if (!reached.reached)
        return degraded(fmt::format(
            "the snapshot {} is in the journal of {} as record {}, but not yet on the standby: {}",
            wish.name, paths_.name, marked.lsn.value, reached.why_not));
    // A standby that lost what it had is told only what comes after that.
    if (generation_ != generation && !marked.incomplete)
        return degraded(fmt::format(
            "the standby of {} has begun anew meanwhile, without the snapshot {}: take it again "
            "when the volume is in sync",
            paths_.name, wish.name));
    return marked;
}

Verdict Reign::unmark(Lsn mark, const GivenUp& given_up) {
    TS_TRY(check_standbys("destroying a snapshot"));
    Lsn record;
    {
        const std::lock_guard no_end_meanwhile{marking_mutex_};
        if (ending_) return degraded(fmt::format("the volume {} is going down", paths_.name));
        if (!journal_->take_credit(max_encoded_size(0)))
            return failure("the journal of {} cannot be written any more", paths_.name);
        const UnmarkOp unmark{.mark = mark};
        record = journal_->append(unmark);
        last_named_ = record.value;
        journal_->give_credit(max_encoded_size(0) - encoded_size(unmark));
    }
    const auto reached = wait_for(Goal::kApplied, record, kUnmarkPatience, given_up);
    spdlog::info("snapshot {} is to be destroyed: record {}{}{}", mark.value, record.value,
                 reached.reached ? "" : "; not applied: ", reached.why_not);
    if (reached.reached) return {};
    return degraded(
        fmt::format("the snapshot goes as soon as the standby of {} comes to record {}: {}",
                    paths_.name, record.value, reached.why_not));
}

}  // namespace twinspool
