// SPDX-License-Identifier: Apache-2.0
#include "tools/machine/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

namespace twinspool {
namespace {

constexpr int kReadyFd = 3;
constexpr const char* kSelf = "/proc/self/exe";

// In the child, between fork and exec: only calls that are safe there.
[[noreturn]] void become_daemon(const char* const* arguments, int log_fd, int ready_fd) {
    ::setsid();
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    const int null_fd = ::open("/dev/null", O_RDWR);
    ::dup2(null_fd, STDIN_FILENO);
    ::dup2(log_fd >= 0 ? log_fd : null_fd, STDOUT_FILENO);
    if (log_fd >= 0) ::dup2(log_fd, STDERR_FILENO);
    // Nothing else of the caller's: what it has open in the directories would keep them busy for
    // good.
    ::dup2(ready_fd, kReadyFd);
    ::fcntl(kReadyFd, F_SETFD, 0);
    ::close_range(kReadyFd + 1, ~0U, 0);
    if (::chdir("/") != 0) ::_exit(1);
    ::execv(kSelf, const_cast<char* const*>(arguments));
    ::_exit(1);
}

Outcome<LaunchedDaemon> launch(const VolumePaths& paths, LogPlace log,
                               std::vector<const char*> arguments) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return last_error("make a pipe");
    Fd reading{ends[0]};
    const Fd writing{ends[1]};
    Fd log_fd;
    if (log == LogPlace::kFile) {
        const auto path = paths.log();
        log_fd =
            Fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600)};
        if (!log_fd.valid()) return last_error("open the log {}", path);
    }
    const auto ready = std::to_string(kReadyFd);
    arguments.insert(arguments.end(), {"--ready-fd", ready.c_str(), nullptr});
    const pid_t pid = ::fork();
    if (pid < 0) return last_error("start twinspool {}", arguments[1]);
    if (pid == 0) become_daemon(arguments.data(), log_fd.get(), writing.get());
    return LaunchedDaemon{pid, std::move(reading)};
}

volatile std::sig_atomic_t interrupted = 0;

}  // namespace

LogPlace log_place() {
    // JOURNAL_STREAM is inherited by everything below a service: it counts only if standard error
    // is still that very stream.
    const char* stream = std::getenv("JOURNAL_STREAM");  // NOLINT(concurrency-mt-unsafe)
    struct stat status {};
    if (stream != nullptr && ::fstat(STDERR_FILENO, &status) == 0 &&
        fmt::format("{}:{}", status.st_dev, status.st_ino) == stream)
        return LogPlace::kStandardError;
    return LogPlace::kFile;
}

Outcome<LaunchedDaemon> launch_daemon(const VolumePaths& paths, LogPlace log) {
    return launch(paths, log, {"twinspool", kDaemonCommand, paths.name.c_str()});
}

Outcome<LaunchedDaemon> launch_standby(const VolumePaths& paths, LogPlace log,
                                       const std::string& listen) {
    return launch(
        paths, log,
        {"twinspool", kStandbyDaemonCommand, paths.name.c_str(), "--listen", listen.c_str()});
}

Outcome<LaunchedDaemon> launch_view(const VolumePaths& paths, LogPlace log,
                                    const std::string& point, const std::string& directory) {
    return launch(paths, log, {"twinspool", kViewCommand, point.c_str(), directory.c_str()});
}

Outcome<Json> DaemonReports::next() {
    for (;;) {
        if (const auto end = unread_.find('\n'); end != std::string::npos) {
            auto line = Json::parse(unread_.substr(0, end), nullptr, false);
            unread_.erase(0, end + 1);
            if (line.is_discarded() || !line.is_object()) continue;
            if (line.contains("error"))
                return Complaint{static_cast<ExitCode>(line.value("code", 1)),
                                 line.value("error", std::string{})};
            return line;
        }
        if (!signals_.wait_readable(reports_.get()))
            return failure("interrupted while the {} was starting", who_);
        char buffer[4096];
        const ssize_t got = ::read(reports_.get(), buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return failure("the {} ended before it was ready; its log is {}", who_, log_);
        unread_.append(buffer, static_cast<std::size_t>(got));
    }
}

HeldSignals::HeldSignals() {
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted = 1; };
    interrupted = 0;
    sigset_t held;
    ::sigemptyset(&held);
    for (const int signal : kHeld) ::sigaddset(&held, signal);
    ::sigprocmask(SIG_BLOCK, &held, &outside_);
    for (std::size_t i = 0; i < kHeld.size(); ++i) {
        ::sigaction(kHeld[i], nullptr, &before_[i]);
        if (before_[i].sa_handler != SIG_IGN) ::sigaction(kHeld[i], &action, nullptr);
    }
}

HeldSignals::~HeldSignals() {
    for (std::size_t i = 0; i < kHeld.size(); ++i) ::sigaction(kHeld[i], &before_[i], nullptr);
    ::sigprocmask(SIG_SETMASK, &outside_, nullptr);
}

bool HeldSignals::have_come() { return interrupted != 0; }

void HeldSignals::leave_to(void (*handler)(int)) {
    for (std::size_t i = 0; i < kHeld.size(); ++i)
        if (kHeld[i] != SIGHUP) before_[i].sa_handler = handler;
}

bool HeldSignals::wait_readable(int fd) const {
    pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
    while (::ppoll(&waiting, 1, nullptr, &outside_) < 0 && interrupted == 0) continue;
    return interrupted == 0;
}

void StartReport::failed(const Complaint& complaint) {
    tell({{"error", complaint.sentence}, {"code", static_cast<int>(complaint.code)}});
}

void StartReport::tell(const Json& line) {
    if (!pipe_.valid()) return;
    const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    // At most PIPE_BUF at once would be whole anyway; nobody else writes here.
    if (::write(pipe_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        pipe_.reset();
}

Result<pid_t> start_command(const char* const* arguments) { return start_command(arguments, Fd{}); }

Result<pid_t> start_command(const char* const* arguments, const Fd& output) {
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t none;
    ::sigemptyset(&none);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawn_file_actions_init(&actions);
    if (output.valid())
        for (const int fd : {STDOUT_FILENO, STDERR_FILENO})
            ::posix_spawn_file_actions_adddup2(&actions, output.get(), fd);
    pid_t pid = 0;
    const int code = ::posix_spawn(&pid, kSelf, &actions, &attributes,
                                   const_cast<char* const*>(arguments), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (code != 0) return make_error(code, "start twinspool {}", arguments[1]);
    return pid;
}

}  // namespace twinspool
