// SPDX-License-Identifier: Apache-2.0
#include "tools/machine/starting.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <csignal>

#include <algorithm>
#include <chrono>
#include <thread>

#include "tools/ground/lock.h"
#include "tools/ground/terminal.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

// For a daemon whose start has failed: long enough to end by itself in order.
constexpr Nanoseconds kEndPatience = 20s;
// A daemon answers once it has recovered, which reads the whole journal.
constexpr Nanoseconds kAnswerPatience = 60s;
constexpr auto kAskAgain = 20ms;

}  // namespace

Outcome<std::optional<pid_t>> serving_daemon(const VolumePaths& paths) {
    const auto deadline = std::chrono::steady_clock::now() + kAnswerPatience;
    for (;;) {
        const auto pid = living_daemon(paths);
        if (!pid) return std::optional<pid_t>{};
        if (ask_daemon(paths.run(), {{"command", "status"}}).ok()) return pid;
        if (std::chrono::steady_clock::now() >= deadline)
            return failure("the daemon of {} (pid {}) lives, but does not answer; look at {}",
                           paths.name, *pid, paths.log());
        std::this_thread::sleep_for(kAskAgain);
    }
}

Starting::~Starting() {
    if (kept_ || !prepared_) return;
    const bool withdrawn = site_.withdraw();
    if (daemon_ != 0) {
        // It ends in order without a `down`; but not while it is mounted anywhere.
        ::kill(daemon_, withdrawn ? SIGUSR1 : SIGKILL);
        if (!wait_for_daemon_end(paths_, kEndPatience)) ::kill(daemon_, SIGKILL);
        (void)::waitpid(daemon_, nullptr, 0);
    }
    site_.undo();
}

Verdict Starting::keep_config(const VolumeConfig& config) {
    TS_TRY(make_private_directory(paths_.state()));
    TS_TRY(write_file_atomically(paths_.last_config(), render_config(paths_.name, config)));
    return {};
}

Verdict Starting::launch(LogPlace log) {
    signals_.emplace();
    prepared_ = true;
    TS_TRY(site_.prepare());
    TS_ASSIGN(auto launched, launch_daemon(paths_, log));
    daemon_ = launched.pid;
    reports_.emplace(paths_, *signals_, std::move(launched.reports));
    return {};
}

Outcome<Json> Starting::next_but_notes() {
    for (;;) {
        TS_ASSIGN(auto line, reports_->next());
        if (line.contains("note"))
            print(fmt::format("{}: {}\n", paths_.name, line.value("note", std::string{})));
        else if (line.contains("warning"))
            print_warning(line.value("warning", std::string{}));
        else
            return line;
    }
}

Outcome<std::string> Starting::wait_served() {
    TS_ASSIGN(const auto line, next_but_notes());
    if (!line.contains("served")) return failure("the daemon said something unexpected");
    return line.value("transport", std::string{});
}

Outcome<std::string> Starting::wait_standby() {
    TS_ASSIGN(const auto line, next_but_notes());
    return line.value("standby", std::string{});
}

}  // namespace twinspool
