// SPDX-License-Identifier: Apache-2.0
// log: the snapshots in which one path differs from the one before.
#include "replicator/past/path_log.h"

#include <sys/stat.h>

#include "replicator/past/printable.h"
#include "tools/command/commands.h"
#include "tools/command/open_past.h"
#include "tools/ground/long_work.h"
#include "tools/ground/path_json.h"
#include "tools/ground/terminal.h"
#include "tools/ground/time_text.h"
#include "tools/volume/point.h"

namespace twinspool {
namespace {

struct Entry {
    Snapshot snapshot;
    PathEvent event;
};

std::string_view word_for(PathEvent::Kind kind) {
    switch (kind) {
        case PathEvent::Kind::kCreated:
            return "created";
        case PathEvent::Kind::kChanged:
            return "changed";
        case PathEvent::Kind::kRemoved:
            return "removed";
        case PathEvent::Kind::kRenamed:
            break;
    }
    return "renamed";
}

WallTime mtime_of(const ImageAttributes& attributes) {
    return WallTime{attributes.mtime.seconds * 1'000'000'000 + attributes.mtime.nanoseconds};
}

// Of what stands at the path then.
bool stands(const PathEvent& event) {
    return event.kind == PathEvent::Kind::kCreated || event.kind == PathEvent::Kind::kChanged;
}

std::string line_of(const Entry& entry) {
    const auto& [snapshot, event] = entry;
    std::string line =
        fmt::format("{}  {}  {}", spell_time(snapshot.time), snapshot.name, word_for(event.kind));
    if (event.kind == PathEvent::Kind::kRenamed) line += fmt::format(" to {}", printable(event.to));
    if (stands(event))
        line += fmt::format(", {}, {} B, modified {}", word_for_type(event.attributes.mode),
                            event.attributes.size, spell_time(mtime_of(event.attributes)));
    return line + "\n";
}

Json json_of(const std::vector<Entry>& entries) {
    Json all = Json::array();
    for (const auto& [snapshot, event] : entries) {
        Json one{{"name", snapshot.name},
                 {"lsn", snapshot.number.value},
                 {"time", spell_time(snapshot.time)},
                 {"change", word_for(event.kind)}};
        if (stands(event)) {
            one["type"] = word_for_type(event.attributes.mode);
            one["size"] = event.attributes.size;
            one["mtime"] = spell_time(mtime_of(event.attributes));
        }
        if (event.kind == PathEvent::Kind::kChanged) one["bytes"] = event.bytes;
        if (!event.to.empty()) put_path(one, "to", event.to);
        all.push_back(std::move(one));
    }
    return all;
}

Outcome<std::vector<Entry>> entries_of(OpenPast& past, const std::string& path) {
    LongWork work{fmt::format("looking for {}", printable(path))};
    PathLog log{path, [](std::uint64_t) { return LongWork::go_on(); }};
    std::vector<Entry> entries;
    for (const auto& snapshot : past.snapshots()) {
        work.show(entries.size(), 0, snapshot.name);
        auto image = past.image(snapshot);
        if (!image.ok()) {
            // The others are as good as before.
            work.clear();
            print_warning(image.error().sentence);
            continue;
        }
        auto event = log.next(std::move(image).value());
        if (LongWork::interrupted()) return failure("interrupted; nothing was changed");
        if (!event.ok()) return event.error();
        if (*event) entries.push_back({.snapshot = snapshot, .event = std::move(**event)});
    }
    return entries;
}

}  // namespace

Outcome<ExitCode> run_log(const LogArguments& arguments) {
    TS_TRY(require_root());
    TS_ASSIGN(const auto point, parse_path_of_volume(arguments.point));
    TS_ASSIGN(auto past, OpenPast::of(point.volume));
    TS_ASSIGN(const auto entries, entries_of(past, point.path));
    if (entries.empty())
        return bad_input("there is no {} in any snapshot of {}", printable(point.path),
                         point.volume);
    if (arguments.json) {
        print(json_of(entries).dump(2) + "\n");
        return ExitCode::kDone;
    }
    std::string text;
    for (const auto& entry : entries) text += line_of(entry);
    print(text);
    return ExitCode::kDone;
}

}  // namespace twinspool
