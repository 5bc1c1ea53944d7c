// SPDX-License-Identifier: Apache-2.0
#include "journal/log/journal.h"

#include <fcntl.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <mutex>

#include "journal/base/clock.h"
#include "journal/base/fault.h"
#include "journal/log/epochs.h"
#include "journal/log/filling.h"
#include "journal/log/recovery.h"
#include "journal/log/segment.h"
#include "journal/log/tail.h"
#include "journal/log/writer.h"

namespace twinspool {
namespace {

// Which note slots belong to a thread. Outlives the journal as long as a thread holds one.
struct NoteClaims {
    std::array<std::atomic<bool>, kNoteSlots> taken{};
};

// The calling thread's slot; given back when the thread ends.
struct ThreadNote {
    std::shared_ptr<NoteClaims> claims;
    std::uint32_t index = 0;
    ~ThreadNote() { release(); }
    void release() {
        if (claims) claims->taken[index] = false;
        claims.reset();
    }
    void claim(const std::shared_ptr<NoteClaims>& from) {
        release();
        for (index = 0; index < kNoteSlots; ++index) {
            if (from->taken[index].exchange(true)) continue;
            claims = from;
            return;
        }
        assertion_failed("more threads change the volume than there are note slots", __FILE__,
                         __LINE__);
    }
};

thread_local ThreadNote thread_note;

}  // namespace

struct Journal::Parts {
    Parts(const JournalOptions& from, Tail opened)
        : options(from),
          tail(std::move(opened)),
          folder(from.directory, from.segment_bytes),
          claims(std::make_shared<NoteClaims>()) {}

    Status recover();
    Status begin_epoch();

    JournalOptions options;
    Tail tail;
    SegmentFolder folder;
    SegmentLedger ledger;
    WriterStamp stamp;
    JournalEnd found;
    Predecessor predecessor;
    Epoch epoch;
    std::vector<Epoch> epochs;
    std::unique_ptr<Commit> commit;
    std::unique_ptr<Filling> filling;
    std::unique_ptr<Writer> writer;
    std::shared_ptr<NoteClaims> claims;
    std::atomic<std::uint64_t> next_object{1};
};

// What the kernel stamped before the last frame may carry a slightly later file time than the
// frame: no tick is longer than this.
constexpr std::int64_t kClockSlack_ns = 20'000'000;

Status Journal::Parts::recover() {
    TS_TRY(folder.start());
    TS_ASSIGN(found, find_end(options.directory, options.volume));
    if (tail.left_behind()) {
        TS_TRY(replay_tail(tail.layout(), folder, options.volume, found));
        for (std::uint32_t i = 0; i < tail.layout().header.inherited_count; ++i)
            predecessor.notes.push_back(tail.layout().inherited[i]);
    }
    TS_ASSIGN(const auto names, list_segments(options.directory));
    for (const SegmentName& name : names) {
        TS_ASSIGN(const Segment segment, open_segment(name.path, options.volume, O_RDONLY));
        ledger.add(name.number, Lsn{segment.header.first_lsn});
    }
    predecessor.end = found.end.lsn;
    predecessor.clean = found.closed.has_value();
    predecessor.unchanged_before =
        found.closed ? *found.closed : WallTime{raw(found.last_time) - kClockSlack_ns};
    // A walk that was not complete leaves its question to the next.
    if (raw(found.suspect_from) != 0)
        predecessor.unchanged_before = std::min(predecessor.unchanged_before, found.suspect_from);
    predecessor.generation = found.generation;
    predecessor.seeded = found.seeded;
    stamp.checkpoint = found.checkpoint.value;
    stamp.generation = found.generation;
    stamp.seeded = found.seeded;
    // What a new journal has not told of is told for the first time, not suspected.
    stamp.suspect_from = found.end.lsn == Lsn{} ? 0 : raw(predecessor.unchanged_before);
    return {};
}

Status Journal::Parts::begin_epoch() {
    TS_ASSIGN(epochs, read_epochs(options.directory));
    // A journal from before the file, or of which nothing but the segments was brought back.
    if (epochs.empty()) epochs = found.epochs;
    std::erase_if(epochs, [](const Epoch& each) { return each.id == 0; });
    std::uint32_t newest = found.epoch.number;
    for (const Epoch& each : epochs) newest = std::max(newest, each.number);
    epoch = Epoch{
        .number = newest + 1, .id = 0, .first_lsn = found.end.lsn + 1, .chain = found.end.chain};
    if (::getrandom(&epoch.id, sizeof epoch.id, 0) != sizeof epoch.id)
        return last_error("get a random number");
    epochs.push_back(epoch);
    // Before anything of it can be durable, here or at a standby.
    TS_TRY(write_epochs(options.directory, epochs));
    tail.reset();
    commit = std::make_unique<Commit>(options.mode, options.standby_count, found.end.lsn,
                                      found.committed, options.ack);
    filling = std::make_unique<Filling>(tail.layout(), epoch.first_lsn);
    writer = std::make_unique<Writer>(tail.layout(), *filling, *commit, folder, ledger, stamp);
    return writer->start({.end = found.end,
                          .next = found.next,
                          .epoch = epoch,
                          .volume = options.volume,
                          .linger = options.linger});
}

Journal::Journal(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Result<std::unique_ptr<Journal>> Journal::open(const JournalOptions& options) {
    TS_ASSIGN(Tail tail, Tail::open(options.tail_path, options.volume));
    auto parts = std::make_unique<Parts>(options, std::move(tail));
    TS_TRY(parts->recover());
    TS_TRY(parts->begin_epoch());
    std::unique_ptr<Journal> journal{new Journal{std::move(parts)}};
    const Epoch epoch = journal->epoch();
    TS_ASSERT(journal->try_take_credit(max_encoded_size(0)));
    TS_TRY(journal->make_durable(journal->append(EpochOp{epoch.number, epoch.id})));
    return journal;
}

Journal::~Journal() {
    if (parts_->writer) parts_->writer->stop();
}

bool Journal::try_take_credit(std::size_t bytes) { return parts_->filling->try_take_credit(bytes); }
// Who has heard of the failure gets no more credit, although the writer may just be taking it away.
bool Journal::take_credit(std::size_t bytes) {
    return failure() == 0 && parts_->filling->take_credit(bytes);
}
void Journal::give_credit(std::size_t bytes) { parts_->filling->give_credit(bytes); }
void Journal::when_credit(std::function<void()> resume) {
    parts_->filling->when_credit(std::move(resume));
}

Journal::Reservation Journal::reserve(std::size_t size) {
    Filling::Grew grew{};
    const Filling::Place place = parts_->filling->reserve(size, grew);
    parts_->writer->grew(grew);
    return {.lsn = place.lsn, .bytes = place.bytes, .slot = place.slot, .index = place.index};
}

void Journal::complete(const Reservation& place) {
    parts_->filling->complete(
        {.lsn = place.lsn, .bytes = place.bytes, .slot = place.slot, .index = place.index});
}

Note& Journal::note_for_this_thread() {
    if (thread_note.claims != parts_->claims) thread_note.claim(parts_->claims);
    return parts_->tail.layout().notes[thread_note.index];
}

ObjectId Journal::new_object_id() {
    return make_object_id(parts_->options.node, static_cast<std::uint16_t>(parts_->epoch.number),
                          parts_->next_object.fetch_add(1, std::memory_order_relaxed));
}

Commit& Journal::commit() { return *parts_->commit; }
void Journal::push() { parts_->writer->push(); }
Status Journal::make_durable(Lsn lsn) { return parts_->commit->wait_local(lsn); }
int Journal::failure() const { return parts_->commit->failure(); }

void Journal::begin_generation(std::uint32_t generation) {
    parts_->stamp.generation = generation;
    // Any record will do: its frame carries the stamp.
    if (take_credit(max_encoded_size(0))) (void)make_durable(append(VoidOp{})).ok();
}

void Journal::generation_seeded(std::uint32_t generation) {
    TS_ASSERT(take_credit(max_encoded_size(0)) || failure() != 0);
    if (failure() != 0) return;
    // Said in frame headers only when all that was told before it is durable.
    if (!make_durable(append(SeededOp{generation})).ok()) return;
    parts_->stamp.seeded = generation;
    parts_->stamp.suspect_from = 0;
}

void Journal::attach(FrameSink& sink) { parts_->writer->attach(sink); }
void Journal::detach(FrameSink& sink) { parts_->writer->detach(sink); }

const Predecessor& Journal::predecessor() const { return parts_->predecessor; }
void Journal::forget_notes() { parts_->tail.layout().header.inherited_count = 0; }
Epoch Journal::epoch() const { return parts_->epoch; }
const std::vector<Epoch>& Journal::epochs() const { return parts_->epochs; }
std::uint32_t Journal::generation() const { return parts_->stamp.generation; }
std::uint32_t Journal::seeded() const { return parts_->stamp.seeded; }
Lsn Journal::appended() const { return parts_->filling->appended(); }
Lsn Journal::oldest() const { return parts_->ledger.oldest(); }

JournalCounters Journal::counters() const {
    return {.appended = appended(),
            .durable = parts_->commit->local(),
            .committed = parts_->commit->committed(),
            .checkpoint = Lsn{parts_->stamp.checkpoint},
            .bytes = parts_->folder.bytes(),
            .frames = parts_->writer->frames()};
}

Status Journal::checkpoint(Lsn lsn) {
    TS_TRY(make_durable(lsn));
    parts_->stamp.checkpoint = lsn.value;
    return {};
}

Status Journal::recycle(Lsn keep_from) {
    const Lsn checkpoint{parts_->stamp.checkpoint};
    for (const SegmentNumber number :
         parts_->ledger.take_below(std::min(keep_from, checkpoint + 1)))
        TS_TRY(parts_->folder.retire(number));
    return {};
}

Status Journal::close(CloseOptions options) {
    if (options.clean && failure() == 0 && take_credit(max_encoded_size(0)))
        TS_TRY(make_durable(append(ClosedOp{next_file_clock_tick()})));
    parts_->writer->stop();
    if (failure() != 0) return make_error(failure(), "write the journal");
    parts_->tail.mark_clean();
    return {};
}

}  // namespace twinspool
