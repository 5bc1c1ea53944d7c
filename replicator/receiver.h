// SPDX-License-Identifier: Apache-2.0
// Receiver: the standby's end of the link, and all that a standby process is. It appends the frames
// it gets, unchanged, to its own segments, and acks them when they are durable; nothing else is on
// that path. The applier follows behind, up to `committed`.
//
// Store: `journal/*.seg` (same names, same bytes as on the primary), `tree/`, `catalogue/`,
// `staging/`, `volume` (whose it is), `lock` (one process at a time).
// Threads: serve() runs on the caller's; the applier has its own and acks from there too.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "journal/recovery.h"
#include "journal/segment.h"
#include "replicator/applier.h"
#include "replicator/retention.h"
#include "replicator/transport.h"
#include "replicator/wire.h"

namespace twinspool {

struct StandbyStore {
    std::string path;
    std::uint64_t volume = 0;
    std::optional<RetentionRule> keep;  // what may go first when the disk is full
    [[nodiscard]] std::string journal() const { return path + "/journal"; }
};

class Receiver {
   public:
    // Waits a little for a predecessor that is still finishing; EBUSY if it does not.
    static Result<std::unique_ptr<Receiver>> open(const StandbyStore& store);
    ~Receiver();

    // Serves one primary until the link ends; then applies what is known to be committed.
    Status serve(LinkTransport& transport);

    // Without a primary: applies what is committed, or, with `tail`, all that is durable here, as a
    // promotion would. Returns the Lsn that the tree then stands at.
    struct OnceOptions {
        bool tail = false;
    };
    Result<Lsn> apply_once(OnceOptions options);
    [[nodiscard]] Lsn end() const { return end_.end.lsn; }

   private:
    Receiver(const StandbyStore& store, Fd lock);
    Status load();
    Status open_applier();
    [[nodiscard]] Lsn applicable() const;
    Status greet(LinkTransport& transport);
    Status start_over(const Welcome& welcome);
    Status take(const Message& message);
    Status take_frame(Bytes bytes);
    Status ack();
    // Tells the primary that applying has stopped, or goes on again.
    Status say_trouble();
    // Tells the primary which snapshots there are, if that has changed. Never on the path of the
    // frames: the applier may be slow to say it.
    Status say_snapshots();
    Status retire_applied();

    StandbyStore store_;
    Fd lock_;
    JournalEnd end_;
    std::unique_ptr<SegmentFolder> folder_;
    std::unique_ptr<DirectAppender> appender_;
    std::unique_ptr<Applier> applier_;
    std::mutex send_mutex_;  // one sender at a time on transport_; protects said_… too
    LinkTransport* transport_ = nullptr;
    std::atomic<std::uint64_t> durable_{0};
    std::string said_trouble_;
    std::optional<std::uint64_t> said_snapshots_;  // the list's version
};

}  // namespace twinspool
