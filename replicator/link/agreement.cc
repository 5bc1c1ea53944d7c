// SPDX-License-Identifier: Apache-2.0
#include "replicator/link/agreement.h"

#include <algorithm>

#include "journal/log/epochs.h"

namespace twinspool {
namespace {

// What the operator can do is the same in all of these.
constexpr const char* kWayOut =
    "nothing was changed. If what this primary has is right, stop that standby, remove the folder "
    "`journal` of its store and start it: it is compared by hash then, and brought to ours";

Error forked(const Hello& hello, const std::string& why) {
    return make_error(EBADMSG,
                      "forked history: the standby ends with record {} of epoch {} ({:016x}), {}; "
                      "{}",
                      hello.end_lsn, hello.epoch_number, hello.epoch_id, why, kWayOut);
}

}  // namespace

Result<Agreement> agree_on(const Hello& hello, const OurHistory& ours) {
    const Lsn end{hello.end_lsn};
    const bool from_first = ours.oldest == Lsn{1};
    if (end == Lsn{} && hello.applied_lsn == 0)
        return Agreement{from_first ? WelcomeKind::kContinue : WelcomeKind::kStartOver, Lsn{}};
    // Its tree stands where we have never been: no telling of ours would be applied to it.
    if (Lsn{hello.applied_lsn} > ours.appended)
        return make_error(
            EBADMSG,
            "forked history: the standby's tree stands at record {}, and this primary "
            "ends with record {}; nothing was changed. If what this primary has is "
            "right, stop that standby and empty its store",
            hello.applied_lsn, ours.appended.value);
    // Somebody has removed it, which is how a store is told to take our word for everything.
    if (end == Lsn{}) return Agreement{WelcomeKind::kResync, Lsn{}};
    const auto kept = kept_of(ours.epochs, hello.epoch_id, ours.appended);
    if (!kept) return forked(hello, "and that reign is not part of this primary's history");
    // Behind `kept` it has what its primary lost with the power. That may go, unless somebody was
    // told that it is safe, or it is in the tree already.
    const Lsn bound = std::max(Lsn{hello.applied_lsn}, std::min(Lsn{hello.committed}, end));
    if (end > *kept && *kept < bound)
        return forked(
            hello, fmt::format(
                       "of which this primary has nothing behind record {}, and it has applied, or "
                       "knows to be committed, all up to record {}",
                       kept->value, bound.value));
    const Lsn common = std::min(end, *kept);
    return Agreement{common + 1 >= ours.oldest ? WelcomeKind::kContinue : WelcomeKind::kResync,
                     common};
}

}  // namespace twinspool
