// SPDX-License-Identifier: Apache-2.0
// standby: makes this host a standby, by starting its daemon; or works on a store by hand (--once).
// Also the entrance of the process that the primary's daemon starts for a standby of its machine.
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <optional>

#include "replicator/link/local.h"
#include "replicator/link/wire.h"
#include "replicator/standby/standby.h"
#include "tools/command/commands.h"
#include "tools/ground/control.h"
#include "tools/ground/foreground.h"
#include "tools/ground/lock.h"
#include "tools/ground/paths.h"
#include "tools/ground/terminal.h"
#include "tools/machine/admission.h"
#include "tools/machine/launch.h"
#include "tools/machine/log.h"
#include "tools/machine/role.h"
#include "tools/machine/starting.h"
#include "tools/volume/config.h"
#include "tools/volume/known_volume.h"
#include "tools/volume/secret.h"
#include "tools/volume/target.h"

namespace twinspool {
namespace {

// The primary hears why there will be no standby, in the place of its greeting.
Complaint refuse(const Complaint& complaint) {
    spdlog::error(complaint.sentence);
    const auto transport = socket_transport(Fd{kStandbySocket});
    (void)send_text(*transport, MessageType::kRefuse, complaint.sentence);
    return complaint;
}

// The daemon has no umask, because it makes files for others; what is made here is nobody else's.
void make_private() { ::umask(0077); }

Outcome<StandbyStore> claim(const VolumePaths& paths, std::size_t index) {
    TS_ASSIGN(const auto config, load_running_volume(paths));
    if (index >= config.standbys.size() || !config.standbys[index].is_local())
        return failure("the volume {} has no standby {} on this machine", paths.name, index);
    const auto& path = config.standbys[index].path;
    TS_TRY(claim_standby(path, paths.name, config.id));
    return StandbyStore{.path = path, .volume = config.id, .keep = config.snapshot.keep};
}

// --once.
Outcome<ExitCode> apply_once(const VolumePaths& paths, const StandbyArguments& arguments) {
    TS_TRY(load_volume(paths));
    TS_ASSIGN(const auto lock, lock_volume(paths));
    if (living_daemon(paths))
        return failure(
            "the volume {} is up, and its standby applies by itself: run `twinspool down "
            "{}` first",
            paths.name, paths.name);
    // The file, not the last `up`: it says where the disk is now, perhaps on a machine where
    // nothing else of the volume is left; and a directory that is not this volume's is refused.
    TS_ASSIGN(const auto config, load_volume(paths));
    TS_ASSIGN(const auto path, store_of_past(paths, config));
    TS_ASSIGN(const auto owner, owner_of_standby(path, config.id));
    if (owner != StandbyOwner::kThisVolume)
        return bad_input(
            "{} is not the standby of the volume {}: its file `volume` does not say so", path,
            paths.name);
    make_private();
    TS_ASSIGN(const auto receiver,
              Receiver::open({.path = path, .volume = config.id, .keep = config.snapshot.keep}));
    TS_ASSIGN(const auto applied, receiver->apply_once({.tail = arguments.tail}));
    print(fmt::format("{}: {}/tree stands at record {} of {}\n", paths.name, path, applied.value,
                      receiver->end().value));
    return ExitCode::kDone;
}

// What the daemon is to do.
struct Plan {
    VolumeConfig config;  // with the one standby that is here
    std::string listen;
};

// Changes nothing.
Outcome<Plan> plan(const VolumePaths& paths, const StandbyArguments& arguments) {
    TS_ASSIGN(auto config, load_volume(paths));
    TS_TRY(check_may_be_standby(paths, config));
    TS_ASSIGN(auto standby, choose_standby(paths, config, arguments.host));
    TS_TRY(load_secret(paths, config.id));
    HostAddress listen{"", standby.port};
    if (!arguments.listen.empty()) {
        TS_ASSIGN(listen, parse_listen(arguments.listen, standby.port));
    }
    TS_TRY(admit_store(paths, standby.path, config.id));
    config.standbys = {std::move(standby)};
    return Plan{std::move(config), spell_listen(listen)};
}

// The directory is made when this machine becomes the standby. Later it has to be there: if it is
// not, its disk may not be mounted, and what was made in its place would be filled from nothing.
Verdict make_store(const VolumePaths& paths, const VolumeConfig& config) {
    const auto& path = config.standbys.front().path;
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0) return {};
    const auto before = standby_here(paths);
    if (before && before->id == config.id && before->standbys.front().path == path)
        return failure(
            "the standby directory {} is not there any more: is its disk mounted? If all of it is "
            "to be copied again from the primary, make an empty directory there",
            path);
    return make_private_directory(path);
}

// A daemon that did not come to listen leaves the machine as it was.
class Launch {
   public:
    explicit Launch(const VolumePaths& paths)
        : paths_(paths), before_(read_file(paths.last_standby())) {}
    ~Launch() {
        if (pid_ == 0 || listens_) return;
        ::kill(pid_, SIGTERM);
        (void)::waitpid(pid_, nullptr, 0);
        if (before_.ok())
            (void)write_file_atomically(paths_.last_standby(), before_.value());
        else
            (void)::unlink(paths_.last_standby().c_str());
    }
    Launch(const Launch&) = delete;
    Launch& operator=(const Launch&) = delete;

    // Until it listens: where.
    Outcome<std::string> run(const Plan& plan, LogPlace log) {
        TS_TRY(make_store(paths_, plan.config));
        TS_TRY(make_private_directory(paths_.state()));
        TS_TRY(
            write_file_atomically(paths_.last_standby(), render_config(paths_.name, plan.config)));
        TS_ASSIGN(auto launched, launch_standby(paths_, log, plan.listen));
        pid_ = launched.pid;
        DaemonReports reports(paths_, *signals_, std::move(launched.reports));
        for (;;) {
            TS_ASSIGN(const auto line, reports.next());
            if (line.contains("warning")) print_warning(line.value("warning", std::string{}));
            if (!line.contains("served")) continue;
            listens_ = true;
            return line.value("listen", std::string{});
        }
    }
    Outcome<ExitCode> stay() {
        signals_->leave_to(passing_on_to(pid_));
        signals_.reset();
        return stay_with(pid_);
    }

   private:
    const VolumePaths& paths_;
    const Result<std::string> before_;
    std::optional<HeldSignals> signals_{std::in_place};
    pid_t pid_ = 0;
    bool listens_ = false;
};

Outcome<ExitCode> serve_here(const VolumePaths& paths, const StandbyArguments& arguments) {
    // What is refused makes nothing, not even the lock; what holds is read under the lock.
    if (!living_daemon(paths)) TS_TRY(plan(paths, arguments));
    TS_ASSIGN(auto lock, lock_volume(paths));
    TS_ASSIGN(const auto daemon, serving_daemon(paths));
    if (daemon && standby_here(paths)) {
        const auto status = ask_daemon(paths.run(), {{"command", "status"}});
        print(fmt::format(
            "{}: is up already ({})\n", paths.name,
            status.ok() ? status.value().value("state", std::string{"?"}) : status.error().text()));
        return ExitCode::kDone;
    }
    TS_ASSIGN(const auto what, plan(paths, arguments));
    Launch launch(paths);
    TS_ASSIGN(const auto listen,
              launch.run(what, arguments.foreground ? LogPlace::kStandardError : log_place()));
    print(fmt::format("{}: standby in {}; listens at {}\n", paths.name,
                      what.config.standbys.front().path, listen));
    lock.reset();
    return arguments.foreground ? launch.stay() : Outcome<ExitCode>{ExitCode::kDone};
}

}  // namespace

Outcome<ExitCode> run_standby_process(const StandbyProcessArguments& arguments) {
    ::signal(SIGPIPE, SIG_IGN);
    // The primary decides when this process ends: by closing the link.
    ::signal(SIGINT, SIG_IGN);
    ::signal(SIGTERM, SIG_IGN);
    make_private();
    begin_log(arguments.volume, "standby");
    const auto store = claim(VolumePaths::of(arguments.volume), arguments.index);
    if (!store.ok()) return refuse(store.error());
    if (const auto served = serve_standby(store.value()); !served.ok()) {
        spdlog::error("could not {}", served.error().text());
        return ExitCode::kFailed;
    }
    return ExitCode::kDone;
}

Outcome<ExitCode> run_standby(const StandbyArguments& arguments) {
    TS_TRY(require_root());
    TS_TRY(check_name(arguments.volume));
    const auto paths = VolumePaths::of(arguments.volume);
    return arguments.once ? apply_once(paths, arguments) : serve_here(paths, arguments);
}

}  // namespace twinspool
