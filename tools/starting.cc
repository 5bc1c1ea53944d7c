// SPDX-License-Identifier: Apache-2.0
#include "tools/starting.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tools/commands.h"
#include "tools/lock.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

// For a daemon whose start has failed: long enough to end by itself in order.
constexpr Nanoseconds kEndPatience = 20s;

}  // namespace

Outcome<VolumeConfig> load_volume(const VolumePaths& paths) {
    struct stat status {};
    if (::stat(paths.config().c_str(), &status) != 0 && errno == ENOENT)
        return bad_input("there is no volume {}: {} does not exist", paths.name, paths.config());
    return load_config(paths.config());
}

Starting::~Starting() {
    if (kept_ || !prepared_) return;
    site_.withdraw();
    if (daemon_ != 0) {
        ::kill(daemon_, SIGUSR1);  // end now, without a `down`
        if (!wait_for_daemon_end(paths_, kEndPatience)) ::kill(daemon_, SIGKILL);
        (void)::waitpid(daemon_, nullptr, 0);
    }
    site_.undo();
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
