// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/standby_status.h"

#include <unistd.h>

#include "tools/daemon/snapshots_status.h"
#include "tools/daemon/state.h"
#include "tools/ground/time_text.h"

namespace twinspool {

Json standby_status_json(const VolumePaths& paths, const VolumeConfig& config,
                         const StandbyHostStatus& host, const std::vector<Snapshot>& snapshots) {
    Json json;
    json["volume"] = paths.name;
    json["role"] = "standby";
    json["state"] = spell(host.state);
    json["mode"] = spell(config.mode);
    json["epoch"] = host.epoch;
    json["pid"] = ::getpid();
    json["store"] = config.standbys.front().path;
    json["host"] = config.standbys.front().host;
    json["connected"] = !host.from.empty();
    json["from"] = host.from;
    json["received_lsn"] = host.received.value;
    json["durable_lsn"] = host.durable.value;
    json["applied_lsn"] = host.applied.value;
    json["committed_lsn"] = host.committed.value;
    json["received_records"] = host.received_records;
    json["received_bytes"] = host.received_bytes;
    json["applied_records"] = host.applied_records;
    json["heard_seconds"] = host.heard_seconds;
    json["trouble"] = host.trouble;
    json["refused"] = host.refused;
    json["last_refused"] = host.last_refused;
    json["last_refused_at"] = host.refused == 0 ? Json() : Json(spell_time(host.last_refused_at));
    json["snapshots"] = snapshots_status(snapshots.size(), snapshots);
    return json;
}

Json standby_status_when_down(const VolumePaths& paths, const VolumeConfig& config,
                              const Json& last) {
    Json json;
    json["volume"] = paths.name;
    json["role"] = "standby";
    json["state"] = spell(VolumeState::kDown);
    json["mode"] = spell(config.mode);
    json["epoch"] = last.contains("epoch") ? last["epoch"] : Json();
    json["pid"] = 0;
    json["store"] = config.standbys.front().path;
    json["host"] = config.standbys.front().host;
    json["connected"] = false;
    json["from"] = "";
    for (const char* key : {"received_lsn", "durable_lsn", "applied_lsn", "committed_lsn",
                            "received_records", "received_bytes", "applied_records"})
        json[key] = last.contains(key) ? last[key] : Json();
    json["snapshots"] = last.contains("snapshots") ? last["snapshots"] : snapshots_unknown();
    return json;
}

}  // namespace twinspool
