// SPDX-License-Identifier: Apache-2.0
// The part of tools/daemon/reign that says how it is.
#include <unistd.h>

#include "tools/daemon/reign.h"
#include "tools/daemon/snapshots_status.h"

namespace twinspool {

Json Reign::standby_json(const StandbyStatus& standby) const {
    Json json;
    json["target"] = standby.target;
    json["wait"] = standby.wait;
    json["connected"] = standby.connected;
    json["state"] = name_of(standby.state);
    json["pid"] = standby.pid;
    json["durable_lsn"] = standby.durable.value;
    json["applied_lsn"] = standby.applied.value;
    json["lag_records"] = standby.lag_records;
    json["lag_bytes"] = standby.lag_bytes;
    json["lag_seconds"] = standby.lag_seconds;
    json["queued_records"] = standby.sent_records + standby.lag_records;
    json["sent_records"] = standby.sent_records;
    json["sent_bytes"] = standby.sent_bytes;
    json["trouble"] = standby.trouble;
    json["resyncing"] = standby.resyncing;
    json["catch_up"] = standby.catch_up_seconds ? Json(*standby.catch_up_seconds) : Json();
    return json;
}

// Those of the first standby that has told us of any: where there are several they have the same.
Json Reign::snapshots_json() const {
    std::optional<ToldSnapshots> told;
    for (const auto& sender : senders_)
        if (!told) told = sender->snapshots();
    return told ? snapshots_status(told->count, told->snapshots) : snapshots_unknown();
}

Json Reign::status() {
    const VolumeState state = look();
    const auto counters = journal_->counters();
    const auto walk = overlay_->walk();
    Json json;
    json["volume"] = paths_.name;
    json["role"] = "primary";
    json["state"] = spell(state);
    json["mode"] = spell(config_.mode);
    json["epoch"] = journal_->epoch().number;
    json["pid"] = ::getpid();
    json["transport"] = transport();
    json["directories"] = Json::array();
    for (const auto& directory : config_.directories)
        json["directories"].push_back({{"path", directory.path}});
    json["journal"] = {{"appended_lsn", counters.appended.value},
                       {"durable_lsn", counters.durable.value},
                       {"committed_lsn", counters.committed.value},
                       {"checkpoint_lsn", counters.checkpoint.value},
                       {"bytes", counters.bytes},
                       {"frames", counters.frames},
                       {"limit", config_.journal_limit}};
    json["standbys"] = Json::array();
    for (std::size_t i = 0; i < senders_.size(); ++i) {
        json["standbys"].push_back(standby_json(senders_[i]->status()));
        json["standbys"].back()["kind"] = config_.standbys[i].is_local() ? "local" : "host";
    }
    json["snapshots"] = snapshots_json();
    json["seed"] = {{"objects_done", walk.objects_done},   {"objects_total", walk.objects_total},
                    {"bytes_done", walk.bytes_done},       {"bytes_total", walk.bytes_total},
                    {"found_changed", walk.found_changed}, {"failed", walk.failed}};
    json["seed"]["kind"] = walk.by_hash ? "resync" : "seed";
    json["seed"]["bytes_different"] = walk.bytes_different;
    json["seed"]["seconds_left"] = walk.seconds_left ? Json(*walk.seconds_left) : Json();
    return json;
}

}  // namespace twinspool
