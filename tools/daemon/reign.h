// SPDX-License-Identifier: Apache-2.0
// Reign: one run of a volume's primary, from recovery to the clean end. Here journal, overlay and
// links meet; each knows nothing of the others.
//
// Order: journal first (it recovers), overlay next (it settles what was in flight), then links and
// checkpoints; the end goes backwards. Threads: begin() and the destructor on one; everything else
// from any, also several at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "fuse/serve/session.h"
#include "journal/base/fd.h"
#include "journal/log/journal.h"
#include "replicator/link/sender.h"
#include "tools/daemon/checkpointer.h"
#include "tools/daemon/state.h"
#include "tools/ground/control.h"
#include "tools/ground/paths.h"
#include "tools/machine/launch.h"
#include "tools/volume/config.h"

namespace twinspool {

// kNamed: the standby has applied every mark there is, so that all names of snapshots are known.
enum class Goal : std::uint8_t { kDurable, kApplied, kInSync, kNamed };
std::optional<Goal> parse_goal(std::string_view word);

// What was not done at the end: empty, or why the standby does not have everything (degraded), or
// why the local journal does not (failed).
struct ReignEnd {
    ExitCode code = ExitCode::kDone;
    std::string shortfall;
};

class Reign {
   public:
    // Until the overlay answers below the run directory.
    static Outcome<std::unique_ptr<Reign>> begin(const VolumePaths& paths,
                                                 const VolumeConfig& config, StartReport& report);
    ~Reign();
    Reign(const Reign&) = delete;
    Reign& operator=(const Reign&) = delete;

    // Which transport the overlay uses; the text has the reason if it is not io_uring.
    [[nodiscard]] std::string_view transport() const;
    [[nodiscard]] std::string transport_text() const;
    // Nothing while it is still being waited for; empty: every standby was reached; else why not.
    [[nodiscard]] std::optional<std::string> standby_report() const;
    [[nodiscard]] Json status();
    // As a standby has told them; nothing before one has.
    [[nodiscard]] std::optional<std::vector<Snapshot>> snapshots() const;
    // Looks at the state and logs it if it is another than before. Called now and then.
    VolumeState watch();

    using GivenUp = std::function<bool()>;
    struct Reached {
        bool reached = false;
        std::string why_not;
    };
    // The position is that of the call.
    Reached wait(Goal goal, Nanoseconds timeout, const GivenUp& given_up);
    // Why mark() would be refused now; for who has something to do before it.
    [[nodiscard]] Verdict may_mark(Incomplete incomplete) const;
    // A snapshot's mark (marks.cc): appended, and durable here and on every standby. A standby that
    // is not there, or that not everything has been told to, is a refusal (degraded); also if the
    // mark is in the journal and a standby does not get it within the time for that.
    Outcome<Marked> mark(const MarkWish& wish, const GivenUp& given_up);
    // Forgets a snapshot: appended, and applied on every standby.
    Verdict unmark(Lsn mark, const GivenUp& given_up);
    // Everything durable and applied; returns why not if the standby cannot, or empty.
    std::string flush(const GivenUp& given_up);
    // --- verify (comparing.cc)
    // Degraded: not now, and why; usage: no such path.
    Verdict begin_verify(const VerifyOptions& options);
    void cancel_verify(const std::string& why);
    [[nodiscard]] VerifyReport verify_report() const;
    // Which standby cannot answer, and why; empty: all can.
    [[nodiscard]] std::string silent_standby() const;
    [[nodiscard]] std::string standby_target(std::uint32_t standby) const;

    // Nobody gets past the overlay any more: looks for what was changed underneath until now.
    void placed();
    // From now on the directories may be changed underneath: the mounts are being taken away.
    void leave();
    // The clean end; a second call does nothing. A complaint if the overlay is still in use
    // somewhere: then everything goes on.
    Outcome<ReignEnd> end();

   private:
    Reign(VolumePaths paths, VolumeConfig config);
    Verdict open_journal(StartReport& report);
    Verdict open_overlay();
    Verdict open_links();
    [[nodiscard]] Outcome<std::shared_ptr<Connector>> connector_to(std::size_t index) const;
    SenderOptions link_options(std::size_t index, std::shared_ptr<Connector> connector);
    // Those by which the volume's state is judged: that commits wait for; all, if there is none
    // such.
    [[nodiscard]] std::vector<Sender*> counting() const;
    [[nodiscard]] bool frozen() const { return config_.on_standby_loss == StandbyLoss::kFreeze; }
    [[nodiscard]] Reached check(Sender& sender, Goal goal, Lsn lsn) const;
    Lsn seed_again(Contents contents, std::uint32_t standby);
    Lsn owe_seed();
    // How the seed of a generation tells contents, durable before anything is told (comparing.cc).
    void note_contents(std::uint32_t generation, Contents contents) const;
    [[nodiscard]] Contents noted_contents(std::uint32_t generation) const;
    void hear_checks(SenderOptions& options);
    void hurry_standbys(Lsn lsn) const;
    // mutex_ is held in both.
    [[nodiscard]] VolumeFacts facts();
    bool look_settled(bool walked);
    VolumeState look();
    [[nodiscard]] Reached check(Goal goal, Lsn lsn);
    [[nodiscard]] Json standby_json(const StandbyStatus& standby) const;
    [[nodiscard]] Json snapshots_json() const;
    Status close_journal();
    [[nodiscard]] Complaint not_all_told() const;
    [[nodiscard]] Verdict check_standbys(std::string_view doing) const;
    Reached wait_for(Goal goal, Lsn lsn, Nanoseconds timeout, const GivenUp& given_up);

    const VolumePaths paths_;
    const VolumeConfig config_;
    std::vector<Fd> backing_;
    std::unique_ptr<Journal> journal_;
    std::unique_ptr<Overlay> overlay_;
    std::atomic<std::uint32_t> generation_{0};  // of the seed in progress, or of the last one
    std::vector<std::unique_ptr<Sender>> senders_;
    std::unique_ptr<Checkpointer> checkpointer_;

    std::mutex seed_mutex_;     // one telling anew is begun at a time; taken before mutex_
    mutable std::mutex mutex_;  // protects what follows
    VolumeState state_ = VolumeState::kDown;
    bool seeded_before_ = false;  // that seed was complete when this reign began
    // in-sync is not said before the replica trees hold what was there when this reign began, or
    // all of a seed: up to here.
    std::optional<Lsn> settle_at_;
    bool settled_ = false;
    std::optional<WallTime> left_;
    std::optional<ReignEnd> ended_;
    std::mutex end_mutex_;  // one end() at a time; taken before mutex_
    std::atomic<bool> ending_{false};
    // Held while a mark is appended, so that none comes after the clean end; taken before all
    // others.
    std::mutex marking_mutex_;
    std::atomic<std::uint64_t> last_named_{0};  // no record behind it gives or takes a name
};

}  // namespace twinspool
