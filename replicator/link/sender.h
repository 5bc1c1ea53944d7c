// SPDX-License-Identifier: Apache-2.0
// Sender: the primary's end of the link to one standby. Reaches it (connector.h), agrees with it
// where to go on (handshake.cc), streams frames (those just sealed from memory, older ones from the
// segments), hears acks and moves the standby's watermark in journal/log/commit (acks.cc).
//
// Going alone is a step of its own (loss.cc): when the standby has been away for `standby_timeout`,
// `fence` must have succeeded, then the record "alone since" is made durable here, and only then
// commits stop waiting for it. A standby that comes back in between makes all of that void.
//
// Each ack says which chain the standby has where it says it is durable. One that is not the chain
// of what was sent is not counted: its bytes differ, the link ends with a Refuse, and status() says
// so from then on until the standby has been agreed with again.
//
// A frame just sealed is sent by who sealed it, if the link has room and everything before has
// gone; what it cannot send at once is the runner's. `sends_` says whose turn it is.
//
// Threads: `runner_` connects and sends, `watcher_` keeps the time, one more receives while
// connected; offer() comes from who seals. Lock: `mutex_` protects the state below it;
// the commit's lock may be held when it is taken (observers), so no call into Commit is made while
// holding it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "journal/log/commit.h"
#include "journal/log/cursor.h"
#include "journal/log/journal.h"
#include "replicator/link/agreement.h"
#include "replicator/link/connector.h"
#include "replicator/link/link.h"
#include "replicator/link/outstanding.h"
#include "replicator/link/pace.h"
#include "replicator/link/sent_chains.h"
#include "replicator/link/wire.h"

namespace twinspool {

struct SenderOptions {
    std::uint32_t index = 0;  // place in the configuration
    std::string target;       // for people
    std::shared_ptr<Connector> connector;
    std::string journal_directory;
    std::uint64_t volume = 0;
    std::uint64_t segment_bytes = 0;
    Nanoseconds standby_timeout{};
    // The standby begins with nothing: everything is told again. Returns the Lsn from which on the
    // records are enough for it; 0: not now. Called on the runner's thread, before the standby gets
    // a frame.
    std::function<Lsn()> start_over;

    bool wait = true;          // commits wait for it; if not, it is never said to be alone
    bool may_go_alone = true;  // false: they wait until it is back
    // Must succeed before commits stop waiting for it. On the watcher's thread; may take its time.
    std::function<Status()> fence;
    // The same as start_over for a standby that keeps its tree: contents are told by hash. Without
    // it such a standby starts over.
    std::function<Lsn()> resync;
    // What it says of checks, and that it has applied up to here: in the order in which it said so,
    // on the receiving thread. `on_session`: a link has begun; what was not answered before may
    // never be.
    std::function<void(const std::vector<Finding>&)> on_findings;
    std::function<void(Lsn)> on_applied;
    std::function<void()> on_session;
};

struct StandbyStatus {
    LinkState state{};
    std::string target;
    bool connected = false;
    pid_t pid = 0;
    Lsn durable;
    Lsn applied;
    std::uint64_t lag_records = 0;
    std::uint64_t lag_bytes = 0;
    double lag_seconds = 0;
    std::uint64_t sent_records = 0;
    std::uint64_t sent_bytes = 0;
    std::string
        trouble;  // why it cannot apply, or why there is no connection; empty if all is well
    bool cannot_apply = false;
    bool waited_for = false;  // commits count it, or would in mode async
    bool wait = true;         // as configured
    bool resyncing = false;   // it has said so, and was told less than all since then
    // While catching up: how long it takes at the pace of the last seconds. Nothing: it does not
    // come closer, or that is not known yet.
    std::optional<double> catch_up_seconds;
};

class Sender final : public FrameSink, public Commit::Observer {
   public:
    Sender(SenderOptions options, Journal& journal);
    ~Sender() override;

    void start();
    // Closes the link; the standby applies what is committed and ends (killed if it does not).
    void stop();

    // Whether the standby has been reached, waiting at most this long for the first time.
    [[nodiscard]] bool wait_reached(Nanoseconds timeout);
    // Whether it has applied up to lsn, asking it to hurry. EIO with its words: it cannot apply.
    Result<bool> wait_applied(Lsn lsn, Nanoseconds timeout);
    [[nodiscard]] StandbyStatus status() const;
    // As the standby last told them; nothing before it has been reached.
    [[nodiscard]] std::optional<ToldSnapshots> snapshots() const;
    // The first Lsn that the standby still needs from the journal here.
    [[nodiscard]] Lsn needs_from() const;
    // journal_limit is reached: what it has not got is not kept for it any longer. If it needs
    // that, its next session is a resync.
    void give_up_catching_up();

   private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::size_t kQueuedFrames = 4;  // pinned in the tail for us, at most

    void offer(const std::shared_ptr<const SealedFrame>& frame) override;
    void local_rose() override;
    [[nodiscard]] bool may_send_at_once(const SealedFrame& frame) const;  // mutex_ held
    void send_at_once(std::unique_lock<std::mutex>& lock, const SealedFrame& frame);

    void run();
    void watch();
    Status session();
    Status connect();
    Status handshake();
    Result<Hello> hear_hello();
    Result<Welcome> agree(const Hello& hello);
    Status compare(const Position& position);
    Result<Welcome> tell_anew(WelcomeKind kind);
    Result<Welcome> welcome(WelcomeKind kind, Lsn start, Lsn told_from);
    void begin_session(const Hello& hello, const Welcome& welcome);
    // Says it to the other side too; the error that ends the session.
    Error refuse(const std::string& why);
    [[nodiscard]] Result<Lsn> segment_start(Lsn lsn) const;
    [[nodiscard]] Result<std::uint64_t> largest_segment(SegmentNumber from) const;
    Status stream();
    Status send_something();
    [[nodiscard]] bool something_to_send() const;
    Status send_queued();
    Status send_frame(Bytes bytes);
    Status send_from_segments(Lsn until);
    Status send_small(Lsn hurry);
    void receive();
    Status take(const Message& message);
    Status heard(const Ack& ack);
    void catch_up(Lsn durable);
    void heard_trouble(std::string_view text);
    Status heard_snapshots(const Message& message);
    void disconnected(const Error& why);
    void look_for_silence(Clock::time_point now);  // mutex_ held
    void consider_going_alone(std::unique_lock<std::mutex>& lock);
    void go_alone(std::uint64_t loss);
    [[nodiscard]] bool still_lost(std::uint64_t loss) const;  // mutex_ held
    void count_it_or_not();
    [[nodiscard]] std::string trouble_now() const;  // mutex_ held
    void move_to(LinkState state);

    const SenderOptions options_;
    const Nanoseconds heartbeat_every_;
    Journal& journal_;

    std::mutex count_mutex_;  // one count_it_or_not() at a time; taken before mutex_
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    std::condition_variable work_;  // what the runner sleeps on while it streams
    LinkState state_ = LinkState::kConnecting;
    std::shared_ptr<LinkTransport> transport_;
    std::deque<std::shared_ptr<const SealedFrame>> queue_;
    bool queueing_ =
        false;  // what is sealed is queued; otherwise it will be read from the segments
    bool streaming_ = false;
    bool reached_ = false;  // once at least
    bool greeted_ = false;  // on this link
    bool refused_ = false;  // this link, by either side: no use in trying again at once
    bool stopping_ = false;
    Lsn durable_;
    Lsn applied_;
    Lsn in_sync_from_;  // catching up ends here
    Lsn hurry_;
    Lsn hurried_;
    std::optional<Clock::time_point> unanswered_since_;
    Clock::time_point lost_since_;
    bool said_given_up_ = false;  // in this session
    bool progressed_ = true;  // more has become durable there in this session, or it was in sync
    Clock::time_point last_sent_;
    Outstanding outstanding_;
    std::uint64_t sent_records_ = 0;
    std::uint64_t sent_bytes_ = 0;
    std::string trouble_;
    std::string heard_last_;  // what was said, or not said, before this link ended
    bool silent_ = false;     // this link, for too long
    std::string hold_;        // why commits go on waiting for it although it is lost
    std::string differs_;     // what its bytes are not; stays until it is agreed with again
    bool cannot_apply_ = false;
    bool resyncing_ = false;
    SentChains chains_;
    Pace pace_;
    std::uint64_t losses_ = 0;  // how often it was lost: which loss a fence or a record is about
    std::optional<Clock::time_point> fence_again_;
    Nanoseconds fence_pause_{};
    std::optional<ToldSnapshots> snapshots_;
    bool waited_for_ = true;   // commits count it (or would, in mode async)
    bool keep_for_it_ = true;  // segments it still needs are kept

    // Whose are the link's sending side, and what follows. Changed under mutex_.
    enum class Sends : std::uint8_t { kNobody, kRunner, kSealer };
    Sends sends_ = Sends::kNobody;
    bool resting_ = false;  // the runner sleeps until the next heartbeat
    std::optional<Cursor> cursor_;
    Lsn announced_;  // committed, as far as the standby has been told
    std::vector<std::byte> sending_;
    std::atomic<std::uint64_t> next_{1};  // first Lsn not sent; local_rose() looks at it

    std::thread runner_;
    std::thread watcher_;
};

}  // namespace twinspool
