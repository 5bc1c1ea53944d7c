// SPDX-License-Identifier: Apache-2.0
#include "tools/machine/views.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>
#include <thread>

namespace twinspool {
namespace {

using namespace std::chrono_literals;

constexpr auto kLookAgain = 1ms;
constexpr int kPollFor_ms = 100;

std::string directory_of(const VolumePaths& paths) { return paths.run() + "/views"; }

// Somebody who looks for dead ones may have removed it before it was locked.
bool is_removed(const Fd& file) {
    struct stat status {};
    return ::fstat(file.get(), &status) != 0 || status.st_nlink == 0;
}

bool is_locked(const Fd& file) { return ::flock(file.get(), LOCK_SH | LOCK_NB) != 0; }

std::string_view next_line(std::string_view& text) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return line;
}

// Device, source and path, which may hold anything, and therefore comes last.
ViewPlace parse_place(std::string_view text) {
    ViewPlace place;
    const auto device = next_line(text);
    std::from_chars(device.data(), device.data() + device.size(), place.device);
    place.source = next_line(text);
    place.path = text;
    return place;
}

// Nothing if the process with that record has ended.
Outcome<std::optional<LivingView>> look_at(const std::string& directory, const std::string& name) {
    const auto path = directory + "/" + name;
    const Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
    if (!file.valid()) return std::optional<LivingView>{};
    LivingView view;
    std::from_chars(name.data(), name.data() + name.size(), view.pid);
    // The number is the process's as long as the lock is held.
    view.process.reset(static_cast<int>(::syscall(SYS_pidfd_open, view.pid, 0)));
    if (!is_locked(file)) {
        (void)::unlink(path.c_str());
        return std::optional<LivingView>{};
    }
    if (!view.process.valid()) return failure("cannot watch the process {} of a view", view.pid);
    TS_ASSIGN(const auto text, read_file(path));
    view.place = parse_place(text);
    return std::optional{std::move(view)};
}

}  // namespace

Outcome<ViewRecord> ViewRecord::begin(const VolumePaths& paths) {
    TS_TRY(make_private_directory(directory_of(paths)));
    const auto path = fmt::format("{}/{}", directory_of(paths), ::getpid());
    for (;;) {
        Fd file{::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)};
        if (!file.valid()) return last_error("open {}", path);
        if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0 && !is_removed(file))
            return ViewRecord{path, std::move(file)};
        std::this_thread::sleep_for(kLookAgain);
    }
}

ViewRecord::~ViewRecord() {
    if (file_.valid()) (void)::unlink(path_.c_str());
}

Verdict ViewRecord::tell(const ViewPlace& place) {
    const auto text = fmt::format("{}\n{}\n{}", place.device, place.source, place.path);
    if (::pwrite(file_.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
        return Complaint{last_error("write {}", path_)};
    return {};
}

Outcome<std::vector<LivingView>> living_views(const VolumePaths& paths) {
    std::vector<LivingView> views;
    const auto names = entries_of(directory_of(paths));
    if (!names.ok() && names.error().code == ENOENT) return views;
    if (!names.ok()) return names.error();
    for (const auto& name : names.value()) {
        TS_ASSIGN(auto view, look_at(directory_of(paths), name));
        if (view) views.push_back(std::move(*view));
    }
    return views;
}

Verdict check_no_views(const VolumePaths& paths) {
    TS_ASSIGN(const auto views, living_views(paths));
    if (views.empty()) return {};
    const auto& place = views.front().place;
    if (place.device == 0)
        return failure("a snapshot of {} is just being mounted: try again", paths.name);
    return failure("{} is mounted at {}: run `twinspool umount {}` first", place.source, place.path,
                   place.path);
}

bool wait_for_end(const LivingView& view, Nanoseconds timeout) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    pollfd ended{.fd = view.process.get(), .events = POLLIN, .revents = 0};
    while (std::chrono::steady_clock::now() < deadline)
        if (::poll(&ended, 1, kPollFor_ms) > 0) return true;
    return false;
}

}  // namespace twinspool
