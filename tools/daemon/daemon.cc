// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/daemon.h"

// The daemon: one process for one volume that is up. Serves until it is told to end: by `down` over
// the control socket, or by SIGTERM or SIGINT, on which it starts a `down` (which looks who keeps
// the directories busy; the daemon itself never looks into /proc). SIGUSR1 ends it without that,
// for an `up` that has failed.
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <chrono>
#include <cstdlib>

#include "fuse/kernel/process.h"
#include "journal/base/clock.h"
#include "tools/daemon/daemon_signals.h"
#include "tools/daemon/metrics.h"
#include "tools/daemon/reign.h"
#include "tools/daemon/schedule.h"
#include "tools/daemon/snapshots_status.h"
#include "tools/daemon/verifying.h"
#include "tools/ground/control.h"
#include "tools/ground/lock.h"
#include "tools/ground/paths.h"
#include "tools/ground/terminal.h"
#include "tools/machine/launch.h"
#include "tools/machine/log.h"
#include "tools/volume/known_volume.h"
#include "tools/volume/point.h"

namespace twinspool {
namespace {

Json refusal(const Complaint& complaint) {
    return {{"error", complaint.sentence}, {"code", static_cast<int>(complaint.code)}};
}

Json answer_mark(Reign& reign, const Json& request, const Reign::GivenUp& given_up) {
    const auto name = request.find("name");
    if (name == request.end() || !name->is_string()) return not_understood(request);
    const auto& text = name->get_ref<const std::string&>();
    if (const auto checked = check_snapshot_name(text); !checked.ok())
        return refusal(checked.error());
    const auto incomplete =
        request.value("incomplete", false) ? Incomplete::kAllowed : Incomplete::kRefused;
    if (request.value("command", std::string{}) == "may-mark") {
        const auto may = reign.may_mark(incomplete);
        return may.ok() ? Json::object() : refusal(may.error());
    }
    const auto marked = reign.mark({.name = text, .incomplete = incomplete}, given_up);
    if (!marked.ok()) return refusal(marked.error());
    return {{"lsn", marked.value().lsn.value},
            {"time_ns", raw(marked.value().time)},
            {"pause_ns", marked.value().pause.count()},
            {"incomplete", marked.value().incomplete}};
}

Json answer_unmark(Reign& reign, const Json& request, const Reign::GivenUp& given_up) {
    const auto lsn = request.find("lsn");
    if (lsn == request.end() || !lsn->is_number_unsigned()) return not_understood(request);
    const auto unmarked = reign.unmark(Lsn{lsn->get<std::uint64_t>()}, given_up);
    return unmarked.ok() ? Json::object() : refusal(unmarked.error());
}

struct Daemon {
    Reign& reign;
    Schedule& schedule;
    Verifying& verifying;

    [[nodiscard]] Json status() const {
        auto status = reign.status();
        status["snapshots"]["schedule"] = schedule.status();
        status["verify"] = verifying.status();
        return status;
    }
};

Json answer(const Daemon& daemon, const Json& request, const Asker& asker) {
    Reign& reign = daemon.reign;
    const auto command = request.value("command", std::string{});
    const auto given_up = [&] { return asker.gone(); };
    if (command == "status") return daemon.status();
    if (command == "snapshots") {
        const auto snapshots = reign.snapshots();
        return snapshots ? snapshots_answer(*snapshots) : Json::object();
    }
    if (command == "verify-begin") return daemon.verifying.begin(request);
    if (command == "verify-progress") return daemon.verifying.progress(request);
    if (command == "verify-cancel") return daemon.verifying.cancel(request);
    if (command == "flush") return {{"shortfall", reign.flush(given_up)}};
    if (command == "mark" || command == "may-mark") return answer_mark(reign, request, given_up);
    if (command == "unmark") return answer_unmark(reign, request, given_up);
    if (command == "placed") {
        reign.placed();
        return Json::object();
    }
    if (command == "leave") {
        reign.leave();
        return Json::object();
    }
    if (command == "end") {
        const auto ended = reign.end();
        if (!ended.ok()) return {{"error", ended.error().sentence}};
        DaemonSignals::end();
        return {{"code", static_cast<int>(ended.value().code)},
                {"shortfall", ended.value().shortfall}};
    }
    const auto goal = parse_goal(request.value("for", std::string{}));
    const auto timeout = request.find("timeout_ns");
    if (command != "wait" || !goal || timeout == request.end() || !timeout->is_number_integer())
        return not_understood(request);
    const auto reached = reign.wait(*goal, Nanoseconds{timeout->get<std::int64_t>()}, given_up);
    return {{"reached", reached.reached}, {"why_not", reached.why_not}};
}

// A `down` that was started and has not ended yet: one at a time.
class DownCommand {
   public:
    void start(const std::string& volume) {
        reap();
        if (pid_ != 0) return;
        const char* arguments[] = {"twinspool", "down", volume.c_str(), nullptr};
        const auto pid = start_command(arguments);
        if (pid.ok())
            pid_ = pid.value();
        else
            spdlog::error("could not {}", pid.error().text());
    }
    void reap() {
        int status = 0;
        if (pid_ == 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return;
        pid_ = 0;
        if (WIFEXITED(status) && WEXITSTATUS(status) == static_cast<int>(ExitCode::kFailed))
            spdlog::error("going down has failed; the volume stays up");
    }

   private:
    pid_t pid_ = 0;
};

void serve(const Daemon& daemon, const std::string& volume, const DaemonSignals& signals,
           StartReport& report) {
    DownCommand down;
    for (bool reported = false;;) {
        const int signal = signals.next();
        if (signal == SIGUSR1) return;
        if (signal == SIGTERM || signal == SIGINT) {
            spdlog::info("signal {}: going down", signal);
            down.start(volume);
        }
        down.reap();
        const VolumeState state = daemon.reign.watch();
        daemon.schedule.look(wall_time(), state);
        daemon.verifying.look(wall_time(), state);
        if (reported) continue;
        if (const auto standby = daemon.reign.standby_report()) {
            report.tell({{"standby", *standby}});
            report.done();
            reported = true;
        }
    }
}

Outcome<ExitCode> run(const VolumePaths& paths, const DaemonSignals& signals, StartReport& report) {
    TS_ASSIGN(const auto lock, lock_daemon(paths));
    TS_ASSIGN(const auto config, load_running_volume(paths));
    TS_ASSIGN(const auto reign, Reign::begin(paths, config, report));
    Schedule schedule(paths.name, config.snapshot, wall_time());
    Verifying verifying(*reign, paths, config.verify_every, wall_time());
    const Daemon daemon{.reign = *reign, .schedule = schedule, .verifying = verifying};
    TS_ASSIGN(const auto server,
              ControlServer::start(paths.run(), [&](const Json& request, const Asker& asker) {
                  return answer(daemon, request, asker);
              }));
    const auto metrics = begin_metrics(config.metrics, [&] { return daemon.status(); });
    if (!metrics.ok()) {
        spdlog::warn(metrics.error().sentence);
        report.warning(metrics.error().sentence);
    }
    report.tell({{"served", true}, {"transport", reign->transport_text()}});
    serve(daemon, paths.name, signals, report);
    const auto ended = reign->end();
    if (ended.ok()) return ended.value().code;
    // Still mounted somewhere: what is not applied yet is in the journal and its tail.
    spdlog::error("ending without a clean end: {}", ended.error().sentence);
    ::_exit(static_cast<int>(ExitCode::kFailed));
}

}  // namespace

Outcome<ExitCode> run_daemon(const DaemonArguments& arguments) {
    ::fcntl(arguments.ready_fd, F_SETFD, FD_CLOEXEC);
    StartReport report(Fd{arguments.ready_fd});
    const DaemonSignals signals;
    begin_log(arguments.volume, "primary");
    if (const auto prepared = prepare_process(); !prepared.ok()) {
        const auto sentence = fmt::format("could not {}", prepared.error().text());
        spdlog::warn(sentence);
        report.warning(sentence);
    }
    auto outcome = run(VolumePaths::of(arguments.volume), signals, report);
    if (!outcome.ok()) {
        spdlog::error(outcome.error().sentence);
        report.failed(outcome.error());
    }
    return outcome;
}

}  // namespace twinspool
