// SPDX-License-Identifier: Apache-2.0
#include "tools/command/snapshot.h"

#include <ctime>

#include <algorithm>
#include <optional>

#include "replicator/store/hold.h"
#include "tools/command/commands.h"
#include "tools/command/known_snapshots.h"
#include "tools/daemon/hook.h"
#include "tools/ground/control.h"
#include "tools/ground/lock.h"
#include "tools/ground/terminal.h"
#include "tools/ground/time_text.h"
#include "tools/machine/role.h"
#include "tools/machine/starting.h"
#include "tools/machine/write_back.h"
#include "tools/volume/config.h"
#include "tools/volume/known_volume.h"

namespace twinspool {
namespace {

constexpr std::string_view kWhyUp = "only what passes through it has a position";

Complaint is_down(const VolumePaths& paths, std::string_view what) {
    return failure("the volume {} is down, and {}; run `twinspool up {}` first", paths.name, what,
                   paths.name);
}

// What the daemon answers; what it refuses is a complaint with its words and its exit code.
Outcome<Json> ask(const VolumePaths& paths, const Json& request, std::string_view why_up) {
    auto answer = ask_daemon(paths.run(), request);
    if (!answer.ok() && answer.error().code == ECONNRESET)
        return failure(
            "the daemon of {} ended meanwhile: `twinspool list {}` shows, when it is up again, "
            "whether this was done; its log is {}",
            paths.name, paths.name, paths.log());
    if (!answer.ok() && is_nobody(answer.error())) return is_down(paths, why_up);
    if (!answer.ok()) return answer.error();
    if (answer.value().contains("error"))
        return Complaint{static_cast<ExitCode>(answer.value().value("code", 1)),
                         answer.value().value("error", std::string{})};
    return std::move(answer).value();
}

Verdict check_name_is_free(const VolumePaths& paths, const std::string& name) {
    const auto known = KnownSnapshots::as_it_stands(paths.name);
    if (!known.ok()) return known.error();
    for (const Snapshot& each : known.value().snapshots())
        if (each.name == name)
            return bad_input("there is a snapshot {}@{} already, of {}", paths.name, name,
                             spell_time(each.time));
    return {};
}

std::vector<std::string> directories_of(const VolumeConfig& config) {
    std::vector<std::string> directories;
    for (const auto& directory : config.directories) directories.push_back(directory.path);
    return directories;
}

Outcome<Taken> mark(const VolumePaths& paths, const std::string& name, const Json& request) {
    TS_ASSIGN(const auto answer, ask(paths, request, kWhyUp));
    return Taken{.name = name,
                 .lsn = Lsn{answer.value("lsn", std::uint64_t{0})},
                 .time = WallTime{answer.value("time_ns", std::int64_t{0})},
                 .pause = Nanoseconds{answer.value("pause_ns", std::int64_t{0})},
                 .incomplete = answer.value("incomplete", false)};
}

// The commands of [snapshot], around the mark.
class Surroundings {
   public:
    Surroundings(const SnapshotConfig& config, const VolumePaths& paths, const std::string& name)
        : config_(config), paths_(paths), name_(name) {}

    // A complaint: the snapshot must not be taken.
    Verdict before() {
        if (config_.before.empty()) return {};
        const auto done = run("before", config_.before, OnSignal::kKill);
        if (HeldSignals::have_come()) return failure("interrupted; no snapshot was taken");
        if (done.ok()) return {};
        if (config_.on_before_failure == FailedHook::kStop)
            return failure("{}; no snapshot was taken", done.error().sentence);
        print_warning(fmt::format("{}; the snapshot is taken all the same, as configured",
                                  done.error().sentence));
        return {};
    }
    // Whatever became of the snapshot.
    Verdict after() {
        return config_.after.empty() ? Verdict{}
                                     : run("after", config_.after, OnSignal::kLetFinish);
    }

   private:
    Verdict run(const char* which, const std::string& command, OnSignal on_signal) {
        return run_hook(
            {.name = which,
             .command = command,
             .environment = {{"TWINSPOOL_VOLUME", paths_.name}, {"TWINSPOOL_SNAPSHOT", name_}},
             .timeout = config_.hook_timeout},
            signals_, on_signal);
    }
    const SnapshotConfig& config_;
    const VolumePaths& paths_;
    const std::string& name_;
    HeldSignals signals_;
};

// What `before` has made programs store is to be in it, too.
Outcome<Taken> mark_between(Surroundings& around, const VolumePaths& paths,
                            const VolumeConfig& config, const std::string& name,
                            const Json& request) {
    TS_TRY(around.before());
    if (!config.snapshot.before.empty()) TS_TRY(write_back_stores(directories_of(config)));
    return mark(paths, name, request);
}

// In every store on this machine.
Outcome<std::vector<Fd>> hold_against_readers(const VolumePaths& paths, const VolumeConfig& config,
                                              const Snapshot& snapshot) {
    std::vector<Fd> holds;
    for (const auto& store : stores_here(paths, config)) {
        TS_ASSIGN(auto hold, hold_snapshot(store, snapshot.number, HoldKind::kDestroy));
        if (!hold)
            return failure(
                "the snapshot {}@{} is in use: it is mounted (`twinspool umount`), or being "
                "restored or compared",
                paths.name, snapshot.name);
        holds.push_back(std::move(*hold));
    }
    return holds;
}

}  // namespace

Outcome<Taken> take_snapshot(const VolumePaths& paths, const std::string& name,
                             const SnapshotOptions& options) {
    TS_TRY(check_snapshot_name(name));
    TS_TRY(check_not_standby(paths, "a snapshot"));
    TS_ASSIGN(const auto daemon, serving_daemon(paths));
    if (!daemon) return is_down(paths, kWhyUp);
    TS_ASSIGN(const auto config, load_running_volume(paths));
    using Hooks = SnapshotOptions::Hooks;
    const bool with_hooks = options.hooks == Hooks::kRun &&
                            !(config.snapshot.before.empty() && config.snapshot.after.empty());
    // Before the threads of the past begin, which would get the signals otherwise.
    std::optional<Surroundings> around;
    if (with_hooks) around.emplace(config.snapshot, paths, name);
    Json request{{"command", "may-mark"},
                 {"name", name},
                 {"incomplete", options.when_incomplete == SnapshotOptions::WhenIncomplete::kTake}};
    // What would be refused at the end is refused before anything is waited for or run.
    TS_ASSIGN(const auto may, ask(paths, request, kWhyUp));
    TS_TRY(settle(paths));
    TS_TRY(check_name_is_free(paths, name));
    TS_TRY(write_back_stores(directories_of(config)));

    request["command"] = "mark";
    if (!around) return mark(paths, name, request);
    auto taken = mark_between(*around, paths, config, name, request);
    const auto after = around->after();
    if (!after.ok()) print_warning(after.error().sentence);
    if (taken.ok() && !after.ok()) taken->code = ExitCode::kFailed;
    return taken;
}

Verdict check_unused(const VolumePaths& paths, const VolumeConfig& config,
                     const Snapshot& snapshot) {
    TS_TRY(check_not_standby(paths, "destroying a snapshot"));
    TS_TRY(hold_against_readers(paths, config, snapshot));
    return {};
}

Verdict destroy_snapshot(const VolumePaths& paths, const VolumeConfig& config,
                         const Snapshot& snapshot) {
    TS_TRY(check_not_standby(paths, "destroying a snapshot"));
    // Held until it is gone, so that nobody begins to read it meanwhile.
    TS_ASSIGN(const auto holds, hold_against_readers(paths, config, snapshot));
    TS_ASSIGN(const auto done, ask(paths, {{"command", "unmark"}, {"lsn", snapshot.number.value}},
                                   "its standby changes only while it is up"));
    return {};
}

Outcome<ExitCode> run_snapshot(const SnapshotArguments& arguments) {
    TS_TRY(require_root());
    // As for one that is there, but that no name of one may be given.
    const auto at = arguments.point.find('@');
    if (at != std::string::npos) {
        TS_TRY(check_name(arguments.point.substr(0, at)));
        TS_TRY(check_snapshot_name(std::string_view{arguments.point}.substr(at + 1)));
    }
    TS_ASSIGN(const auto point, parse_point(arguments.point, PathPart::kNone));
    if (point.snapshot.starts_with(kTemporaryPrefix))
        return bad_input(
            "\"{}\" cannot be the name of a snapshot: names that begin with {} are kept "
            "for `twinspool diff`, which removes them",
            point.snapshot, kTemporaryPrefix);
    const auto paths = VolumePaths::of(point.volume);
    TS_TRY(load_running_volume(paths));
    TS_ASSIGN(const auto lock, lock_volume(paths));
    SnapshotOptions options;
    if (arguments.incomplete) options.when_incomplete = SnapshotOptions::WhenIncomplete::kTake;
    TS_ASSIGN(const auto taken, take_snapshot(paths, point.snapshot, options));
    // Begun microseconds count: a pause is never said to be shorter than it was.
    const auto pause_us = (taken.pause.count() + 999) / 1000;
    if (taken.incomplete)
        print_warning(fmt::format(
            "the snapshot {}@{} is incomplete: the standby does not have everything yet",
            paths.name, taken.name));
    if (arguments.json) {
        Json json{{"name", taken.name},
                  {"lsn", taken.lsn.value},
                  {"time", spell_time(taken.time)},
                  {"pause_us", pause_us}};
        if (taken.incomplete) json["incomplete"] = true;
        print(json.dump(2) + "\n");
    } else {
        print(fmt::format("{}@{}: lsn {}, {}, pause {} us\n", paths.name, taken.name,
                          taken.lsn.value, spell_time(taken.time), pause_us));
    }
    return taken.code;
}

}  // namespace twinspool
