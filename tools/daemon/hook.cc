// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/hook.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "journal/base/fd.h"
#include "tools/ground/quantity.h"

namespace twinspool {
namespace {

constexpr std::size_t kShownBytes = std::size_t{64} << 10;

// Our environment, and what is set on top of it.
class Environment {
   public:
    explicit Environment(const std::vector<std::pair<std::string, std::string>>& added) {
        for (const auto& [name, value] : added) lines_.push_back(fmt::format("{}={}", name, value));
        for (char** each = environ; *each != nullptr; ++each)
            if (!is_added(*each, added)) pointers_.push_back(*each);
        for (std::string& line : lines_) pointers_.push_back(line.data());
        pointers_.push_back(nullptr);
    }
    [[nodiscard]] char* const* get() const { return pointers_.data(); }

   private:
    static bool is_added(std::string_view line,
                         const std::vector<std::pair<std::string, std::string>>& added) {
        return std::any_of(added.begin(), added.end(), [&](const auto& each) {
            return line.starts_with(each.first) && line.substr(each.first.size()).starts_with('=');
        });
    }
    std::vector<std::string> lines_;
    std::vector<char*> pointers_;
};

// What it prints goes into a file without a name, not a pipe: a process that it leaves behind may
// go on writing, and nobody waits for that one to let go of it.
Result<pid_t> start(const Hook& hook, int output) {
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_init(&actions);
    sigset_t none;
    sigset_t usual;
    ::sigemptyset(&none);
    ::sigemptyset(&usual);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) ::sigaddset(&usual, signal);
    ::posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &usual);
    ::posix_spawnattr_setpgroup(&attributes, 0);
    ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
    ::posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
    const Environment environment{hook.environment};
    const char* arguments[] = {"sh", "-c", hook.command.c_str(), nullptr};
    pid_t pid = 0;
    const int code = ::posix_spawn(&pid, "/bin/sh", &actions, &attributes,
                                   const_cast<char* const*>(arguments), environment.get());
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (code != 0) return make_error(code, "run /bin/sh for the command `{}`", hook.name);
    return pid;
}

// Readable when the process has ended or the time is over.
Result<Fd> watch(int process, int timer) {
    Fd both{::epoll_create1(EPOLL_CLOEXEC)};
    for (const int each : {process, timer}) {
        epoll_event event{.events = EPOLLIN, .data = {.fd = each}};
        if (!both.valid() || ::epoll_ctl(both.get(), EPOLL_CTL_ADD, each, &event) != 0)
            return last_error("watch a command");
    }
    return both;
}

Result<Fd> start_timer(Nanoseconds timeout) {
    constexpr std::int64_t kSecond = 1'000'000'000;
    Fd timer{::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
    const itimerspec after{
        .it_interval = {},
        .it_value = {.tv_sec = timeout.count() / kSecond, .tv_nsec = timeout.count() % kSecond}};
    if (!timer.valid() || ::timerfd_settime(timer.get(), 0, &after, nullptr) != 0)
        return last_error("set a timer");
    return timer;
}

void show(int output) {
    std::string text(kShownBytes, '\0');
    const ssize_t got = ::pread(output, text.data(), text.size(), 0);
    if (got > 0) (void)!::write(STDERR_FILENO, text.data(), static_cast<std::size_t>(got));
}

// Empty: it has ended by itself.
std::string wait_for_end(pid_t pid, const Hook& hook, const HeldSignals* killers) {
    // Not pidfd_open(3): glibc 2.36 declares it for C only.
    const Fd process{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
    const auto timer = start_timer(hook.timeout);
    if (!process.valid() || !timer.ok()) return "could not be watched, and was killed";
    const auto both = watch(process.get(), timer.value().get());
    if (!both.ok()) return "could not be watched, and was killed";
    pollfd ended_or_over{.fd = both.value().get(), .events = POLLIN, .revents = 0};
    if (killers == nullptr)
        while (::poll(&ended_or_over, 1, -1) < 0 && errno == EINTR) continue;
    else if (!killers->wait_readable(both.value().get()))
        return "was interrupted, and killed";
    siginfo_t ended{};
    if (::waitid(P_PIDFD, static_cast<id_t>(process.get()), &ended, WEXITED | WNOHANG | WNOWAIT) ==
            0 &&
        ended.si_pid == pid)
        return "";
    return fmt::format("did not end within {}, and was killed", spell_duration(hook.timeout));
}

// `killers`: signals that end it; none: it is left to finish.
Verdict run(const Hook& hook, const HeldSignals* killers) {
    const Fd output{::memfd_create("twinspool-hook", MFD_CLOEXEC)};
    if (!output.valid())
        return Complaint{last_error("keep what the command `{}` prints", hook.name)};
    const auto pid = start(hook, output.get());
    if (!pid.ok()) return pid.error();
    std::string trouble = wait_for_end(pid.value(), hook, killers);
    if (!trouble.empty()) ::kill(-pid.value(), SIGKILL);  // its group, while its number is taken
    int status = 0;
    while (::waitpid(pid.value(), &status, 0) < 0 && errno == EINTR) continue;
    show(output.get());
    if (trouble.empty() && WIFSIGNALED(status))
        trouble = fmt::format("was ended by signal {}", WTERMSIG(status));
    else if (trouble.empty() && WEXITSTATUS(status) != 0)
        trouble = fmt::format("ended with status {}", WEXITSTATUS(status));
    if (trouble.empty()) return {};
    return failure("the command `{}`{} {}", hook.name, hook.place, trouble);
}

}  // namespace

Verdict run_hook(const Hook& hook, const HeldSignals& signals, OnSignal on_signal) {
    return run(hook, on_signal == OnSignal::kLetFinish ? nullptr : &signals);
}

Verdict run_hook(const Hook& hook) { return run(hook, nullptr); }

}  // namespace twinspool
