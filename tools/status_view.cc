// SPDX-License-Identifier: Apache-2.0
#include "tools/status_view.h"

#include <chrono>
#include <cstdint>

#include "tools/age.h"

namespace twinspool {
namespace {

std::uint64_t number(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_number() ? at->get<std::uint64_t>() : 0;
}

std::string text(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

bool is_true(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_boolean() && at->get<bool>();
}

const Json& part(const Json& object, const char* key) {
    static const Json kNothing = Json::object();
    const auto at = object.find(key);
    return at == object.end() ? kNothing : *at;
}

bool is_running(const Json& status) { return number(status, "pid") != 0; }

std::string lag(const Json& standby) {
    const auto at = standby.find("lag_seconds");
    const double seconds = at != standby.end() && at->is_number() ? at->get<double>() : 0;
    if (seconds < 1) return fmt::format("{:.1f} ms", seconds * 1000);
    if (seconds < 120) return fmt::format("{:.1f} s", seconds);
    return fmt::format("{:.0f} min", seconds / 60);
}

std::uint64_t percent(std::uint64_t part, std::uint64_t whole) {
    return whole == 0 ? 0 : part * 100 / whole;
}

std::string standby_part(const Json& status, const Json& standby) {
    std::string line = fmt::format(" | {}", text(standby, "target"));
    if (!is_running(status)) return line;
    line += fmt::format(" {}, queued/sent {}/{} ({} B), lag {}",
                        is_true(standby, "connected") ? "connected" : "not connected",
                        number(standby, "queued_records"), number(standby, "sent_records"),
                        number(standby, "sent_bytes"), lag(standby));
    return line;
}

std::string age(const Json& snapshot) {
    return age_text(std::chrono::seconds{number(snapshot, "age_seconds")});
}

// Nothing as long as there is none.
std::string snapshots_part(const Json& snapshots) {
    if (number(snapshots, "count") == 0) return "";
    auto line = fmt::format(" | snapshots {}, oldest {}", number(snapshots, "count"),
                            age(part(snapshots, "oldest")));
    if (const auto broken = number(snapshots, "broken"); broken != 0)
        line += fmt::format(", {} broken", broken);
    return line;
}

std::string snapshots_below(const Json& snapshots) {
    std::string out;
    if (const auto& newest = part(snapshots, "newest"); newest.contains("name"))
        out += fmt::format("    newest    {}, {} ago, record {}\n", text(newest, "name"),
                           age(newest), number(newest, "lsn"));
    const auto& schedule = part(snapshots, "schedule");
    if (schedule.contains("next"))
        out += fmt::format("    schedule  every {}, next at {}\n", text(schedule, "every"),
                           text(schedule, "next"));
    if (const auto trouble = text(schedule, "trouble"); !trouble.empty())
        out +=
            fmt::format("    trouble   the last scheduled snapshot was not taken: {}\n", trouble);
    return out;
}

}  // namespace

std::string status_line(const Json& status) {
    std::string line = fmt::format("{}  {} {}", text(status, "volume"), text(status, "role"),
                                   text(status, "state"));
    for (const auto& standby : part(status, "standbys")) line += standby_part(status, standby);
    const auto& seed = part(status, "seed");
    if (text(status, "state") == "seeding")
        line += fmt::format(" | seeded {}/{} objects, {} %", number(seed, "objects_done"),
                            number(seed, "objects_total"),
                            percent(number(seed, "bytes_done"), number(seed, "bytes_total")));
    line += snapshots_part(part(status, "snapshots"));
    const auto& journal = part(status, "journal");
    line +=
        fmt::format(" | journal {} %", percent(number(journal, "bytes"), number(journal, "limit")));
    return line;
}

std::string status_text(const Json& status) {
    std::string out = status_line(status) + "\n";
    for (const auto& directory : part(status, "directories"))
        out += fmt::format("    directory {}\n", text(directory, "path"));
    if (!is_running(status)) return out;
    const auto& journal = part(status, "journal");
    out += fmt::format("    primary   pid {}, transport {}, mode {}, epoch {}\n",
                       number(status, "pid"), text(status, "transport"), text(status, "mode"),
                       number(status, "epoch"));
    out += fmt::format("    journal   appended {}, durable {}, checkpoint {}\n",
                       number(journal, "appended_lsn"), number(journal, "durable_lsn"),
                       number(journal, "checkpoint_lsn"));
    for (const auto& standby : part(status, "standbys")) {
        out += fmt::format(
            "    standby   pid {}, durable {}, applied {}, behind by {} records, {} B\n",
            number(standby, "pid"), number(standby, "durable_lsn"), number(standby, "applied_lsn"),
            number(standby, "lag_records"), number(standby, "lag_bytes"));
        if (const auto trouble = text(standby, "trouble"); !trouble.empty())
            out += fmt::format("    trouble   {}\n", trouble);
    }
    return out + snapshots_below(part(status, "snapshots"));
}

}  // namespace twinspool
