// SPDX-License-Identifier: Apache-2.0
// The standby's two entrances: the process that the daemon starts, and `standby --once` by hand.
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <csignal>

#include "replicator/local.h"
#include "replicator/standby.h"
#include "replicator/wire.h"
#include "tools/admission.h"
#include "tools/commands.h"
#include "tools/config.h"
#include "tools/launch.h"
#include "tools/lock.h"
#include "tools/log.h"
#include "tools/paths.h"
#include "tools/role.h"
#include "tools/starting.h"

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
    if (!arguments.once)
        return bad_input("standbys of other hosts are not served by this version; give --once");
    const auto paths = VolumePaths::of(arguments.volume);
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

}  // namespace twinspool
