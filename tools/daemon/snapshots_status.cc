// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/snapshots_status.h"

#include <algorithm>
#include <ctime>
#include <optional>
#include <string>

#include "tools/ground/time_text.h"

namespace twinspool {
namespace {

Json one(const Snapshot& snapshot) {
    return {{"name", snapshot.name},
            {"lsn", snapshot.number.value},
            {"time", spell_time(snapshot.time)}};
}

// Whole seconds since 1970.
std::optional<std::int64_t> seconds_of(const std::string& utc) {
    std::tm fields{};
    if (::strptime(utc.c_str(), "%Y-%m-%dT%H:%M:%S", &fields) == nullptr) return std::nullopt;
    return ::timegm(&fields);
}

}  // namespace

Json snapshots_status(std::uint64_t count, const std::vector<Snapshot>& told) {
    const auto how_many = [&](bool Snapshot::*flag) {
        return std::count_if(told.begin(), told.end(),
                             [flag](const Snapshot& snapshot) { return snapshot.*flag; });
    };
    return {{"count", count},
            {"incomplete", how_many(&Snapshot::incomplete)},
            {"broken", how_many(&Snapshot::broken)},
            {"newest", told.empty() ? Json() : one(told.back())},
            {"oldest", told.empty() ? Json() : one(told.front())}};
}

Json snapshots_unknown() {
    Json json;
    for (const char* key : {"count", "incomplete", "broken", "newest", "oldest"})
        json[key] = nullptr;
    return json;
}

void add_ages(Json& status, WallTime now) {
    for (const char* place : {"/snapshots/newest", "/snapshots/oldest", "/verify/last"}) {
        const Json::json_pointer where{place};
        if (!status.contains(where) || !status[where].is_object()) continue;
        auto& part = status[where];
        if (const auto taken = seconds_of(part.value("time", std::string{})))
            part["age_seconds"] = std::max<std::int64_t>(0, raw(now) / 1'000'000'000 - *taken);
    }
}

Json snapshots_answer(const std::vector<Snapshot>& snapshots) {
    Json list = Json::array();
    for (const Snapshot& each : snapshots)
        list.push_back({{"lsn", each.number.value},
                        {"name", each.name},
                        {"time_ns", raw(each.time)},
                        {"incomplete", each.incomplete},
                        {"broken", each.broken},
                        {"space", each.used}});
    return {{"snapshots", std::move(list)}};
}

}  // namespace twinspool
