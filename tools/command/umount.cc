// SPDX-License-Identifier: Apache-2.0
// umount: takes a view away and waits for the end of its process, so that the snapshot can be
// destroyed right afterwards; clears away what a killed view has left.
#include <sys/mount.h>

#include <algorithm>
#include <chrono>

#include "tools/command/commands.h"
#include "tools/ground/paths.h"
#include "tools/ground/terminal.h"
#include "tools/machine/inspection.h"
#include "tools/machine/mount_table.h"
#include "tools/machine/mounts.h"
#include "tools/machine/views.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

// From the unmounting to the end of the process there are only requests to finish.
constexpr Nanoseconds kEndPatience = 30s;

// Of what does not answer any more only the way there can be resolved.
Outcome<std::string> path_of(const std::string& directory) {
    auto path = real_path(directory);
    if (path.ok()) return std::move(path).value();
    std::string_view given{directory};
    while (given.size() > 1 && given.ends_with('/')) given.remove_suffix(1);
    const auto slash = given.rfind('/');
    const auto name = given.substr(slash == std::string_view::npos ? 0 : slash + 1);
    const auto parent = slash == std::string_view::npos ? std::string_view{"."}
                        : slash == 0                    ? std::string_view{"/"}
                                                        : given.substr(0, slash);
    const auto way = real_path(std::string{parent});
    if (path.error().code == ENOENT || !way.ok() || name == "." || name == "..")
        return bad_input("could not {}", path.error().text());
    return (way.value() == "/" ? "" : way.value()) + "/" + std::string{name};
}

Outcome<MountEntry> view_at(const std::string& path) {
    TS_ASSIGN(const auto table, MountTable::of_self());
    const auto stack = table.stack_at(path);
    if (stack.empty()) return bad_input("nothing is mounted at {}", path);
    if (stack.back()->type == kOverlayType)
        return bad_input("{} is a directory of a volume that is up: `twinspool down` unmounts it",
                         path);
    if (stack.back()->type != kViewType)
        return bad_input("what is mounted at {} is {} of type {}, not a view of a snapshot", path,
                         stack.back()->source, stack.back()->type);
    return *stack.back();
}

// What else is mounted there, or of it elsewhere.
Outcome<std::string> other_mounts(const MountEntry& view) {
    TS_ASSIGN(const auto table, MountTable::of_self());
    std::string text;
    for (const auto& entry : table.entries())
        if (entry.id != view.id &&
            (entry.device == view.device || is_within(entry.point, view.point)))
            text += fmt::format("{}{} is mounted at {}", text.empty() ? "" : ", ", entry.source,
                                entry.point);
    return text;
}

Complaint busy(const MountEntry& view) {
    std::string who;
    if (const auto users = users_of_device(view.device); users.ok()) who = describe(users.value());
    if (const auto mounts = other_mounts(view); mounts.ok() && !mounts.value().empty())
        who += (who.empty() ? "" : ", ") + mounts.value();
    if (who.empty()) who = "no process that can be seen; perhaps a loop device or NFS export";
    return failure("{} at {} is busy, and stays mounted: {}; stop them and try again", view.source,
                   view.point, who);
}

// Mounts of it that unmounting did not reach keep its process.
Complaint kept(const MountEntry& view, const LivingView& living) {
    std::string who;
    if (const auto keepers = keepers_of_device(view.device); keepers.ok())
        who = describe(keepers.value());
    if (const auto mounts = other_mounts(view); mounts.ok() && !mounts.value().empty())
        who += (who.empty() ? "" : ", ") + mounts.value();
    if (who.empty()) who = "look at its log";
    return failure("{} is not mounted at {} any more, but its process {} goes on: {}", view.source,
                   view.point, living.pid, who);
}

// The process of a view of ours that lives; none if it was killed, or is of another
// TWINSPOOL_ROOT.
Outcome<std::vector<LivingView>> processes_of(const MountEntry& view) {
    const std::string volume = view.source.substr(0, view.source.find('@'));
    if (!check_name(volume).ok()) return std::vector<LivingView>{};
    TS_ASSIGN(auto views, living_views(VolumePaths::of(volume)));
    std::erase_if(views, [&](const auto& each) { return each.place.device != view.device; });
    return views;
}

int unmount(const std::string& path, int flags) {
    return ::umount2(path.c_str(), flags | UMOUNT_NOFOLLOW) == 0 ? 0 : errno;
}

}  // namespace

Outcome<ExitCode> run_umount(const std::string& directory) {
    TS_TRY(require_root());
    TS_ASSIGN(const auto path, path_of(directory));
    TS_ASSIGN(const auto view, view_at(path));
    TS_ASSIGN(const auto processes, processes_of(view));
    int error = unmount(path, 0);
    // Who has something open in a dead one gets nothing but errors from it.
    if (error == EBUSY && processes.empty() && is_dead(path)) error = unmount(path, MNT_DETACH);
    if (error == EBUSY) return busy(view);
    if (error != 0) return make_error(error, "unmount {}", path);
    for (const auto& process : processes)
        if (!wait_for_end(process, kEndPatience)) return kept(view, process);
    print(fmt::format("{} is not mounted at {} any more\n", view.source, path));
    return ExitCode::kDone;
}

}  // namespace twinspool
