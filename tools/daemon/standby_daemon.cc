// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/standby_daemon.h"

// The daemon of a standby on this host: one process that listens for the volume's primary. It ends
// in order when `down` or SIGTERM or SIGINT asks it to: the link is closed, and what is known to be
// committed is applied.
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "replicator/standby/standby.h"
#include "tools/daemon/daemon_signals.h"
#include "tools/daemon/metrics.h"
#include "tools/daemon/snapshots_status.h"
#include "tools/daemon/standby_status.h"
#include "tools/ground/control.h"
#include "tools/ground/lock.h"
#include "tools/ground/terminal.h"
#include "tools/machine/admission.h"
#include "tools/machine/launch.h"
#include "tools/machine/log.h"
#include "tools/machine/role.h"
#include "tools/volume/secret.h"
#include "tools/volume/target.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

constexpr auto kLookAgain = 5ms;

void raise_descriptor_limit() {
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
}

Outcome<StandbyStore> claim_store(const VolumePaths& paths, const VolumeConfig& config) {
    const auto& path = config.standbys.front().path;
    TS_TRY(claim_standby(path, paths.name, config.id));
    return StandbyStore{.path = path, .volume = config.id, .keep = config.snapshot.keep};
}

class StandbyDaemon {
   public:
    StandbyDaemon(const VolumePaths& paths, VolumeConfig config)
        : paths_(paths), config_(std::move(config)) {}

    // Where it listens.
    Outcome<std::string> begin(const std::string& listen) {
        TS_ASSIGN(auto address, parse_listen(listen, config_.standbys.front().port));
        TS_ASSIGN(const auto secret, load_secret(paths_, config_.id));
        TS_ASSIGN(auto store, claim_store(paths_, config_));
        TS_ASSIGN(host_, StandbyHost::start(
                             {.store = std::move(store), .listen = address, .secret = secret}));
        address.port = host_->port();
        return spell_listen(address);
    }

    Json status() const {
        return standby_status_json(paths_, config_, host_->status(), host_->snapshots());
    }

    Json answer(const Json& request, const Asker& asker) {
        const auto command = request.value("command", std::string{});
        if (command == "status") return status();
        if (command == "snapshots") return snapshots_answer(host_->snapshots());
        if (command == "end") {
            DaemonSignals::end();
            return Json::object();
        }
        const auto timeout = request.find("timeout_ns");
        if (command != "wait" || timeout == request.end() || !timeout->is_number_integer())
            return not_understood(request);
        return wait(request.value("for", std::string{}), Nanoseconds{timeout->get<std::int64_t>()},
                    asker);
    }

    // Says in the log what has changed. A complaint: it cannot go on.
    Verdict watch() {
        if (const auto ended = host_->ended()) return *ended;
        auto now = host_->status();
        if (now.state != seen_.state)
            spdlog::info("state {} -> {}", spell(seen_.state), spell(now.state));
        if (now.trouble != seen_.trouble)
            spdlog::log(now.trouble.empty() ? spdlog::level::info : spdlog::level::err, "{}",
                        now.trouble.empty() ? "applying goes on" : now.trouble);
        seen_ = std::move(now);
        return {};
    }

    void end() {
        host_->stop();
        (void)write_file_atomically(paths_.last_status(), status().dump());
    }

   private:
    // The position is that of the call: what this host knows of then.
    Json wait(const std::string& goal, Nanoseconds timeout, const Asker& asker) {
        const auto begin = std::chrono::steady_clock::now();
        const auto first = host_->status();
        for (;;) {
            const auto now = host_->status();
            const bool reached = goal == "durable"   ? now.durable >= first.received
                                 : goal == "in-sync" ? now.state == StandbyState::kInSync
                                                     : now.applied >= first.committed;
            if (reached || asker.gone() || std::chrono::steady_clock::now() - begin >= timeout)
                return {{"reached", reached},
                        {"why_not", now.trouble.empty()
                                        ? fmt::format("the state is {}", spell(now.state))
                                        : now.trouble}};
            std::this_thread::sleep_for(kLookAgain);
        }
    }

    const VolumePaths& paths_;
    const VolumeConfig config_;
    std::unique_ptr<StandbyHost> host_;
    StandbyHostStatus seen_;  // by watch()
};

Verdict run(const VolumePaths& paths, const std::string& listen, const DaemonSignals& signals,
            StartReport& report) {
    TS_ASSIGN(const auto lock, lock_daemon(paths));
    auto config = standby_here(paths);
    if (!config) return failure("{} cannot be read", paths.last_standby());
    const auto metrics_at = config->metrics;
    StandbyDaemon daemon(paths, std::move(*config));
    TS_ASSIGN(const auto where, daemon.begin(listen));
    spdlog::info("listening at {}", where);
    TS_ASSIGN(const auto server,
              ControlServer::start(paths.run(), [&](const Json& request, const Asker& asker) {
                  return daemon.answer(request, asker);
              }));
    const auto metrics = begin_metrics(metrics_at, [&] { return daemon.status(); });
    if (!metrics.ok()) {
        spdlog::warn(metrics.error().sentence);
        report.warning(metrics.error().sentence);
    }
    (void)::unlink(paths.last_status().c_str());
    report.tell({{"served", true}, {"listen", where}});
    report.done();
    for (int signal = -1; signal < 0; signal = signals.next()) TS_TRY(daemon.watch());
    daemon.end();
    spdlog::info("the standby ends");
    return {};
}

}  // namespace

Outcome<ExitCode> run_standby_daemon(const StandbyDaemonArguments& arguments) {
    ::fcntl(arguments.ready_fd, F_SETFD, FD_CLOEXEC);
    StartReport report(Fd{arguments.ready_fd});
    const DaemonSignals signals;
    // What is made here is nobody else's.
    ::umask(0077);
    raise_descriptor_limit();
    begin_log(arguments.volume, "standby");
    const auto ended = run(VolumePaths::of(arguments.volume), arguments.listen, signals, report);
    if (ended.ok()) return ExitCode::kDone;
    spdlog::error(ended.error().sentence);
    report.failed(ended.error());
    return ended.error();
}

}  // namespace twinspool
