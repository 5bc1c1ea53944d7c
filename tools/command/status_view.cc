// SPDX-License-Identifier: Apache-2.0
#include "tools/command/status_view.h"

#include <chrono>
#include <cstdint>
#include <optional>

#include "tools/ground/time_text.h"

namespace twinspool {
namespace {

std::uint64_t number(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_number() ? at->get<std::uint64_t>() : 0;
}

// Nothing if it is not known.
std::optional<double> real(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_number() ? std::optional{at->get<double>()} : std::nullopt;
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
    return at == object.end() || at->is_null() ? kNothing : *at;
}

bool is_running(const Json& status) { return number(status, "pid") != 0; }

std::string spell_seconds(double seconds) {
    if (seconds < 1) return fmt::format("{:.1f} ms", seconds * 1000);
    if (seconds < 120) return fmt::format("{:.1f} s", seconds);
    return fmt::format("{:.0f} min", seconds / 60);
}

std::string lag(const Json& standby) {
    return spell_seconds(real(standby, "lag_seconds").value_or(0));
}

std::uint64_t percent(std::uint64_t part, std::uint64_t whole) {
    return whole == 0 ? 0 : part * 100 / whole;
}

// ", 12 min left"; nothing if it is not known.
std::string left(const Json& object, const char* key) {
    const auto seconds = real(object, key);
    return seconds ? fmt::format(", {} left", spell_seconds(*seconds)) : "";
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

// On the host of a standby.
std::string received_part(const Json& status) {
    if (!is_running(status)) return fmt::format(" | {}", text(status, "store"));
    const auto from = text(status, "from");
    auto line = from.empty() ? std::string{" | no primary"} : fmt::format(" | from {}", from);
    line += fmt::format(", received/applied {}/{} ({} B)", number(status, "received_records"),
                        number(status, "applied_records"), number(status, "received_bytes"));
    if (const auto heard = real(status, "heard_seconds"); heard && !from.empty() && *heard >= 1)
        line += fmt::format(", heard {} ago", spell_seconds(*heard));
    if (const auto behind = number(status, "committed_lsn"); behind > number(status, "applied_lsn"))
        line += fmt::format(", {} to apply", behind - number(status, "applied_lsn"));
    return line;
}

std::string age(const Json& object) {
    return age_text(std::chrono::seconds{number(object, "age_seconds")});
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

// While not everything has been told to a standby.
std::string seed_part(const Json& status) {
    const auto& seed = part(status, "seed");
    const auto done = number(seed, "objects_done");
    const auto total = number(seed, "objects_total");
    const bool resync = text(seed, "kind") == "resync";
    if (text(status, "state") != "seeding" && !(resync && done < total)) return "";
    auto line =
        fmt::format(" | {} {}/{} objects, {} %", resync ? "resynced" : "seeded", done, total,
                    percent(number(seed, "bytes_done"), number(seed, "bytes_total")));
    if (resync) line += fmt::format(", {} B different", number(seed, "bytes_different"));
    return line + left(seed, "seconds_left");
}

std::string verify_part(const Json& verify) {
    if (const auto& running = part(verify, "running"); !running.empty())
        return fmt::format(" | verifying, {} objects", number(running, "objects"));
    const auto& last = part(verify, "last");
    if (last.empty()) return "";
    if (!text(last, "failure").empty()) return fmt::format(" | verify failed {} ago", age(last));
    auto line = fmt::format(" | verified {} ago", age(last));
    const auto differences = number(last, "differences");
    if (differences != 0)
        line += fmt::format(", {} differences{}", differences,
                            number(last, "repaired") == differences ? ", repaired" : "");
    return line;
}

std::string verify_below(const Json& verify) {
    std::string out;
    if (const auto& running = part(verify, "running"); !running.empty())
        out += fmt::format("    verify    running for {}: {} objects, {} B, {} differences\n",
                           spell_seconds(real(running, "seconds").value_or(0)),
                           number(running, "objects"), number(running, "bytes"),
                           number(running, "differences"));
    if (const auto& last = part(verify, "last"); !last.empty()) {
        const auto failure = text(last, "failure");
        out += fmt::format(
            "    verify    {} ago: {} objects, {} B, {} differences, {} repaired{}\n", age(last),
            number(last, "objects"), number(last, "bytes"), number(last, "differences"),
            number(last, "repaired"), failure.empty() ? "" : "; " + failure);
    }
    return out;
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

std::string standby_below(const Json& standby) {
    const auto pid = number(standby, "pid");
    auto out =
        fmt::format("    out       {}: {}{}, sent {}/{} records ({} B), durable {}, applied {}\n",
                    text(standby, "target"), text(standby, "state"),
                    pid == 0 ? "" : fmt::format(" (pid {})", pid), number(standby, "sent_records"),
                    number(standby, "queued_records"), number(standby, "sent_bytes"),
                    number(standby, "durable_lsn"), number(standby, "applied_lsn"));
    const auto behind = number(standby, "lag_records");
    if (behind != 0)
        out += fmt::format("    lag       {} records, {} B, {}{}\n", behind,
                           number(standby, "lag_bytes"), lag(standby), left(standby, "catch_up"));
    if (is_true(standby, "resyncing"))
        out += "    resync    the standby is told everything anew, contents by hash\n";
    if (const auto trouble = text(standby, "trouble"); !trouble.empty())
        out += fmt::format("    trouble   {}\n", trouble);
    return out;
}

std::string primary_below(const Json& status) {
    const auto& journal = part(status, "journal");
    auto out = fmt::format("    primary   pid {}, transport {}, mode {}, epoch {}\n",
                           number(status, "pid"), text(status, "transport"), text(status, "mode"),
                           number(status, "epoch"));
    out += fmt::format("    journal   appended {}, durable {}, checkpoint {}\n",
                       number(journal, "appended_lsn"), number(journal, "durable_lsn"),
                       number(journal, "checkpoint_lsn"));
    for (const auto& standby : part(status, "standbys")) out += standby_below(standby);
    return out + verify_below(part(status, "verify"));
}

std::string host_below(const Json& status) {
    auto out = fmt::format("    standby   pid {}, store {}, epoch {}\n", number(status, "pid"),
                           text(status, "store"), number(status, "epoch"));
    out += fmt::format("    in        received {}, durable {}, committed {}, applied {}\n",
                       number(status, "received_lsn"), number(status, "durable_lsn"),
                       number(status, "committed_lsn"), number(status, "applied_lsn"));
    if (const auto trouble = text(status, "trouble"); !trouble.empty())
        out += fmt::format("    trouble   {}\n", trouble);
    if (const auto refused = number(status, "refused"); refused != 0)
        out += fmt::format("    refused   {} connections, the last at {}: {}\n", refused,
                           text(status, "last_refused_at"), text(status, "last_refused"));
    return out;
}

bool is_standby(const Json& status) { return text(status, "role") == "standby"; }

}  // namespace

std::string status_line(const Json& status) {
    std::string line = fmt::format("{}  {} {}", text(status, "volume"), text(status, "role"),
                                   text(status, "state"));
    if (is_standby(status))
        return line + received_part(status) + snapshots_part(part(status, "snapshots"));
    for (const auto& standby : part(status, "standbys")) line += standby_part(status, standby);
    line += seed_part(status);
    line += snapshots_part(part(status, "snapshots"));
    const auto& journal = part(status, "journal");
    line +=
        fmt::format(" | journal {} %", percent(number(journal, "bytes"), number(journal, "limit")));
    return line + verify_part(part(status, "verify"));
}

std::string status_text(const Json& status) {
    std::string out = status_line(status) + "\n";
    for (const auto& directory : part(status, "directories"))
        out += fmt::format("    directory {}\n", text(directory, "path"));
    if (!is_running(status)) return out;
    out += is_standby(status) ? host_below(status) : primary_below(status);
    return out + snapshots_below(part(status, "snapshots"));
}

}  // namespace twinspool
