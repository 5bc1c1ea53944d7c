// SPDX-License-Identifier: Apache-2.0
// The beginning of a sender's session: who we are, what the standby has, where it goes on. Refused
// by either side, nothing changes on either.
#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "journal/base/fault.h"
#include "journal/log/epochs.h"
#include "journal/log/segment.h"
#include "replicator/link/sender.h"

namespace twinspool {

Error Sender::refuse(const std::string& why) {
    {
        const std::lock_guard lock{mutex_};
        refused_ = true;
    }
    (void)send_text(*transport_, MessageType::kRefuse, why);
    return make_error(EBADMSG, "refused: {}", why);
}

Status Sender::handshake() {
    const Epoch epoch = journal_.epoch();
    const auto silence =
        std::chrono::duration_cast<std::chrono::milliseconds>(options_.standby_timeout);
    TS_TRY(send_body(*transport_, MessageType::kGreeting,
                     Greeting{.volume = options_.volume,
                              .epoch_id = epoch.id,
                              .epoch_number = epoch.number,
                              .silence_ms = static_cast<std::uint32_t>(silence.count())}));
    TS_FAULT(sender_greeted);
    TS_ASSIGN(const Hello hello, hear_hello());
    TS_ASSIGN(const Welcome welcome, agree(hello));
    TS_TRY(send_body(*transport_, MessageType::kWelcome, welcome));
    TS_FAULT(sender_welcomed);
    begin_session(hello, welcome);
    if (options_.on_session) options_.on_session();
    // What it has counts: in its words, as all that it says later.
    return heard({.received = 0,
                  .durable = durable_.value,
                  .applied = applied_.value,
                  .chain = welcome.previous});
}

Result<Hello> Sender::hear_hello() {
    Message message;
    if (const auto received = receive_message(*transport_, message); !received.ok()) {
        if (received.error().code != EPROTONOSUPPORT)
            return make_error(received.error().code, "hear from the standby");
        return refuse(received.error().doing);
    }
    if (message.type == MessageType::kRefuse) {
        const std::lock_guard lock{mutex_};
        refused_ = true;
        return make_error(EREMOTEIO, "reach the standby: it says: {}", message.text());
    }
    TS_ASSIGN(const Hello hello, body_of<Hello>(message, MessageType::kHello));
    if (hello.volume != options_.volume)
        return refuse(
            fmt::format("the standby is of another volume ({:016x}), and this primary of {:016x}",
                        hello.volume, options_.volume));
    return hello;
}

Result<Welcome> Sender::agree(const Hello& hello) {
    const auto agreed = agree_on(hello, {.epochs = journal_.epochs(),
                                         .oldest = journal_.oldest(),
                                         .appended = journal_.appended()});
    if (!agreed.ok()) return refuse(agreed.error().doing);
    if (agreed->kind != WelcomeKind::kContinue) return tell_anew(agreed->kind);
    if (agreed->end == Lsn{hello.end_lsn})
        TS_TRY(compare({agreed->end, Chain{hello.end_chain}}));
    else
        spdlog::warn("standby {}: has records up to {} that were lost here; it goes back to {}",
                     options_.target, hello.end_lsn, agreed->end.value);
    return welcome(WelcomeKind::kContinue, agreed->end + 1, agreed->end + 1);
}

// What stands here at the end of what it has. Nothing is read here beyond what is durable.
Status Sender::compare(const Position& position) {
    if (position.lsn == Lsn{}) return {};
    if (position.lsn > journal_.commit().local()) TS_TRY(journal_.make_durable(position.lsn));
    TS_ASSIGN(const Cursor cursor,
              Cursor::open(options_.journal_directory, options_.volume, position.lsn + 1));
    if (cursor.position() == position.lsn + 1 && cursor.previous() == position.chain) return {};
    if (journal_.oldest() > position.lsn + 1)
        return make_error(ENODATA, "read record {}: journal_limit has let it go",
                          position.lsn.value);
    return refuse(fmt::format(
        "record {}: the standby's bytes differ from ours; nothing was changed. Stop that standby, "
        "remove the folder `journal` of its store and start it: it is compared by hash then, and "
        "brought to ours",
        position.lsn.value));
}

Result<Welcome> Sender::tell_anew(WelcomeKind kind) {
    const bool resync = kind == WelcomeKind::kResync;
    spdlog::warn("standby {}: {}", options_.target,
                 resync ? "what it lacks is not in the journal any more; it is compared by hash"
                        : "it has nothing; everything is told");
    journal_.commit().standby_durable(options_.index, Lsn{});
    const Lsn told_from = resync ? options_.resync() : options_.start_over();
    if (told_from == Lsn{}) return make_error(ESHUTDOWN, "seed the standby");
    // The standby will say that it stands there: no later reign may give these numbers again.
    TS_TRY(journal_.make_durable(told_from - 1));
    TS_ASSIGN(const Lsn start, segment_start(told_from));
    return welcome(kind, start, told_from);
}

Result<Welcome> Sender::welcome(WelcomeKind kind, Lsn start, Lsn told_from) {
    TS_ASSIGN(cursor_, Cursor::open(options_.journal_directory, options_.volume, start));
    TS_ASSIGN(const std::uint64_t segment_bytes, largest_segment(cursor_->segment()));
    const Epoch before = epoch_of(journal_.epochs(), start - 1);
    return Welcome{.volume = options_.volume,
                   .start_lsn = start.value,
                   .previous = raw(cursor_->previous()),
                   .segment = raw(cursor_->segment()),
                   .kind = static_cast<std::uint32_t>(kind),
                   .generation = journal_.generation(),
                   .segment_bytes = segment_bytes,
                   .told_from = told_from.value,
                   .epoch_id = before.id,
                   .epoch_number = before.number,
                   .reserved = 0};
}

// The segments may be of an earlier `segment_size`: those of the standby must hold as much.
Result<std::uint64_t> Sender::largest_segment(SegmentNumber from) const {
    std::uint64_t bytes = options_.segment_bytes;
    TS_ASSIGN(const auto segments, list_segments(options_.journal_directory));
    for (const SegmentName& each : segments) {
        if (each.number < from) continue;
        TS_ASSIGN(const Segment segment, open_segment(each.path, options_.volume, O_RDONLY));
        bytes = std::max(bytes, segment.header.bytes);
    }
    return bytes;
}

// First record of the segment that holds this one: a store that begins anew begins with a segment.
Result<Lsn> Sender::segment_start(Lsn lsn) const {
    TS_ASSIGN(const auto segments, list_segments(options_.journal_directory));
    for (auto each = segments.rbegin(); each != segments.rend(); ++each) {
        TS_ASSIGN(const Segment segment, open_segment(each->path, options_.volume, O_RDONLY));
        if (Lsn{segment.header.first_lsn} <= lsn) return Lsn{segment.header.first_lsn};
    }
    return make_error(ENOENT, "find record {} in the journal", lsn.value);
}

void Sender::begin_session(const Hello& hello, const Welcome& welcome) {
    const auto kind = static_cast<WelcomeKind>(welcome.kind);
    const std::lock_guard lock{mutex_};
    const Lsn start{welcome.start_lsn};
    next_ = start.value;
    announced_ = Lsn{};
    durable_ = start - 1;
    applied_ = kind == WelcomeKind::kContinue ? Lsn{hello.applied_lsn} : Lsn{};
    resyncing_ = kind == WelcomeKind::kResync || (hello.flags & kHelloResyncing) != 0;
    keep_for_it_ = true;
    outstanding_.durable(durable_);
    chains_.clear();
    chains_.sent({durable_, Chain{welcome.previous}});
    pace_.clear();
    unanswered_since_.reset();
    greeted_ = reached_ = true;
    progressed_ = false;
    said_given_up_ = false;
    trouble_.clear();
    hold_.clear();
    differs_.clear();
    fence_again_.reset();
    cannot_apply_ = false;
    hurried_ = Lsn{};
    in_sync_from_ = journal_.commit().local();
    streaming_ = true;
    sends_ = Sends::kRunner;
    queueing_ = false;  // the segments first
    move_to(LinkState::kCatchingUp);
}

}  // namespace twinspool
