// SPDX-License-Identifier: Apache-2.0
// Receiver: the standby's end of the link, and the store behind it. It appends the frames it gets,
// unchanged, to its own segments, and acks them when they are durable; nothing else is on that
// path. The applier follows behind, up to `committed`, with a primary or without.
//
// Store: `journal/*.seg` (same names, same bytes as on the primary), `journal/begun` (begun.h),
// `tree/`, `catalogue/`, `staging/`, `volume` (whose it is), `lock` (one process at a time).
//
// What a Welcome changes is safe against death at any moment, because the store is read anew at the
// next start and is then either the old one or the new one:
//   cut back     journal/log/cut.h: a shorter journal, or a longer one of the same history
//   start over   only `begun` counts once the catalogue is at its position; the old one is emptied
//   resync       the same; the catalogue keeps what was there and says that it is a mixture now
// Nothing is changed where the Welcome does not fit what is here: that is refused.
//
// Threads: serve(), start() and finish() on one thread at a time; status(), snapshots() any; the
// applier has its own and acks from there too.
// Locks: applier_mutex_ (the pointer), then send_mutex_; the applier's own behind both.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "journal/log/recovery.h"
#include "journal/log/segment.h"
#include "replicator/link/transport.h"
#include "replicator/link/wire.h"
#include "replicator/standby/applier.h"
#include "replicator/store/retention.h"

namespace twinspool {

struct StandbyStore {
    std::string path;
    std::uint64_t volume = 0;
    std::optional<RetentionRule> keep;  // what may go first when the disk is full
    [[nodiscard]] std::string journal() const { return path + "/journal"; }
};

struct ReceiverStatus {
    bool connected = false;
    std::uint32_t epoch = 0;  // of the newest record, or of the primary while there is one
    Lsn durable, applied;
    Lsn committed;  // as far as any primary has said
    std::uint32_t seeded = 0;
    bool resyncing = false;
    std::uint64_t received_records = 0;  // by this process
    std::uint64_t received_bytes = 0;
    std::uint64_t applied_records = 0;
    std::string trouble;
};

// The first message of a link. EPERM, EPROTONOSUPPORT, EBADMSG: it is none for us; the other side
// has been told why.
Result<Greeting> receive_greeting(LinkTransport& transport, std::uint64_t volume);

class Receiver {
   public:
    // Waits a little for a predecessor that is still finishing; EBUSY if it does not.
    static Result<std::unique_ptr<Receiver>> open(const StandbyStore& store);
    ~Receiver();

    // The applier goes on to what is known to be committed. Not needed before serve().
    void start();
    // Serves one primary, whose greeting this is, until the link ends. What goes wrong is said to
    // the primary (Refuse), logged, and returned; an ended link is no error.
    Status serve(LinkTransport& transport, const Greeting& greeting);
    // Applies what is known to be committed; the applier stands still afterwards.
    void finish();

    // Without a primary: applies what is committed, or, with `tail`, all that is durable here, as a
    // promotion would. Returns the Lsn that the tree then stands at.
    struct OnceOptions {
        bool tail = false;
    };
    Result<Lsn> apply_once(OnceOptions options);
    [[nodiscard]] Lsn end() const { return end_.end.lsn; }
    [[nodiscard]] ReceiverStatus status() const;
    [[nodiscard]] std::vector<Snapshot> snapshots() const;

   private:
    Receiver(const StandbyStore& store, Fd lock);
    Status load();
    Status reload();
    Status open_applier();
    void close_applier();
    [[nodiscard]] Lsn applicable() const;
    // receiver_greet.cc
    Status greet(LinkTransport& transport, const Greeting& greeting);
    [[nodiscard]] Hello hello() const;
    Status follow(const Welcome& welcome);
    Status cut_back_to(Position end);
    Status begin_anew(const Welcome& welcome);
    Status empty_store();

    Status stream(LinkTransport& transport);
    Status take(const Message& message);
    Status take_frame(std::span<std::byte> bytes);
    void heard_committed(Lsn lsn);
    Status ack();
    // Tells the primary that applying has stopped, or goes on again.
    Status say_trouble();
    // Tells the primary which snapshots there are, if that has changed. Never on the path of the
    // frames: the applier may be slow to say it.
    Status say_snapshots();
    void say_findings(const std::vector<Finding>& findings);
    void count_applied(Lsn lsn);
    Status retire_applied();
    // An applier that has no room gets what the journal holds and nobody needs.
    Status make_room();

    StandbyStore store_;
    Fd lock_;
    JournalEnd end_;
    std::unique_ptr<SegmentFolder> folder_;
    std::unique_ptr<DirectAppender> appender_;
    bool running_ = false;  // the applier's thread
    bool begun_ = true;     // there may be a file that says so (begun.h)
    bool suspect_ =
        false;  // the store may not be what we think: it is read anew before the next link

    mutable std::mutex applier_mutex_;  // held while the pointer changes, and by status()
    std::unique_ptr<Applier> applier_;
    std::string load_error_;  // why there is no applier

    std::mutex send_mutex_;  // one sender at a time on transport_; protects said_… and chain_ too
    LinkTransport* transport_ = nullptr;
    Position durable_;
    std::string said_trouble_;
    std::optional<std::uint64_t> said_snapshots_;  // the list's version

    // For status().
    std::atomic<std::uint64_t> shown_durable_{0};
    std::atomic<std::uint64_t> committed_{0};  // what any primary has said, beyond our end perhaps
    std::atomic<std::uint32_t> epoch_{0};
    std::atomic<bool> connected_{false};
    std::atomic<std::uint64_t> received_records_{0};
    std::atomic<std::uint64_t> received_bytes_{0};
    std::atomic<std::uint64_t> applied_records_{0};
    std::atomic<std::uint64_t> counted_to_{0};
};

}  // namespace twinspool
