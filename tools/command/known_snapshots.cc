// SPDX-License-Identifier: Apache-2.0
#include "tools/command/known_snapshots.h"

#include "tools/command/commands.h"
#include "tools/ground/terminal.h"
#include "tools/machine/role.h"
#include "tools/volume/known_volume.h"

namespace twinspool {
namespace {

Outcome<std::vector<Snapshot>> ask_snapshots(const VolumePaths& paths, const VolumeConfig& config) {
    const auto answer = ask_daemon(paths.run(), {{"command", "snapshots"}});
    if (!answer.ok() && is_nobody(answer.error()))
        return failure("the snapshots of {} are on {}, and the volume is down here: run this there",
                       paths.name, hosts_of(config));
    if (!answer.ok()) return answer.error();
    const auto list = answer.value().find("snapshots");
    if (list == answer.value().end() || !list->is_array())
        return Complaint{
            ExitCode::kDegraded,
            fmt::format("the standby of {} has not been reached yet, and its snapshots "
                        "are not known; `twinspool status {}` shows how it is",
                        paths.name, paths.name)};
    std::vector<Snapshot> snapshots;
    for (const auto& each : *list)
        snapshots.push_back({.number = Lsn{each.value("lsn", std::uint64_t{0})},
                             .name = each.value("name", std::string{}),
                             .time = WallTime{each.value("time_ns", std::int64_t{0})},
                             .incomplete = each.value("incomplete", false),
                             .broken = each.value("broken", false),
                             .used = each.value("space", std::uint64_t{0})});
    return snapshots;
}

}  // namespace

Outcome<KnownSnapshots> KnownSnapshots::of(const std::string& volume) {
    TS_TRY(require_root());
    TS_TRY(check_name(volume));
    const auto paths = VolumePaths::of(volume);
    TS_TRY(load_running_volume(paths));
    if (const auto settled = settle(paths); !settled.ok()) print_warning(settled.error().sentence);
    return as_it_stands(volume);
}

Outcome<KnownSnapshots> KnownSnapshots::as_it_stands(const std::string& volume) {
    KnownSnapshots known;
    known.paths_ = VolumePaths::of(volume);
    TS_ASSIGN(known.config_, load_running_volume(known.paths_));
    if (store_of_past(known.paths_, known.config_).ok()) {
        TS_ASSIGN(auto past, OpenPast::as_it_stands(volume));
        known.snapshots_ = past.snapshots();
        known.past_.emplace(std::move(past));
    } else {
        TS_ASSIGN(known.snapshots_, ask_snapshots(known.paths_, known.config_));
    }
    return known;
}

Outcome<std::vector<Snapshot>> KnownSnapshots::now() {
    if (!past_) return ask_snapshots(paths_, config_);
    auto snapshots = past_->past().snapshots();
    if (!snapshots.ok()) return snapshots.error();
    return std::move(snapshots).value();
}

}  // namespace twinspool
