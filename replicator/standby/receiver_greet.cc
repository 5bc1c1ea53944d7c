// SPDX-License-Identifier: Apache-2.0
// The beginning of a link, as the standby sees it: what it says it has, and what becomes of that.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>

#include "journal/base/fault.h"
#include "journal/log/cut.h"
#include "replicator/standby/receiver.h"
#include "replicator/store/begun.h"

namespace twinspool {

Status Receiver::greet(LinkTransport& transport, const Greeting& greeting) {
    if (suspect_ || !applier_) TS_TRY(reload());
    TS_TRY(send_body(transport, MessageType::kHello, hello()));
    TS_FAULT(receiver_helloed);
    Message message;
    TS_TRY(receive_message(transport, message));
    if (message.type == MessageType::kRefuse)
        return make_error(EREMOTEIO, "serve the primary: it says: {}", message.text());
    TS_ASSIGN(const Welcome welcome, body_of<Welcome>(message, MessageType::kWelcome));
    if (welcome.volume != store_.volume || welcome.start_lsn == 0 ||
        !is_segment_size(welcome.segment_bytes))
        return make_error(EBADMSG, "serve the primary: its welcome makes no sense");
    if (const auto followed = follow(welcome); !followed.ok()) {
        suspect_ = true;
        return followed;
    }
    appender_.reset();
    folder_ = std::make_unique<SegmentFolder>(store_.journal(), welcome.segment_bytes);
    TS_TRY(folder_->start());
    appender_ = std::make_unique<DirectAppender>(*folder_, store_.volume, end_);
    epoch_ = greeting.epoch_number;
    // What was heard of records that are not here was another session's; this one says it again.
    committed_ = std::min(committed_.load(), end_.end.lsn.value);
    const std::lock_guard lock{send_mutex_};
    transport_ = &transport;
    said_trouble_.clear();
    said_snapshots_.reset();
    return {};
}

Hello Receiver::hello() const {
    const StoreState state = applier_->state();
    return {.volume = store_.volume,
            .end_lsn = end_.end.lsn.value,
            .end_chain = raw(end_.end.chain),
            .epoch_id = end_.epoch.id,
            .epoch_number = end_.epoch.number,
            .flags = state.resyncing ? kHelloResyncing : 0,
            .applied_lsn = applier_->applied().value,
            .committed = committed_,
            .seeded = applier_->seeded_generation(),
            .told = state.told};
}

Status Receiver::follow(const Welcome& welcome) {
    if (static_cast<WelcomeKind>(welcome.kind) != WelcomeKind::kContinue)
        return begin_anew(welcome);
    const Position before{Lsn{welcome.start_lsn} - 1, Chain{welcome.previous}};
    if (before.lsn > end_.end.lsn)
        return make_error(EBADMSG, "serve the primary: it goes on at record {}, and here is {}",
                          welcome.start_lsn, end_.end.lsn.value);
    if (before.lsn < end_.end.lsn) return cut_back_to(before);
    if (before.chain != end_.end.chain)
        return make_error(EBADMSG, "record {}: the bytes here differ from the primary's",
                          before.lsn.value);
    return {};
}

// What was applied, or may be, stays: the tree cannot be taken back.
Status Receiver::cut_back_to(Position end) {
    finish();
    const Lsn bound = std::max({applicable(), applier_->begun(), applier_->applied()});
    if (end.lsn < bound)
        return make_error(
            EBADMSG,
            "forked history: the primary goes on behind record {}, and here all up to "
            "record {} is committed; nothing was changed",
            end.lsn.value, bound.value);
    spdlog::warn("standby {}: records {} to {} were lost by the primary, and go", store_.path,
                 end.lsn.value + 1, end_.end.lsn.value);
    appender_.reset();
    folder_.reset();
    TS_TRY(cut_back(store_.journal(), store_.volume, end));
    // Nobody keeps anything of what was there, the applier's cursor least of all.
    TS_TRY(reload());
    if (end_.end != end)
        return make_error(EBADMSG, "cut the journal of {} back to record {}: it ends with {}",
                          store_.path, end.lsn.value, end_.end.lsn.value);
    return {};
}

Status Receiver::begin_anew(const Welcome& welcome) {
    const bool resync = static_cast<WelcomeKind>(welcome.kind) == WelcomeKind::kResync;
    if (welcome.told_from < welcome.start_lsn || welcome.segment == 0)
        return make_error(EBADMSG, "serve the primary: its welcome makes no sense");
    // Before anything is changed: what has been applied cannot be told again.
    if (resync && Lsn{welcome.told_from} <= applier_->applied())
        return make_error(
            EBADMSG,
            "forked history: the primary tells from record {}, and the tree here stands "
            "at record {}; nothing was changed",
            welcome.told_from, applier_->applied().value);
    spdlog::info("standby {}: {} from record {}", store_.path,
                 resync ? "compared by hash" : "starting over", welcome.told_from);
    finish();
    appender_.reset();
    folder_.reset();
    // The snapshot of what was there is of all that counted. What cannot be applied is one of the
    // things that a resync mends.
    if (resync)
        if (const auto applied = apply_once({}); !applied.ok())
            spdlog::warn("standby {}: before it is compared by hash: could not {}", store_.path,
                         applied.error().text());
    const Epoch epoch{.number = welcome.epoch_number, .id = welcome.epoch_id, .first_lsn = {}};
    const Begun begun{.before = {Lsn{welcome.start_lsn} - 1, Chain{welcome.previous}},
                      .segment = SegmentNumber{welcome.segment},
                      .told_from = Lsn{welcome.told_from},
                      .epoch = epoch};
    TS_TRY(write_begun(store_.journal(), begun));
    // What stands before `told_from` in the first segment is of an older telling.
    const bool whole = welcome.told_from == welcome.start_lsn;
    const ResyncStart start{
        .position = {Lsn{welcome.told_from} - 1, whole ? begun.before.chain : Chain{}},
        .generation = welcome.generation,
        .epoch_number = welcome.epoch_number,
        .epoch_id = welcome.epoch_id};
    if (resync) {
        TS_TRY(applier_->begin_resync(start));
        TS_FAULT(receiver_resynced);
    } else {
        TS_TRY(empty_store());
        TS_TRY(applier_->begin_seed(start));
        TS_FAULT(receiver_started_over);
    }
    return reload();
}

// The segments first: a store without segments whose catalogue has applied nothing is empty, so
// dying anywhere in here leaves nothing that could be taken for a good copy.
Status Receiver::empty_store() {
    if (const auto snapshots = applier_->snapshots(); !snapshots.empty())
        spdlog::error("standby {}: its {} snapshots are lost, from {} to {}", store_.path,
                      snapshots.size(), snapshots.front().name, snapshots.back().name);
    TS_TRY(applier_->abandon_snapshots());
    close_applier();
    committed_ = 0;
    TS_ASSIGN(const auto segments, list_segments(store_.journal()));
    for (const SegmentName& segment : segments)
        if (::unlink(segment.path.c_str()) != 0) return last_error("remove {}", segment.path);
    TS_TRY(reset_store(store_.path));
    return open_applier();
}

}  // namespace twinspool
