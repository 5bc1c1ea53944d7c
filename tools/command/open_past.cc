// SPDX-License-Identifier: Apache-2.0
// The way from the name of a snapshot to its image.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

#include "tools/command/commands.h"
#include "tools/command/open_past.h"
#include "tools/ground/control.h"
#include "tools/ground/terminal.h"
#include "tools/machine/admission.h"
#include "tools/machine/role.h"
#include "tools/volume/known_volume.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

constexpr Nanoseconds kSettlePatience = 30s;

std::string scratch_place(const VolumePaths& paths) { return paths.run() + "/past"; }

// Takes the lock that says that a scratch directory is in use; nothing if another has it, or the
// directory is gone.
std::optional<Fd> occupy(const std::string& scratch) {
    Fd fd{::open(scratch.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)};
    struct stat held {};
    struct stat there {};
    if (!fd.valid() || ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 || ::fstat(fd.get(), &held) != 0 ||
        ::lstat(scratch.c_str(), &there) != 0 || held.st_ino != there.st_ino)
        return std::nullopt;
    return fd;
}

// What processes that were killed have left.
void clear_leavings(const std::string& place) {
    const auto names = entries_of(place);
    if (!names.ok()) return;
    for (const auto& name : names.value()) {
        const std::string scratch = fmt::format("{}/{}", place, name);
        if (occupy(scratch)) (void)remove_tree(scratch);
    }
}

struct Scratch {
    std::string path;
    Fd in_use;
};

Outcome<Scratch> make_scratch(const VolumePaths& paths) {
    static std::atomic<unsigned> made{0};
    const std::string place = scratch_place(paths);
    TS_TRY(make_private_directory(place));
    clear_leavings(place);
    constexpr int kAttempts = 100;
    for (int i = 0; i < kAttempts; ++i) {
        const std::string scratch = fmt::format("{}/{}.{}", place, ::getpid(), made++);
        if (::mkdir(scratch.c_str(), 0700) != 0) {
            if (errno == EEXIST)
                continue;  // left by an earlier process of this number, or its child
            return last_error("make the directory {}", scratch);
        }
        // Another command may just have taken it for a leaving.
        if (auto in_use = occupy(scratch)) return Scratch{scratch, std::move(*in_use)};
    }
    return failure("could not make a scratch directory in {}", place);
}

// Empty: the standby has applied every mark, or the volume is down; else why it has not.
Outcome<std::string> wait_named(const VolumePaths& paths, Nanoseconds timeout) {
    const auto answer = ask_daemon(
        paths.run(), {{"command", "wait"}, {"for", "named"}, {"timeout_ns", timeout.count()}});
    if (!answer.ok() && is_nobody(answer.error())) return std::string{};
    if (!answer.ok()) return answer.error();
    if (answer.value().value("reached", false)) return std::string{};
    return answer.value().value("why_not", std::string{"the daemon does not say why"});
}

}  // namespace

Verdict settle(const VolumePaths& paths) {
    const auto not_current = [&](const std::string& why) {
        return Complaint{ExitCode::kDegraded,
                         fmt::format("the standby of {} does not know of every snapshot yet: {}",
                                     paths.name, why)};
    };
    // As a rule it does, and nothing is waited for.
    TS_ASSIGN(const auto now, wait_named(paths, Nanoseconds{0}));
    if (now.empty()) return {};
    const auto status = ask_daemon(paths.run(), {{"command", "status"}});
    if (!status.ok() && is_nobody(status.error())) return {};
    if (!status.ok()) return status.error();
    // One that is not there is not waited for.
    for (const auto& standby : status.value().value("standbys", Json::array()))
        if (!standby.value("connected", false)) return not_current(now);
    TS_ASSIGN(const auto later, wait_named(paths, kSettlePatience));
    return later.empty() ? Verdict{} : not_current(later);
}

Outcome<OpenPast> OpenPast::of(const std::string& volume) {
    TS_TRY(require_root());
    TS_TRY(check_name(volume));
    const auto paths = VolumePaths::of(volume);
    TS_TRY(load_running_volume(paths));
    if (const auto settled = settle(paths); !settled.ok()) print_warning(settled.error().sentence);
    return as_it_stands(volume);
}

Outcome<OpenPast> OpenPast::as_it_stands(const std::string& volume) {
    TS_TRY(require_root());
    TS_TRY(check_name(volume));
    OpenPast opened;
    opened.paths_ = VolumePaths::of(volume);
    TS_ASSIGN(opened.config_, load_running_volume(opened.paths_));
    TS_ASSIGN(opened.store_, store_of_past(opened.paths_, opened.config_));
    TS_ASSIGN(auto scratch, make_scratch(opened.paths_));
    opened.scratch_ = std::move(scratch.path);
    opened.in_use_ = std::move(scratch.in_use);
    const auto& store = opened.store_;
    auto past =
        Past::open({.store = store, .volume = opened.config_.id, .scratch = opened.scratch_});
    if (!past.ok() && past.error().code == ENOENT)
        return Complaint{ExitCode::kDegraded,
                         fmt::format("the standby {} of {} has no past: it has applied nothing "
                                     "yet, or its disk is not mounted",
                                     store, volume)};
    if (!past.ok() && past.error().code == EINVAL)
        return failure("{} is not the standby of the volume {}", store, volume);
    if (!past.ok()) return past.error();
    opened.past_ = std::move(past).value();
    TS_ASSIGN(opened.snapshots_, opened.past_->snapshots());
    return opened;
}

OpenPast::OpenPast(OpenPast&& other) noexcept
    : paths_(std::move(other.paths_)),
      config_(std::move(other.config_)),
      store_(std::move(other.store_)),
      scratch_(std::exchange(other.scratch_, {})),
      in_use_(std::move(other.in_use_)),
      past_(std::move(other.past_)),
      snapshots_(std::move(other.snapshots_)) {}

OpenPast::~OpenPast() {
    past_.reset();
    if (!scratch_.empty()) (void)remove_tree(scratch_);
}

Outcome<Snapshot> OpenPast::find(std::string_view name) const {
    return find_snapshot(paths_, snapshots_, name);
}

Outcome<Snapshot> find_snapshot(const VolumePaths& paths, const std::vector<Snapshot>& snapshots,
                                std::string_view name) {
    constexpr std::string_view kLsnPrefix = "lsn:";
    const auto is_meant = [&](const Snapshot& each) {
        if (name.starts_with(kLsnPrefix))
            return std::to_string(each.number.value) == name.substr(kLsnPrefix.size());
        return name == "latest" || each.name == name;
    };
    const auto found = std::find_if(snapshots.rbegin(), snapshots.rend(), is_meant);
    if (found != snapshots.rend()) return *found;
    if (name == "latest") return bad_input("there is no snapshot of {} yet", paths.name);
    return bad_input("there is no snapshot {}@{}; `twinspool list {}` shows those that there are",
                     paths.name, name, paths.name);
}

Outcome<std::unique_ptr<Image>> OpenPast::image(const Snapshot& snapshot) {
    const auto broken = [&] {
        return failure(
            "the snapshot {}@{} is broken: the standby had to give up its history for lack of "
            "space; `twinspool destroy {}@{}` removes it",
            paths_.name, snapshot.name, paths_.name, snapshot.name);
    };
    if (snapshot.broken) return broken();
    auto image = past_->image(snapshot.number);
    if (!image.ok()) {
        switch (image.error().code) {
            case EBUSY:
                return failure("the snapshot {}@{} is just being destroyed", paths_.name,
                               snapshot.name);
            case ENOENT:
                return failure("the snapshot {}@{} was just destroyed", paths_.name, snapshot.name);
            case EIO:
                return broken();
            default:
                return image.error();
        }
    }
    if (snapshot.incomplete)
        print_warning(
            fmt::format("the snapshot {}@{} is incomplete: it was taken before everything was on "
                        "the standby",
                        paths_.name, snapshot.name));
    return std::move(image).value();
}

}  // namespace twinspool
