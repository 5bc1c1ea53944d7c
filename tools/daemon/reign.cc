// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/reign.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "journal/base/clock.h"

namespace twinspool {
namespace {

// Generations of a new volume begin where no other's are near, so that identities left by a volume
// that was removed do not count.
std::uint32_t first_generation(std::uint64_t volume) {
    return static_cast<std::uint32_t>(volume) | 0x1000U;
}

using namespace std::chrono_literals;

constexpr std::uint8_t kPrimaryNode = 1;
// How long one look at a standby may wait before the asker is thought of again.
constexpr Nanoseconds kSlice = 100ms;
constexpr auto kLookAgain = 5ms;
// A standby that applies nothing at all for so long will not.
constexpr Nanoseconds kApplyPatience = 120s;

constexpr std::pair<std::string_view, Goal> kGoals[] = {{"durable", Goal::kDurable},
                                                        {"applied", Goal::kApplied},
                                                        {"in-sync", Goal::kInSync},
                                                        {"named", Goal::kNamed}};

constexpr const char* kUringSwitch = "/sys/module/fuse/parameters/enable_uring";

using OverlayTransport = decltype(OverlayOptions::transport);

OverlayTransport transport_of(TransportChoice choice) {
    switch (choice) {
        case TransportChoice::kIoUring:
            return OverlayTransport::kIoUring;
        case TransportChoice::kDev:
            return OverlayTransport::kDev;
        case TransportChoice::kAuto:
            break;
    }
    return OverlayTransport::kAuto;
}

std::string why_not_uring(TransportChoice choice) {
    if (choice == TransportChoice::kDev) return "as configured";
    const auto value = read_file(kUringSwitch);
    if (!value.ok()) return "this kernel has no FUSE over io_uring; Linux 6.14 has";
    if (!value.value().starts_with('Y') && !value.value().starts_with('1'))
        return fmt::format("FUSE over io_uring is switched off: echo Y > {}", kUringSwitch);
    return "the kernel or libfuse did not offer io_uring";
}

std::string recovery_text(const Predecessor& predecessor) {
    if (predecessor.end == Lsn{}) return "the journal is new";
    if (predecessor.clean)
        return fmt::format("the journal ends cleanly with record {}", predecessor.end.value);
    return fmt::format(
        "the last daemon was killed: recovered up to record {}, {} operations were in "
        "flight",
        predecessor.end.value, predecessor.notes.size());
}

}  // namespace

std::optional<Goal> parse_goal(std::string_view word) {
    for (const auto& [text, goal] : kGoals)
        if (text == word) return goal;
    return std::nullopt;
}

Reign::Reign(VolumePaths paths, VolumeConfig config)
    : paths_(std::move(paths)), config_(std::move(config)) {}

// After a start that failed, or an end that did: nothing is said to be clean.
Reign::~Reign() = default;

Outcome<std::unique_ptr<Reign>> Reign::begin(const VolumePaths& paths, const VolumeConfig& config,
                                             StartReport& report) {
    std::unique_ptr<Reign> reign(new Reign(paths, config));
    TS_TRY(reign->open_journal(report));
    TS_TRY(reign->open_overlay());
    TS_TRY(reign->open_links());
    (void)::unlink(paths.last_status().c_str());
    return reign;
}

Verdict Reign::open_journal(StartReport& report) {
    for (std::size_t i = 0; i < config_.directories.size(); ++i) {
        const auto path = paths_.backing(i);
        backing_.emplace_back(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!backing_.back().valid()) return Complaint{last_error("open {}", path)};
    }
    TS_ASSIGN(journal_,
              Journal::open({.directory = paths_.journal(),
                             .tail_path = tail_path(config_.id),
                             .volume = config_.id,
                             .node = kPrimaryNode,
                             .segment_bytes = config_.segment_size,
                             .limit_bytes = config_.journal_limit,
                             .linger = config_.linger,
                             .standby_count = static_cast<std::uint32_t>(config_.standbys.size()),
                             .ack = config_.ack,
                             .mode = config_.mode}));
    last_named_ = journal_->epoch().first_lsn.value;
    const auto found = recovery_text(journal_->predecessor());
    spdlog::info("epoch {} begins; {}", journal_->epoch().number, found);
    report.note(found);
    return {};
}

Verdict Reign::open_overlay() {
    OverlayOptions options;
    options.mountpoint = paths_.mount();
    options.transport = transport_of(config_.transport);
    const auto& predecessor = journal_->predecessor();
    generation_ =
        predecessor.generation != 0 ? predecessor.generation : first_generation(config_.id);
    seeded_before_ = predecessor.seeded == generation_;
    if (seeded_before_) settle_at_ = predecessor.end;
    if (predecessor.generation != generation_) {
        note_contents(generation_, Contents::kWhole);
        journal_->begin_generation(generation_);
    }
    options.contents = noted_contents(generation_);
    options.rate_limit = config_.rate_limit;
    options.hurry = [this](Lsn lsn) { hurry_standbys(lsn); };
    options.generation = generation_;
    options.seeded = seeded_before_;
    options.standby_count = static_cast<std::uint32_t>(config_.standbys.size());
    for (std::size_t i = 0; i < backing_.size(); ++i)
        options.directories.push_back({config_.directories[i].path, backing_[i].get()});
    TS_ASSIGN(overlay_, Overlay::start(options, *journal_));
    spdlog::info("serving; transport {}", transport_text());
    return {};
}

Lsn Reign::seed_again(Contents contents, std::uint32_t standby) {
    const std::lock_guard one_at_a_time{seed_mutex_};
    if (ending_) return owe_seed();
    // By hash until it is known that nobody is owed that: the right one in doubt.
    note_contents(++generation_, Contents::kByHash);
    journal_->begin_generation(generation_);
    const Lsn from = overlay_->begin_reseed(generation_, contents, standby);
    if (!overlay_->walk().by_hash) note_contents(generation_, Contents::kWhole);
    {  // now that the overlay walks: a look before that would take the old walk's end for the new
       // one's
        const std::lock_guard lock{mutex_};
        seeded_before_ = settled_ = false;
        settle_at_.reset();
    }
    spdlog::info("{} again from record {}", overlay_->walk().by_hash ? "resyncing" : "seeding",
                 from.value);
    return from;
}

// The overlay is ending and tells nothing any more. The standby has lost what it had, so the next
// reign must seed it: it learns that from a frame of the new generation.
Lsn Reign::owe_seed() {
    // Another standby may be owed that, and it is right for one that has nothing.
    note_contents(generation_ + 1, Contents::kByHash);
    journal_->begin_generation(++generation_);
    const Lsn from = journal_->appended() + 1;
    if (const auto closed = close_journal(); !closed.ok())
        spdlog::error("could not {}", closed.error().text());
    return from;
}

std::string_view Reign::transport() const {
    return overlay_->transport() == OverlayTransport::kIoUring ? "io_uring" : "dev";
}

std::string Reign::transport_text() const {
    if (overlay_->transport() == OverlayTransport::kIoUring) return "io_uring";
    return fmt::format("dev ({})", why_not_uring(config_.transport));
}

std::optional<std::string> Reign::standby_report() const {
    std::string away;
    for (const auto& sender : senders_) {
        if (sender->wait_reached(Nanoseconds{0})) continue;
        const auto status = sender->status();
        // Nobody waits for it, so `up` does not either.
        if (!status.wait) continue;
        if (status.state != LinkState::kAlone) return std::nullopt;
        away += fmt::format(
            "{}the standby {} could not be reached within {}: {}; the volume {} goes on "
            "alone, degraded",
            away.empty() ? "" : "; ", status.target,
            config_.standby_timeout / 1ms * 1ms == config_.standby_timeout
                ? fmt::format("{} ms", config_.standby_timeout / 1ms)
                : fmt::format("{} ns", config_.standby_timeout.count()),
            status.trouble, paths_.name);
    }
    return away;
}

bool Reign::look_settled(bool walked) {
    if (settled_) return true;
    if (!settle_at_ && walked) settle_at_ = journal_->appended();
    if (!settle_at_) return false;
    std::size_t applied = 0;
    const auto counted = counting();
    for (Sender* sender : counted) {
        const auto reached = sender->wait_applied(*settle_at_, Nanoseconds{0});
        if (reached.ok() && reached.value()) ++applied;
    }
    const bool enough =
        config_.ack == AckRule::kAny ? applied > 0 || counted.empty() : applied == counted.size();
    settled_ = enough;
    return settled_;
}

VolumeFacts Reign::facts() {
    // Also said, so that what a standby has to apply includes it.
    const bool walked = !overlay_->walking() && journal_->seeded() == generation_;
    const bool settled = look_settled(walked);
    VolumeFacts facts{.failed = journal_->failure() != 0,
                      .alone = false,
                      .seeded = seeded_before_ || settled,
                      .walked = walked,
                      .in_sync = settled};
    // Before what the standbys have is looked at: what they have then is enough for it.
    const Lsn committed = journal_->commit().committed();
    std::size_t alone = 0;
    std::size_t well = 0;
    std::size_t has_all = 0;
    const auto counted = counting();
    for (Sender* sender : counted) {
        const auto status = sender->status();
        if (status.state == LinkState::kAlone) ++alone;
        // What it cannot apply it has durably, but nobody should call that well; nor a tree that is
        // a mixture, until it has applied what the walk has told it.
        if (status.state != LinkState::kInSync || status.cannot_apply) continue;
        if (status.resyncing && (!settle_at_ || status.applied < *settle_at_)) continue;
        ++well;
        if (status.durable >= committed) ++has_all;
    }
    if (config_.ack == AckRule::kAny) {
        facts.alone = !counted.empty() && alone == counted.size();
        facts.in_sync = settled && (has_all > 0 || well == counted.size());
    } else {
        facts.alone = alone > 0;
        facts.in_sync = settled && well == counted.size();
    }
    return facts;
}

VolumeState Reign::look() {
    const std::lock_guard lock{mutex_};
    if (ended_) return VolumeState::kDown;
    const VolumeState to = judge(facts());
    while (state_ != to) {
        const VolumeState from = state_;
        const VolumeState next = next_towards(from, to);
        if (next == from) break;
        transition(state_, next);
        spdlog::log(next == VolumeState::kDegraded || next == VolumeState::kFailed
                        ? spdlog::level::warn
                        : spdlog::level::info,
                    "state {} -> {}", spell(from), spell(next));
    }
    return state_;
}

VolumeState Reign::watch() { return look(); }

Reign::Reached Reign::check(Sender& sender, Goal goal, Lsn lsn) const {
    if (goal == Goal::kApplied || goal == Goal::kNamed) {
        const auto applied = sender.wait_applied(lsn, kSlice);
        if (!applied.ok()) return {false, applied.error().text()};
        if (applied.value()) return {true, ""};
    } else if (sender.status().durable >= lsn) {
        return {true, ""};
    }
    const auto status = sender.status();
    return {false, status.trouble.empty()
                       ? fmt::format("the standby {} is {} records behind", status.target,
                                     status.lag_records)
                       : fmt::format("the standby {}: {}", status.target, status.trouble)};
}

// Both sides, whether commits wait for the standby now or not: that is what the asker wants to
// know. Under kAny one of those that count is enough.
Reign::Reached Reign::check(Goal goal, Lsn lsn) {
    if (journal_->failure() != 0) return {false, "the local journal cannot be written"};
    if (journal_->commit().local() < lsn) return {false, "not durable here yet"};
    const bool any_will_do = config_.ack == AckRule::kAny;
    Reached missing{true, ""};
    for (Sender* sender : counting()) {
        const auto one = check(*sender, goal, lsn);
        if (!one.reached && missing.reached) missing = one;
        if (!one.reached && !any_will_do) return one;
        if (one.reached && any_will_do) {
            missing = one;
            break;
        }
    }
    if (!missing.reached) return missing;
    if (goal == Goal::kInSync)
        if (const auto state = look(); state != VolumeState::kInSync)
            return {false, fmt::format("its state is {}", spell(state))};
    return {true, ""};
}

Reign::Reached Reign::wait(Goal goal, Nanoseconds timeout, const GivenUp& given_up) {
    const Lsn lsn = goal == Goal::kNamed ? Lsn{last_named_} : journal_->appended();
    return wait_for(goal, lsn, timeout, given_up);
}

Reign::Reached Reign::wait_for(Goal goal, Lsn lsn, Nanoseconds timeout, const GivenUp& given_up) {
    const auto begin = std::chrono::steady_clock::now();
    journal_->push();
    for (;;) {
        auto reached = check(goal, lsn);
        if (reached.reached || given_up() || std::chrono::steady_clock::now() - begin >= timeout)
            return reached;
        std::this_thread::sleep_for(kLookAgain);
    }
}

std::string Reign::flush(const GivenUp& given_up) {
    const Lsn lsn = journal_->appended();
    journal_->push();
    const auto counted = counting();
    std::vector<Lsn> applied(counted.size());
    auto progress = std::chrono::steady_clock::now();
    for (;;) {
        const auto reached = check(Goal::kApplied, lsn);
        if (reached.reached) return "";
        if (journal_->failure() != 0 || given_up()) return reached.why_not;
        bool hopeless = true;
        for (std::size_t i = 0; i < counted.size(); ++i) {
            const auto status = counted[i]->status();
            // Nobody is waited for any more, or there is no use in waiting.
            const bool gone = status.state == LinkState::kAlone || status.cannot_apply ||
                              (!status.connected && (!status.wait || frozen()));
            if (gone && config_.ack == AckRule::kAll) return reached.why_not;
            hopeless = hopeless && gone;
            if (status.applied > applied[i]) progress = std::chrono::steady_clock::now();
            applied[i] = status.applied;
        }
        if (hopeless) return reached.why_not;
        if (std::chrono::steady_clock::now() - progress > kApplyPatience) return reached.why_not;
        std::this_thread::sleep_for(kLookAgain);
    }
}

void Reign::placed() { overlay_->in_place(); }

void Reign::leave() {
    const WallTime now = next_file_clock_tick();
    const std::lock_guard lock{mutex_};
    // A `down` that failed, and put the mounts back, has left a gap: what was changed in it is
    // found at the next start only.
    if (!left_) left_ = now;
}

Status Reign::close_journal() {
    // What has a ctime from here on may have been changed underneath. A walk that did not come to
    // its end leaves older changes to be found, so their limit stays.
    WallTime unchanged_before = next_file_clock_tick();
    {
        const std::lock_guard lock{mutex_};
        if (left_) unchanged_before = std::min(*left_, unchanged_before);
    }
    const auto& predecessor = journal_->predecessor();
    if (overlay_->walking() && predecessor.end != Lsn{})
        unchanged_before = std::min(predecessor.unchanged_before, unchanged_before);
    if (journal_->take_credit(max_encoded_size(0)))
        TS_TRY(journal_->make_durable(journal_->append(ClosedOp{unchanged_before})));
    return {};
}

Outcome<ReignEnd> Reign::end() {
    const std::lock_guard one_at_a_time{end_mutex_};
    if (ended_) return *ended_;
    ending_ = true;
    { const std::lock_guard no_more_marks{marking_mutex_}; }
    if (auto stopped = overlay_->stop(); !stopped.ok()) {
        ending_ = false;
        return stopped.error();
    }
    checkpointer_->stop();
    const Status closed = close_journal();
    ReignEnd ending{.shortfall = flush([] { return false; })};
    if (!ending.shortfall.empty()) ending.code = ExitCode::kDegraded;
    auto last = status();
    last["state"] = spell(VolumeState::kDown);
    for (auto& sender : senders_) sender->stop();
    const Status done = journal_->close({.clean = false});  // the clean end is recorded above
    const Status& worst = closed.ok() ? done : closed;
    if (!worst.ok()) {
        spdlog::error("no clean end: could not {}", worst.error().text());
        ending = {ExitCode::kFailed, worst.error().text()};
    } else {
        (void)write_file_atomically(paths_.last_status(), last.dump());
    }
    spdlog::info("the reign ends at record {}{}{}", journal_->appended().value,
                 ending.shortfall.empty() ? "" : "; ", ending.shortfall);
    const std::lock_guard lock{mutex_};
    ended_ = ending;
    return ending;
}

}  // namespace twinspool
