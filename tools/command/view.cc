// SPDX-License-Identifier: Apache-2.0
// mount: shows a snapshot below a directory. The command looks whether that can be, and starts the
// process of the view, which holds the snapshot until its mount is gone.
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <mutex>
#include <thread>

#include "fuse/kernel/mount.h"
#include "fuse/view/view_fs.h"
#include "tools/command/commands.h"
#include "tools/command/open_past.h"
#include "tools/ground/paths.h"
#include "tools/ground/terminal.h"
#include "tools/machine/launch.h"
#include "tools/machine/log.h"
#include "tools/machine/mount_table.h"
#include "tools/machine/role.h"
#include "tools/machine/views.h"
#include "tools/volume/config.h"
#include "tools/volume/known_volume.h"
#include "tools/volume/point.h"

namespace twinspool {
namespace {

// Where to mount; two commands at once do not get the same place.
struct Place {
    std::string path;
    Fd lock;
};

Outcome<std::string> path_of(const std::string& directory) {
    auto path = real_path(directory);
    if (path.ok()) return std::move(path).value();
    if (path.error().code == ENOTCONN)
        return bad_input(
            "the process of what is mounted at {} was killed: run `twinspool umount` there first",
            directory);
    return bad_input("could not {}", path.error().text());
}

// A view there would keep a volume's overlay busy, or be in the standby's way.
Verdict check_outside_volumes(const std::string& path) {
    for (const auto& name : volume_names(BasePaths::from_environment())) {
        const auto config = load_running_volume(VolumePaths::of(name));
        if (!config.ok()) continue;
        for (const auto& directory : config.value().directories)
            if (is_within(path, directory.path))
                return bad_input("{} is in {}, a directory of the volume {}: mount elsewhere", path,
                                 directory.path, name);
        for (const auto& standby : config.value().standbys)
            if (is_store_here(standby, config.value().id) && is_within(path, standby.path))
                return bad_input("{} is in {}, the standby of the volume {}: mount elsewhere", path,
                                 standby.path, name);
    }
    return {};
}

// Nothing of ours is there or around it.
Verdict check_mounts(const std::string& path) {
    TS_ASSIGN(const auto table, MountTable::of_self());
    for (const auto* entry : table.stack_at(path))
        if (entry->type == kOverlayType || entry->type == kViewType)
            return bad_input("{} is mounted at {} already: run `twinspool {}` first", entry->source,
                             path, entry->type == kViewType ? "umount" : "down");
    const auto* around = table.covering(path);
    if (around != nullptr && (around->type == kOverlayType || around->type == kViewType))
        return bad_input("{} is in what Twinspool has mounted at {}: mount elsewhere", path,
                         around->point);
    return {};
}

Outcome<Place> claim_place(const std::string& directory) {
    TS_ASSIGN(auto path, path_of(directory));
    TS_TRY(check_mounts(path));  // a dead one cannot be opened
    Fd lock{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
    if (!lock.valid() && errno == ENOTDIR) return bad_input("{} is not a directory", path);
    if (!lock.valid()) return last_error("open {}", path);
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
        return failure("{} is locked: another `twinspool mount` may be at work there", path);
    TS_TRY(check_mounts(path));
    TS_TRY(check_outside_volumes(path));
    TS_ASSIGN(const auto names, entries_of(path));
    if (!names.empty())
        return bad_input("{} is not empty: its {} entries would be hidden; give an empty directory",
                         path, names.size());
    return Place{std::move(path), std::move(lock)};
}

// Passes on what the view says, until it is there; what it shows.
Outcome<std::string> wait_served(DaemonReports& reports) {
    for (;;) {
        TS_ASSIGN(const auto line, reports.next());
        if (line.contains("warning")) print_warning(line.value("warning", std::string{}));
        if (line.contains("served")) return line.value("source", std::string{});
    }
}

// SIGTERM and SIGINT take the view away from its place; before it is there they end the process.
// Begun before any other thread, so that all have them blocked but its own.
class Signals {
   public:
    Signals() {
        ::sigemptyset(&set_);
        for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) ::sigaddset(&set_, signal);
        ::pthread_sigmask(SIG_BLOCK, &set_, nullptr);
        ::signal(SIGPIPE, SIG_IGN);
        ::signal(SIGHUP, SIG_IGN);
        thread_ = std::thread{[this] { listen(); }};
    }
    ~Signals() {
        ::pthread_kill(thread_.native_handle(), SIGUSR1);
        thread_.join();
    }
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;

    // A signal that comes meanwhile counts when it is mounted.
    Result<std::unique_ptr<View>> mount(const ViewOptions& options, Image& image) {
        const std::lock_guard lock{mutex_};
        auto view = View::mount(options, image);
        path_ = options.mountpoint;
        device_ = view.ok() ? view.value()->device() : 0;
        begun_ = true;
        return view;
    }

   private:
    void listen() {
        for (int signal = 0; ::sigwait(&set_, &signal) == 0 && signal != SIGUSR1;) {
            const std::lock_guard lock{mutex_};
            if (!begun_) ::_exit(static_cast<int>(ExitCode::kFailed));
            spdlog::info("signal {}: leaving {}", signal, path_);
            if (const auto gone = detach_fuse(path_, device_); !gone.ok())
                spdlog::error("could not {}", gone.error().text());
        }
    }
    sigset_t set_{};
    std::mutex mutex_;  // protects what follows
    bool begun_ = false;
    std::string path_;
    dev_t device_ = 0;
    std::thread thread_;
};

// An image may have a file open for each reader.
void allow_many_files() {
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
}

// Declared first is gone last: the record says that the process is there until nothing else is.
Verdict show(const Point& point, const std::string& directory, StartReport& report) {
    Signals signals;
    TS_ASSIGN(auto record, ViewRecord::begin(VolumePaths::of(point.volume)));
    TS_ASSIGN(auto past, OpenPast::as_it_stands(point.volume));
    TS_ASSIGN(const auto snapshot, past.find(point.snapshot));
    const auto source = point.volume + "@" + snapshot.name;
    TS_ASSIGN(const auto image, past.image(snapshot));
    if (snapshot.incomplete)
        report.warning(fmt::format(
            "{} is incomplete: it was taken before the standby had been told everything", source));
    TS_ASSIGN(
        const auto view,
        signals.mount({.mountpoint = directory, .source = source, .disk = past.store()}, *image));
    TS_TRY(record.tell({.device = view->device(), .source = source, .path = directory}));
    spdlog::info("{} is mounted at {}", source, directory);
    report.tell({{"served", true}, {"source", source}});
    report.done();
    view->wait();
    spdlog::info("{} is not mounted at {} any more", source, directory);
    return {};
}

}  // namespace

Outcome<ExitCode> run_mount(const MountArguments& arguments) {
    TS_TRY(require_root());
    TS_ASSIGN(const auto point, parse_point(arguments.point, PathPart::kNone));
    const auto paths = VolumePaths::of(point.volume);
    TS_TRY(load_running_volume(paths));
    TS_ASSIGN(const auto place, claim_place(arguments.directory));
    if (const auto settled = settle(paths); !settled.ok()) print_warning(settled.error().sentence);
    TS_TRY(make_private_directory(paths.state()));
    const HeldSignals signals;
    TS_ASSIGN(auto process, launch_view(paths, log_place(), arguments.point, place.path));
    DaemonReports reports{paths, signals, std::move(process.reports), "view"};
    const auto served = wait_served(reports);
    if (!served.ok()) {
        // It ends by itself, unless it was this command that was told to.
        if (HeldSignals::have_come()) ::kill(process.pid, SIGTERM);
        ::waitpid(process.pid, nullptr, 0);
        return served.error();
    }
    print(fmt::format("{} is mounted at {}\n", served.value(), place.path));
    return ExitCode::kDone;
}

Outcome<ExitCode> run_view(const ViewArguments& arguments) {
    ::fcntl(arguments.ready_fd, F_SETFD, FD_CLOEXEC);
    StartReport report(Fd{arguments.ready_fd});
    ::umask(0077);
    allow_many_files();
    TS_ASSIGN(const auto point, parse_point(arguments.point, PathPart::kNone));
    begin_log(point.volume, "view");
    const auto shown = show(point, arguments.directory, report);
    if (shown.ok()) return ExitCode::kDone;
    spdlog::error(shown.error().sentence);
    report.failed(shown.error());
    return shown.error();
}

}  // namespace twinspool
