// SPDX-License-Identifier: Apache-2.0
// create: a volume begins with its configuration.
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/command/commands.h"
#include "tools/ground/lock.h"
#include "tools/ground/paths.h"
#include "tools/ground/terminal.h"
#include "tools/machine/admission.h"
#include "tools/volume/config.h"
#include "tools/volume/secret.h"

namespace twinspool {
namespace {

bool exists(const std::string& path) {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0;
}

Outcome<std::uint64_t> random_id() {
    std::uint64_t id = 0;
    while (id == 0)
        if (::getrandom(&id, sizeof id, 0) != sizeof id) return last_error("get a random number");
    return id;
}

Verdict check_is_new(const VolumePaths& paths) {
    if (exists(paths.config()))
        return bad_input("a volume {} exists already: {}", paths.name, paths.config());
    if (exists(paths.state()))
        return bad_input(
            "there is a state directory of an earlier volume {}, but no configuration: "
            "look at {}, and remove it",
            paths.name, paths.state());
    return {};
}

// Changes nothing.
Outcome<VolumeConfig> plan(const VolumePaths& paths, const CreateArguments& arguments) {
    TS_ASSIGN(const auto mode, parse_mode(arguments.mode));
    TS_ASSIGN(auto config, admit(paths, {arguments.directories, arguments.standbys}));
    config.mode = mode;
    TS_ASSIGN(config.id, random_id());
    if (const auto again = parse_config(render_config(paths.name, config), paths.config());
        !again.ok())
        return bad_input("a path cannot be written in the configuration, which is UTF-8: {}",
                         again.error().sentence);
    return config;
}

Verdict begin_standby(const std::string& standby, const std::string& name, std::uint64_t id) {
    if (::mkdir(standby.c_str(), 0700) != 0 && errno != EEXIST)
        return Complaint{last_error("make the standby directory {}", standby)};
    // It holds what the directories hold, without what protects them above.
    if (::chmod(standby.c_str(), 0700) != 0)
        return Complaint{last_error("make the standby directory {} private", standby)};
    TS_TRY(mark_standby(standby, name, id));
    return {};
}

// Undoes what was begun, unless the volume came into being.
class Begun {
   public:
    explicit Begun(const VolumePaths& paths) : paths_(paths) {}
    ~Begun() {
        if (kept_) return;
        for (const auto& standby : standbys_) (void)release_standby(standby);
        if (secret_) (void)::unlink(paths_.secret().c_str());
    }
    Begun(const Begun&) = delete;
    Begun& operator=(const Begun&) = delete;
    Verdict standby(const std::string& path, std::uint64_t id) {
        standbys_.push_back(path);
        return begin_standby(path, paths_.name, id);
    }
    // A secret without a configuration is of a `create` that was killed.
    Verdict secret() {
        secret_ = true;
        return write_secret(paths_);
    }
    void keep() { kept_ = true; }

   private:
    const VolumePaths& paths_;
    std::vector<std::string> standbys_;
    bool secret_ = false;
    bool kept_ = false;
};

// The configuration comes last: with it the volume exists, without it nothing does.
Verdict begin_volume(const VolumePaths& paths, const VolumeConfig& config) {
    TS_TRY(make_private_directory(paths.base.etc));
    Begun begun(paths);
    for (const auto& standby : config.standbys)
        if (standby.is_local()) TS_TRY(begun.standby(standby.path, config.id));
    TS_TRY(begun.secret());
    const auto written = write_new_file(paths.config(), render_config(paths.name, config));
    if (!written.ok()) {
        TS_TRY(check_is_new(paths));  // written by hand in this moment
        return Complaint{written.error()};
    }
    begun.keep();
    return {};
}

// What is to be done next, on which host.
std::string next_steps(const VolumePaths& paths, const VolumeConfig& config) {
    std::string text;
    for (const auto& standby : config.standbys) {
        if (standby.is_local()) continue;
        const bool v6 = standby.host.find(':') != std::string::npos;
        text += fmt::format(
            "next, for the standby {}: ssh {} mkdir -p -m 700 {}\n"
            "  scp -p {} {} {}:{}/\n"
            "  and on {}: twinspool standby {}\n",
            standby.host, standby.host, paths.base.etc, paths.config(), paths.secret(),
            v6 ? fmt::format("[{}]", standby.host) : standby.host, paths.base.etc, standby.host,
            paths.name);
    }
    return text +
           fmt::format("{}: twinspool up {}\n", text.empty() ? "next" : "then here", paths.name);
}

}  // namespace

Outcome<ExitCode> run_create(const CreateArguments& arguments) {
    TS_TRY(require_root());
    TS_TRY(check_name(arguments.volume));
    const auto paths = VolumePaths::of(arguments.volume);
    TS_TRY(check_is_new(paths));
    // What is refused makes nothing, not even the lock; but if there is one, another command may
    // just be changing what was looked at.
    if (const auto early = plan(paths, arguments); !early.ok() && !exists(paths.lock()))
        return early.error();
    TS_ASSIGN(const auto lock, lock_volume(paths));
    TS_TRY(check_is_new(paths));
    TS_ASSIGN(const auto config, plan(paths, arguments));
    TS_TRY(begin_volume(paths, config));
    print(fmt::format("{}: created; its configuration is {}\n{}", paths.name, paths.config(),
                      next_steps(paths, config)));
    return ExitCode::kDone;
}

}  // namespace twinspool
