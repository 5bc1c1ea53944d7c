// SPDX-License-Identifier: Apache-2.0
// restore: an image, or one object of it, to a new place or over the running volume.
#include "replicator/past/restore.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <ctime>

#include <algorithm>
#include <chrono>

#include "replicator/past/printable.h"
#include "tools/command/commands.h"
#include "tools/command/open_past.h"
#include "tools/command/snapshot.h"
#include "tools/ground/lock.h"
#include "tools/ground/long_work.h"
#include "tools/ground/terminal.h"
#include "tools/machine/mount_table.h"
#include "tools/machine/role.h"
#include "tools/machine/starting.h"
#include "tools/volume/known_volume.h"
#include "tools/volume/point.h"

namespace twinspool {
namespace {

constexpr std::size_t kNamedDifferences = 20;

// Each directory on the path takes a descriptor.
void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

std::string line_of(const RestoreChange& change) {
    const std::string path = printable(change.path);
    switch (change.kind) {
        case RestoreChange::Kind::kMade:
            return fmt::format("+ {}\n", path);
        case RestoreChange::Kind::kRemoved:
            return fmt::format("- {}\n", path);
        case RestoreChange::Kind::kChanged:
            break;
    }
    return fmt::format("M {} ({} bytes)\n", path, change.bytes);
}

// What is restored, and from where.
struct Source {
    OpenPast past;
    Snapshot snapshot;
    std::unique_ptr<Image> image;
    std::optional<ImagePart> part;
    std::string text;  // as it was written
    [[nodiscard]] std::string volume() const { return past.paths().name; }
};

Outcome<Source> open_source(const std::string& text) {
    TS_ASSIGN(const auto point, parse_point(text, PathPart::kOptional));
    TS_ASSIGN(auto past, OpenPast::of(point.volume));
    TS_ASSIGN(auto snapshot, past.find(point.snapshot));
    TS_ASSIGN(auto image, past.image(snapshot));
    std::optional<ImagePart> part;
    if (!point.path.empty()) {
        TS_ASSIGN(part, find_part(*image, point.path));
        if (!part)
            return bad_input("there is no {} in {}@{}", printable(point.path), point.volume,
                             snapshot.name);
    }
    return Source{.past = std::move(past),
                  .snapshot = std::move(snapshot),
                  .image = std::move(image),
                  .part = std::move(part),
                  .text = text};
}

// --- new places

std::string without_slashes(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path;
}

// DEST, or DEST/<its name> where DEST is a directory; a whole image goes into an empty one, too.
Outcome<NewPlace> new_place(const Source& source, const std::string& destination) {
    const std::string target = without_slashes(destination);
    if (target.empty()) return bad_input("the destination is empty: give a path");
    struct stat status {};
    if (::lstat(target.c_str(), &status) == 0) {
        const bool directory = ::stat(target.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
        if (!directory)
            return bad_input("{} exists already; nothing is overwritten", printable(target));
        TS_ASSIGN(auto real, real_path(target));
        return NewPlace{.directory = std::move(real),
                        .name = source.part ? std::string{source.part->name()} : ""};
    }
    const auto slash = target.rfind('/');
    std::string name = slash == std::string::npos ? target : target.substr(slash + 1);
    if (name == "." || name == "..") return bad_input("{} is not there", printable(target));
    const std::string parent = slash == std::string::npos ? "." : target.substr(0, slash + 1);
    auto real = real_path(parent);
    if (!real.ok() || ::stat(real->c_str(), &status) != 0 || !S_ISDIR(status.st_mode))
        return bad_input("the directory of {} is not there; make it first", printable(target));
    return NewPlace{.directory = std::move(*real), .name = std::move(name)};
}

Verdict check_new_place(const Source& source, const NewPlace& place) {
    const auto& config = source.past.config();
    const auto& base = source.past.paths().base;
    std::vector<std::string> ours{base.etc, base.lib, base.run};
    const auto add_stores = [&](const VolumeConfig& volume) {
        for (const auto& standby : volume.standbys)
            if (is_store_here(standby, volume.id)) ours.push_back(standby.path);
    };
    for (const auto& name : volume_names(base)) {
        const auto other = load_running_volume(VolumePaths::of(name));
        if (!other.ok()) continue;  // it is somebody else's business that it is broken
        add_stores(other.value());
    }
    add_stores(config);
    for (const auto& each : ours) {
        const auto real = real_path(each);
        if (real.ok() && is_within(place.directory, real.value()))
            return bad_input("{} is inside {}, which is Twinspool's own: restore to another place",
                             printable(place.directory), real.value());
    }
    if (source.part) return {};
    for (const auto& directory : config.directories)
        if (is_within(place.directory, directory.path))
            return bad_input(
                "{} is inside the volume {}: a whole image does not go into its own volume; give "
                "another place, or --in-place",
                printable(place.directory), source.volume());
    return {};
}

// --- in place

Verdict check_covered(const Source& source) {
    const auto& paths = source.past.paths();
    TS_ASSIGN(const auto daemon, serving_daemon(paths));
    if (!daemon)
        return failure(
            "the volume {} is down, and a restore in place goes through it: run `twinspool up {}` "
            "first, or restore to a new place",
            paths.name, paths.name);
    TS_ASSIGN(const auto table, MountTable::of_self());
    for (const auto& root : source.image->roots()) {
        if (source.part && source.part->root != root.path) continue;
        const auto* mount = table.covering(root.path);
        if (mount == nullptr || mount->type != kOverlayType || mount->point != root.path)
            return failure("{} is not covered by the volume {} here: `twinspool up {}` mends that",
                           root.path, paths.name, paths.name);
        const std::string& target = source.part ? source.part->path : root.path;
        for (const auto& entry : table.entries())
            if (entry.point != root.path && is_within(entry.point, target))
                return bad_input(
                    "something else is mounted on {}, inside what is to be restored: unmount it "
                    "first",
                    printable(entry.point));
    }
    return {};
}

// Where the object stood. A missing directory cannot be made on the way: it would be a mixture.
Verdict check_parent(const Source& source) {
    if (!source.part || source.part->is_root()) return {};
    std::string missing;
    for (std::string path = source.part->path;;) {
        path.resize(path.rfind('/'));
        if (path.size() <= source.part->root.size()) break;
        struct stat status {};
        if (::lstat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) missing = path;
    }
    if (missing.empty()) return {};
    return bad_input("there is no directory {} any more: restore that one, or to a new place",
                     printable(missing));
}

// One restore in place at a time: two would undo each other's work.
Outcome<Fd> lock_restore(const VolumePaths& paths) {
    const std::string file = paths.run() + "/restore.lock";
    Fd fd{::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (!fd.valid()) return last_error("open {}", file);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
    if (errno != EWOULDBLOCK) return last_error("lock {}", file);
    return failure("another restore in place of {} is running", paths.name);
}

std::string unused_name(const OpenPast& past) {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    char time[32];
    (void)::gmtime_r(&now, &parts);
    (void)std::strftime(time, sizeof time, "%Y%m%dT%H%M%SZ", &parts);
    const std::string name = fmt::format("before-restore-{}", time);
    const auto is_used = [&](const std::string& wanted) {
        return std::any_of(past.snapshots().begin(), past.snapshots().end(),
                           [&](const Snapshot& each) { return each.name == wanted; });
    };
    std::string found = name;
    for (int i = 2; is_used(found); ++i) found = fmt::format("{}-{}", name, i);
    return found;
}

// So that the restore can be undone. Without the hooks: the services should be stopped.
Outcome<std::string> take_before(const Source& source) {
    const auto& paths = source.past.paths();
    TS_ASSIGN(const auto lock, lock_volume(paths));
    const std::string name = unused_name(source.past);
    TS_TRY(take_snapshot(paths, name, {.hooks = SnapshotOptions::Hooks::kSkip}));
    const std::string path = source.part ? ":" + source.part->path : "";
    print(fmt::format(
        "{}@{}: taken; `twinspool restore {}@{}{} --in-place` brings back what is there now\n",
        paths.name, name, paths.name, name, printable(path)));
    return name;
}

// --- both

struct Done {
    RestoreReport report;
    std::uint64_t planned_bytes = 0;
};

Outcome<Done> restore(Source& source, const RestoreArguments& arguments, const NewPlace& place) {
    LongWork work{fmt::format("restoring {}", source.text)};
    Done done;
    RestoreCounters reached;
    std::string last;
    Restorer restorer{*source.image,
                      {.acting = arguments.dry_run ? Acting::kOnlySay : Acting::kAct,
                       .on_change =
                           [&](const RestoreChange& change) {
                               done.planned_bytes += change.bytes;
                               if (!arguments.dry_run) return;
                               work.clear();
                               print(line_of(change));
                           },
                       .on_progress =
                           [&](const RestoreCounters& counters, const std::string& path) {
                               reached = counters;
                               last = path;
                               work.show(counters.objects, counters.bytes, path);
                           },
                       .interrupted = LongWork::interrupted}};
    auto result = arguments.in_place ? restorer.in_place(source.part)
                                     : restorer.to_new_place(source.part, place);
    if (result.ok()) {
        done.report = std::move(*result);
        return done;
    }
    work.clear();
    const auto& error = result.error();
    std::string again;
    if (arguments.in_place && !arguments.dry_run)
        again = "; what is done stays, and the same command does the rest";
    else if (!arguments.dry_run)
        again = fmt::format("; {} has what there is so far, and the same command goes on with it",
                            printable(unfinished_place(place)));
    if (error.code == ECANCELED)
        return failure("interrupted after {} objects and {} B, at {}{}", reached.objects,
                       reached.bytes, printable(last), again);
    if (error.code == EEXIST || error.code == ENOTEMPTY)
        return bad_input("could not {}; nothing is overwritten", error.text());
    return failure("could not {}{}", error.text(), again);
}

Outcome<ExitCode> say_done(const Source& source, const RestoreArguments& arguments,
                           const NewPlace& place, const Done& done) {
    const auto& counters = done.report.counters;
    if (arguments.dry_run) {
        print(fmt::format(
            "{} would be made, {} changed, {} removed, {} B written; nothing was changed\n",
            counters.made, counters.changed, counters.removed, done.planned_bytes));
        return ExitCode::kDone;
    }
    for (const auto& warning : done.report.warnings) print_warning(warning);
    const auto& differences = done.report.differences;
    for (std::size_t i = 0; i < std::min(differences.size(), kNamedDifferences); ++i)
        print_error(differences[i]);
    if (!differences.empty())
        return failure("{} differences from {} after the restore{}", differences.size(),
                       source.text,
                       done.report.left_in.empty()
                           ? "; the same command does what is left"
                           : "; what was restored is in " + printable(done.report.left_in));
    if (arguments.in_place)
        print(fmt::format("{}: in place: {} made, {} changed, {} removed, {} B written\n",
                          source.text, counters.made, counters.changed, counters.removed,
                          counters.bytes));
    else
        print(fmt::format(
            "{}: {} objects, {} B in {}, read back\n", source.text, counters.objects,
            counters.bytes,
            printable(place.name.empty() ? place.directory : place.directory + "/" + place.name)));
    return ExitCode::kDone;
}

}  // namespace

Outcome<ExitCode> run_restore(const RestoreArguments& arguments) {
    TS_TRY(require_root());
    TS_ASSIGN(const auto point, parse_point(arguments.point, PathPart::kOptional));
    if (arguments.in_place == arguments.destination.has_value())
        return bad_input("give either a destination or --in-place");
    if (arguments.in_place)
        TS_TRY(check_not_standby(VolumePaths::of(point.volume), "a restore in place"));
    raise_descriptor_limit();
    TS_ASSIGN(auto source, open_source(arguments.point));
    NewPlace place;
    std::optional<Fd> lock;
    if (arguments.in_place) {
        TS_TRY(check_covered(source));
        TS_TRY(check_parent(source));
        if (!arguments.dry_run) {
            TS_ASSIGN(lock, lock_restore(source.past.paths()));
            TS_TRY(take_before(source));
        }
    } else {
        TS_ASSIGN(place, new_place(source, *arguments.destination));
        TS_TRY(check_new_place(source, place));
        place.token =
            fmt::format("{:x} {} {}", source.past.config().id, source.snapshot.number.value,
                        source.part ? source.part->path : "");
    }
    TS_ASSIGN(const auto done, restore(source, arguments, place));
    return say_done(source, arguments, place, done);
}

}  // namespace twinspool
