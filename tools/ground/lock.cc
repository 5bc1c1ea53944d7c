// SPDX-License-Identifier: Apache-2.0
#include "tools/ground/lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <thread>

namespace twinspool {
namespace {

using namespace std::chrono_literals;

constexpr auto kLookAgain = 10ms;
constexpr auto kSayWaiting = 1s;

Result<Fd> open_lock(const std::string& path) {
    Fd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (!fd.valid()) return last_error("open {}", path);
    return fd;
}

// Whether this is still the file at that path, and not one that was removed with its volume.
bool is_at(int fd, const std::string& path) {
    struct stat ours {};
    struct stat there {};
    return ::fstat(fd, &ours) == 0 && ::lstat(path.c_str(), &there) == 0 &&
           ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

Verdict wait_for_lock(int fd, const VolumePaths& paths) {
    const auto begin = std::chrono::steady_clock::now();
    for (bool said = false; ::flock(fd, LOCK_EX | LOCK_NB) != 0;
         std::this_thread::sleep_for(kLookAgain)) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return Complaint{last_error("lock {}", paths.lock())};
        if (said || std::chrono::steady_clock::now() - begin < kSayWaiting) continue;
        (void)std::fprintf(stderr, "twinspool: another command works on the volume %s; waiting\n",
                           paths.name.c_str());
        said = true;
    }
    return {};
}

}  // namespace

Outcome<Fd> lock_volume(const VolumePaths& paths) {
    for (;;) {
        TS_TRY(make_private_directory(paths.run()));
        auto fd = open_lock(paths.lock());
        if (fd.ok()) {
            TS_TRY(wait_for_lock(fd->get(), paths));
            if (is_at(fd->get(), paths.lock())) return std::move(fd).value();
        } else if (fd.error().code != ENOENT) {  // the directory may just have been removed
            return fd.error();
        }
    }
}

Outcome<Fd> lock_daemon(const VolumePaths& paths) {
    TS_ASSIGN(auto fd, open_lock(paths.pid()));
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
        return failure("a daemon of the volume {} runs already", paths.name);
    const auto text = fmt::format("{}\n", ::getpid());
    if (::ftruncate(fd.get(), 0) != 0 ||
        ::pwrite(fd.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
        return last_error("write {}", paths.pid());
    return fd;
}

std::optional<pid_t> living_daemon(const VolumePaths& paths) {
    const Fd fd{::open(paths.pid().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
    if (!fd.valid()) return std::nullopt;
    if (::flock(fd.get(), LOCK_SH | LOCK_NB) == 0) return std::nullopt;
    char text[32] = {};
    pid_t pid = 0;
    const ssize_t got = ::pread(fd.get(), text, sizeof text - 1, 0);
    if (got > 0) std::from_chars(text, text + got, pid);
    return pid;
}

bool wait_for_daemon_end(const VolumePaths& paths, Nanoseconds timeout) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    while (living_daemon(paths)) {
        if (std::chrono::steady_clock::now() >= deadline) return false;
        std::this_thread::sleep_for(kLookAgain);
    }
    return true;
}

}  // namespace twinspool
