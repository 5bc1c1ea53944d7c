// SPDX-License-Identifier: Apache-2.0
// status and wait: what the daemon says of itself; for a volume that is down, what its files say.
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <chrono>
#include <thread>

#include "journal/base/clock.h"
#include "tools/command/commands.h"
#include "tools/command/status_view.h"
#include "tools/daemon/snapshots_status.h"
#include "tools/daemon/standby_status.h"
#include "tools/daemon/state.h"
#include "tools/ground/control.h"
#include "tools/ground/lock.h"
#include "tools/ground/paths.h"
#include "tools/ground/quantity.h"
#include "tools/ground/terminal.h"
#include "tools/machine/role.h"
#include "tools/volume/config.h"
#include "tools/volume/known_volume.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

constexpr auto kRedrawEvery = 1s;

std::uint64_t segment_bytes(const VolumePaths& paths) {
    std::uint64_t bytes = 0;
    const auto names = entries_of(paths.journal());
    if (!names.ok()) return 0;
    for (const auto& name : names.value()) {
        struct stat status {};
        if (::stat((paths.journal() + "/" + name).c_str(), &status) == 0)
            bytes += static_cast<std::uint64_t>(status.st_size);
    }
    return bytes;
}

// What the daemon wrote when it ended in order still holds; after a kill the numbers are not known.
Json last_said(const VolumePaths& paths) {
    Json last = Json::object();
    if (const auto text = read_file(paths.last_status()); text.ok())
        last = Json::parse(text.value(), nullptr, false);
    return last.is_object() ? last : Json::object();
}

Json status_when_down(const VolumePaths& paths, const VolumeConfig& config) {
    const Json last = last_said(paths);
    const auto known = [&](const char* part, const char* key) -> Json {
        const auto at = last.find(part);
        return at != last.end() && at->contains(key) ? (*at)[key] : Json();
    };
    Json status;
    status["volume"] = paths.name;
    status["role"] = "primary";
    status["state"] = spell(VolumeState::kDown);
    status["mode"] = spell(config.mode);
    status["epoch"] = last.contains("epoch") ? last["epoch"] : Json();
    status["pid"] = 0;
    status["transport"] = nullptr;
    status["directories"] = Json::array();
    for (const auto& directory : config.directories)
        status["directories"].push_back({{"path", directory.path}});
    status["journal"] = {{"appended_lsn", known("journal", "appended_lsn")},
                         {"durable_lsn", known("journal", "durable_lsn")},
                         {"checkpoint_lsn", known("journal", "checkpoint_lsn")},
                         {"bytes", segment_bytes(paths)},
                         {"limit", config.journal_limit}};
    status["standbys"] = last.contains("standbys") ? last["standbys"] : Json::array();
    if (status["standbys"].empty())
        for (const auto& standby : config.standbys)
            status["standbys"].push_back({{"target", standby.target()}});
    for (auto& standby : status["standbys"]) {
        standby["connected"] = false;
        standby["pid"] = 0;
        for (const char* key : {"durable_lsn", "applied_lsn", "lag_records", "lag_bytes",
                                "lag_seconds", "sent_records", "sent_bytes", "queued_records"})
            if (!standby.contains(key)) standby[key] = nullptr;
    }
    status["snapshots"] = last.contains("snapshots") ? last["snapshots"] : snapshots_unknown();
    status["seed"] = last.contains("seed") ? last["seed"] : Json::object();
    for (const char* key : {"objects_done", "objects_total", "bytes_done", "bytes_total"})
        if (!status["seed"].contains(key)) status["seed"][key] = nullptr;
    return status;
}

Outcome<Json> status_of(const VolumePaths& paths) {
    TS_ASSIGN(const auto config, load_running_volume(paths));
    auto answer = ask_daemon(paths.run(), {{"command", "status"}});
    if (!answer.ok() && !is_nobody(answer.error())) return answer.error();
    Json status = answer.ok()           ? std::move(answer).value()
                  : standby_here(paths) ? standby_status_when_down(paths, config, last_said(paths))
                                        : status_when_down(paths, config);
    add_ages(status, wall_time());
    return status;
}

ExitCode code_for(const Json& status) {
    return status.value("state", std::string{}) == spell(VolumeState::kInSync)
               ? ExitCode::kDone
               : ExitCode::kDegraded;
}

struct Shown {
    std::string text;
    ExitCode code = ExitCode::kDone;
};

Outcome<Shown> show_one(const std::string& volume, bool json) {
    TS_ASSIGN(const auto status, status_of(VolumePaths::of(volume)));
    return Shown{json ? status.dump(2) + "\n" : status_text(status), code_for(status)};
}

// A volume whose configuration is broken does not hide the others.
Outcome<Shown> show_all(bool json) {
    Shown shown;
    Json all = Json::array();
    for (const auto& name : volume_names(BasePaths::from_environment())) {
        const auto status = status_of(VolumePaths::of(name));
        if (!status.ok()) {
            print_error(status.error().sentence);
            shown.code = ExitCode::kDegraded;
            continue;
        }
        if (code_for(status.value()) != ExitCode::kDone) shown.code = ExitCode::kDegraded;
        shown.text += status_line(status.value()) + "\n";
        all.push_back(status.value());
    }
    if (json) shown.text = all.dump(2) + "\n";
    if (shown.text.empty() && shown.code == ExitCode::kDone)
        shown.text = "there is no volume; `twinspool create --help` says how\n";
    return shown;
}

// Over what was there before, without a moment in which the screen is empty: each line is cleared
// to its end, and the rest of the screen at last. No more lines than the terminal has, and none
// wider, so that nothing scrolls; its size is asked for each time.
std::string redrawn(const std::string& text) {
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0)
        size = {.ws_row = 24, .ws_col = 80};
    std::string screen = "\033[H";
    std::size_t at = 0;
    for (unsigned row = 0; row < size.ws_row && at < text.size(); ++row) {
        const auto end = std::min(text.find('\n', at), text.size());
        auto length = std::min<std::size_t>(end - at, size.ws_col);
        while (at + length < end &&
               (static_cast<unsigned char>(text[at + length]) & 0xC0U) == 0x80U)
            --length;  // not in the middle of a character
        screen += text.substr(at, length);
        screen += row + 1 < size.ws_row ? "\033[K\n" : "\033[K";
        at = end + 1;
    }
    return screen + "\033[J";
}

}  // namespace

Outcome<ExitCode> run_status(const StatusArguments& arguments) {
    if (arguments.volume) TS_TRY(check_name(*arguments.volume));
    const bool redraw = arguments.watch && ::isatty(STDOUT_FILENO) == 1;
    for (;;) {
        TS_ASSIGN(const auto shown, arguments.volume ? show_one(*arguments.volume, arguments.json)
                                                     : show_all(arguments.json));
        print(redraw ? redrawn(shown.text) : shown.text);
        if (!arguments.watch) return shown.code;
        std::this_thread::sleep_for(kRedrawEvery);
    }
}

Outcome<ExitCode> run_wait(const WaitArguments& arguments) {
    TS_TRY(check_name(arguments.volume));
    const auto paths = VolumePaths::of(arguments.volume);
    TS_TRY(load_running_volume(paths));
    auto timeout = parse_duration(arguments.timeout);
    if (!timeout) timeout = parse_duration(arguments.timeout + "s");
    if (!timeout)
        return bad_input(
            "the time-out \"{}\" is neither a number of seconds nor a duration like {}",
            arguments.timeout, kDurationExample);
    const auto answer = ask_daemon(
        paths.run(),
        {{"command", "wait"}, {"for", arguments.goal}, {"timeout_ns", timeout->count()}});
    if (!answer.ok() && is_nobody(answer.error()))
        return Complaint{
            ExitCode::kDegraded,
            fmt::format("the volume {} is down: nothing to wait for; run `twinspool {} {}` first",
                        paths.name, standby_here(paths) ? "standby" : "up", paths.name)};
    if (!answer.ok()) return answer.error();
    if (answer.value().value("reached", false)) return ExitCode::kDone;
    return Complaint{ExitCode::kDegraded,
                     fmt::format("{} is not {} after {}: {}", paths.name, arguments.goal,
                                 spell_duration(*timeout),
                                 answer.value().value("why_not", std::string{"time-out"}))};
}

}  // namespace twinspool
