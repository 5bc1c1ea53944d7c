// SPDX-License-Identifier: Apache-2.0
// list and destroy: the snapshots that there are.
#include <algorithm>

#include "tools/command/commands.h"
#include "tools/command/known_snapshots.h"
#include "tools/command/snapshot.h"
#include "tools/ground/control.h"
#include "tools/ground/lock.h"
#include "tools/ground/quantity.h"
#include "tools/ground/terminal.h"
#include "tools/ground/time_text.h"
#include "tools/machine/role.h"
#include "tools/volume/known_volume.h"

namespace twinspool {
namespace {

// For people: three digits or so.
std::string spell_space(std::uint64_t bytes) {
    const Unit* unit = &kSizeUnits[0];
    for (const Unit& each : kSizeUnits)
        if (bytes >= each.factor) unit = &each;
    const double amount = static_cast<double>(bytes) / static_cast<double>(unit->factor);
    if (unit->factor == 1 || amount >= 99.95) return fmt::format("{:.0f} {}", amount, unit->word);
    return fmt::format("{:.1f} {}", amount, unit->word);
}

std::string note_on(const Snapshot& snapshot) {
    std::string note;
    if (snapshot.incomplete) note += "incomplete: not everything was on the standby";
    if (snapshot.broken)
        note += fmt::format("{}broken: its history was given up", note.empty() ? "" : "; ");
    return note;
}

Json json_of(const std::vector<Snapshot>& snapshots) {
    Json all = Json::array();
    for (const Snapshot& each : snapshots)
        all.push_back({{"name", each.name},
                       {"lsn", each.number.value},
                       {"time", spell_time(each.time)},
                       {"space", each.used},
                       {"incomplete", each.incomplete},
                       {"broken", each.broken}});
    return all;
}

std::string text_of(const std::vector<Snapshot>& snapshots) {
    std::size_t width = 4;
    std::size_t digits = 3;
    for (const Snapshot& each : snapshots) {
        width = std::max(width, each.name.size());
        digits = std::max(digits, std::to_string(each.number.value).size());
    }
    constexpr std::size_t kTimeWidth = 20;
    std::string text = fmt::format("{:<{}}  {:>{}}  {:<{}}  {:>9}\n", "NAME", width, "LSN", digits,
                                   "TIME", kTimeWidth, "SPACE");
    for (const Snapshot& each : snapshots) {
        const std::string note = note_on(each);
        text += fmt::format("{:<{}}  {:>{}}  {:<{}}  {:>9}{}{}\n", each.name, width,
                            each.number.value, digits, spell_time(each.time), kTimeWidth,
                            spell_space(each.used), note.empty() ? "" : "  ", note);
    }
    return text;
}

}  // namespace

Outcome<ExitCode> run_list(const ListArguments& arguments) {
    TS_ASSIGN(const auto known, KnownSnapshots::of(arguments.volume));
    if (arguments.json)
        print(json_of(known.snapshots()).dump(2) + "\n");
    else if (known.snapshots().empty())
        print(
            fmt::format("there is no snapshot of {} yet; `twinspool snapshot {}@NAME` takes "
                        "one\n",
                        arguments.volume, arguments.volume));
    else
        print(text_of(known.snapshots()));
    return ExitCode::kDone;
}

Outcome<ExitCode> run_destroy(const DestroyArguments& arguments) {
    TS_TRY(require_root());
    TS_ASSIGN(const auto point, parse_point(arguments.point, PathPart::kNone));
    const auto paths = VolumePaths::of(point.volume);
    TS_TRY(load_running_volume(paths));
    TS_TRY(check_not_standby(paths, "destroying a snapshot"));
    // One command at a time: of two that name the same one, the second finds it gone.
    TS_ASSIGN(const auto lock, lock_volume(paths));
    TS_ASSIGN(const auto known, KnownSnapshots::of(point.volume));
    TS_ASSIGN(const auto snapshot, known.find(point.snapshot));
    if (arguments.dry_run) {
        TS_TRY(check_unused(paths, known.config(), snapshot));
        print(fmt::format("{}@{}: would be destroyed, which frees {}; nothing was changed\n",
                          paths.name, snapshot.name, spell_space(snapshot.used)));
        return ExitCode::kDone;
    }
    TS_TRY(destroy_snapshot(paths, known.config(), snapshot));
    print(fmt::format("{}@{}: destroyed; {} freed\n", paths.name, snapshot.name,
                      spell_space(snapshot.used)));
    return ExitCode::kDone;
}

}  // namespace twinspool
