// SPDX-License-Identifier: Apache-2.0
#include "tools/machine/site.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "tools/machine/inspection.h"
#include "tools/machine/mount_table.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

constexpr auto kPassingPatience = 5s;
constexpr auto kLookAgain = 10ms;

// Where the directory's files are, whatever overlay stands over it.
Result<FsPlace> backing_place(const std::string& directory) {
    TS_ASSIGN(const auto table, MountTable::of_self());
    const MountEntry* mount = table.covering_without_overlays(directory);
    if (mount == nullptr) return make_error(ENOENT, "find the mount that holds {}", directory);
    return MountTable::place_in(*mount, directory);
}

}  // namespace

Outcome<Site> Site::look(const VolumePaths& paths, const VolumeConfig& config,
                         LookOptions options) {
    Site site(paths, config.id);
    dev_t live = 0;
    if (options.daemon_lives) {
        TS_ASSIGN(live, site.live_device());
    }
    for (std::size_t i = 0; i < config.directories.size(); ++i) {
        Place place{.directory = config.directories[i].path,
                    .mounted = paths.mounted(i),
                    .backing = paths.backing(i)};
        TS_ASSIGN(place.cover, cover_of(place.directory, live));
        if (place.cover == Cover::kForeign)
            return bad_input(
                "the directory {} is covered by an overlay that is not this volume's; "
                "take the volume that it belongs to down first",
                place.directory);
        TS_ASSIGN(const dev_t bound, device_mounted_at(place.backing));
        place.bound = bound != 0;
        site.places_.push_back(std::move(place));
    }
    return site;
}

Outcome<dev_t> Site::live_device() const { return device_mounted_at(paths_.mount()); }

bool Site::in_place() const {
    for (const auto& place : places_)
        if (place.cover != Cover::kLive) return false;
    return true;
}

bool Site::has_stale() const {
    for (const auto& place : places_)
        if (place.cover == Cover::kStale) return true;
    return false;
}

bool Site::has_leavings() const {
    for (const auto& place : places_)
        if (place.bound) return true;
    const auto mounted = device_mounted_at(paths_.mount());
    return mounted.ok() && mounted.value() != 0;
}

std::vector<std::string> Site::sources() const {
    std::vector<std::string> sources;
    for (const auto& place : places_)
        sources.push_back(place.bound ? place.backing : place.directory);
    return sources;
}

Verdict Site::check_nobody_inside(pid_t daemon) const {
    const auto deadline = std::chrono::steady_clock::now() + kPassingPatience;
    for (const auto& place : places_) {
        TS_ASSIGN(const auto where, backing_place(place.directory));
        for (;;) {
            TS_ASSIGN(auto users, users_of_place(where));
            std::erase_if(users, [&](const auto& user) { return user.pid == daemon; });
            if (users.empty()) break;
            const bool pass = std::all_of(users.begin(), users.end(),
                                          [](const auto& user) { return is_passing(user.pid); });
            if (!pass || std::chrono::steady_clock::now() >= deadline)
                return failure(
                    "{} is in use: {}; they would write past the overlay: stop them first, or "
                    "use --force",
                    place.directory, describe(users));
            std::this_thread::sleep_for(kLookAgain);
        }
    }
    return {};
}

Verdict Site::check_everybody_reached() const {
    for (const auto& place : places_) {
        TS_ASSIGN(const auto strangers, out_of_reach(place.directory));
        if (!strangers.empty())
            return failure(
                "{} would not be mounted for all: {}, in a mount namespace that a mount "
                "made here does not reach, and would write past the overlay; stop them "
                "first and start them again after `up`, or use --force",
                place.directory, describe(strangers));
    }
    return {};
}

Complaint Site::busy() const {
    std::string who;
    if (const auto live = live_device(); live.ok() && live.value() != 0)
        if (const auto users = users_of_device(live.value()); users.ok())
            who = describe(users.value());
    if (const auto table = MountTable::of_self(); table.ok())
        for (const auto& entry : table.value().entries())
            for (const auto& place : places_)
                if (entry.point != place.directory && is_within(entry.point, place.directory))
                    who += fmt::format("{}something is mounted at {}", who.empty() ? "" : ", ",
                                       entry.point);
    if (who.empty()) who = "no process that can be seen; perhaps a loop device, swap or NFS export";
    return failure("the volume {} is busy, and stays up: {}; stop them and try again", paths_.name,
                   who);
}

Verdict Site::check_nobody_busy() const {
    TS_ASSIGN(const dev_t live, live_device());
    if (live == 0) return {};
    TS_ASSIGN(const auto users, users_of_device(live));
    if (!users.empty()) return busy();
    TS_ASSIGN(const auto keepers, keepers_of_device(live));
    if (!keepers.empty())
        return failure(
            "the overlay of {} cannot be taken away everywhere: {}; the volume stays up: stop "
            "them and try again",
            paths_.name, describe(keepers));
    return {};
}

// A backing tree that an earlier `up` kept reachable must still be that of this directory.
Verdict Site::check_binding(const Place& place) const {
    TS_ASSIGN(const auto table, MountTable::of_self());
    TS_ASSIGN(const auto wanted, backing_place(place.directory));
    const auto stack = table.stack_at(place.backing);
    if (stack.empty()) return failure("{} is not mounted any more", place.backing);
    const FsPlace kept{stack.back()->device, stack.back()->root};
    if (kept == wanted) return {};
    return failure(
        "{} keeps another directory reachable than {}: was the configuration or the disk "
        "changed while the daemon was dead? Unmount {} and {} and try again",
        place.backing, place.directory, place.directory, place.backing);
}

Verdict Site::uncover_lost() {
    for (auto& place : places_) {
        if (place.cover != Cover::kStale || place.bound) continue;
        (void)std::fprintf(stderr,
                           "twinspool: warning: nothing keeps the files under %s reachable, so the "
                           "dead overlay there is unmounted first\n",
                           place.directory.c_str());
        TS_TRY(take_away_stale(place.directory));
        place.cover = Cover::kBare;
    }
    return {};
}

Verdict Site::bind(Place& place) {
    // Once bound, the path is the user's directory, whose owner and mode are not ours to judge.
    if (place.bound) return check_binding(place);
    TS_TRY(make_private_directory(place.backing));
    TS_TRY(bind_private(place.directory, place.backing));
    place.bound = place.bound_now = true;
    return {};
}

Verdict Site::prepare() {
    TS_TRY(make_private_directory(paths_.journal()));
    TS_TRY(make_private_directory(paths_.backing_directory()));
    TS_TRY(make_private_directory(kTailDirectory));
    TS_TRY(unmount_all(paths_.mount()));
    TS_TRY(make_private_directory(paths_.mount()));
    for (auto& place : places_) TS_TRY(bind(place));
    return {};
}

Verdict Site::put_in_place() {
    for (auto& place : places_) {
        if (place.cover == Cover::kLive) continue;
        auto layering = twinspool::put_in_place(place.mounted, place.directory);
        if (!layering.ok()) return layering.error();
        if (layering.value() == Layering::kCoveredStale)
            (void)std::fprintf(
                stderr,
                "twinspool: note: this kernel cannot mount beneath (Linux 6.5 can): the "
                "dead overlay over %s stays underneath until `down`\n",
                place.directory.c_str());
        place.placed_now = layering.value() == Layering::kFresh;
        place.cover = Cover::kLive;
    }
    return {};
}

Verdict Site::take_away() {
    for (std::size_t i = 0; i < places_.size(); ++i) {
        if (places_[i].cover != Cover::kLive) continue;
        auto removal = twinspool::take_away(places_[i].directory);
        if (removal.ok() && removal.value() != Removal::kBusy) {
            places_[i].cover = Cover::kBare;
            continue;
        }
        const Complaint why = removal.ok() ? busy() : removal.error();
        TS_TRY(put_in_place());
        return why;
    }
    return {};
}

bool Site::withdraw() {
    bool all = true;
    for (auto& place : places_) {
        if (place.cover != Cover::kLive) continue;
        const auto removal = place.placed_now ? twinspool::take_away(place.directory)
                                              : Outcome<Removal>{Removal::kBusy};
        if (!removal.ok() || removal.value() == Removal::kBusy)
            all = false;
        else
            place.cover = Cover::kBare;
    }
    return all;
}

void Site::undo() {
    (void)withdraw();
    for (auto& place : places_)
        if (place.bound_now) (void)unmount_all(place.backing);
    (void)unmount_all(paths_.mount());
}

Verdict Site::clear() {
    for (const auto& place : places_) {
        TS_TRY(take_away_stale(place.directory));
        TS_TRY(unmount_all(place.backing));
        (void)::rmdir(place.backing.c_str());
    }
    TS_TRY(unmount_all(paths_.mount()));
    for (const auto& path : {paths_.mount(), paths_.backing_directory()})
        (void)::rmdir(path.c_str());
    (void)::unlink((paths_.run() + "/control.sock").c_str());
    return {};
}

}  // namespace twinspool
