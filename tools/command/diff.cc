// SPDX-License-Identifier: Apache-2.0
// diff: what happened between two snapshots, or since one. The volume as it is now is looked at by
// a snapshot of its own, which is destroyed at the end; one that a killed diff has left goes with
// the next.
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "replicator/past/image_diff.h"
#include "replicator/past/printable.h"
#include "tools/command/commands.h"
#include "tools/command/open_past.h"
#include "tools/command/snapshot.h"
#include "tools/ground/control.h"
#include "tools/ground/lock.h"
#include "tools/ground/long_work.h"
#include "tools/ground/path_json.h"
#include "tools/ground/terminal.h"
#include "tools/machine/starting.h"
#include "tools/volume/point.h"

namespace twinspool {
namespace {

std::string_view word_for(const ImageChange& change) {
    switch (change.kind) {
        case ImageChange::Kind::kCreated:
            return "created";
        case ImageChange::Kind::kDeleted:
            return "deleted";
        case ImageChange::Kind::kRenamed:
            return "renamed";
        case ImageChange::Kind::kChanged:
            break;
    }
    return change.bytes == 0 ? "attributes" : "changed";
}

std::string line_of(const ImageChange& change) {
    const std::string path = printable(change.path);
    const std::string slash = S_ISDIR(change.mode) ? "/" : "";
    switch (change.kind) {
        case ImageChange::Kind::kCreated:
            return fmt::format("+ {}{}\n", path, slash);
        case ImageChange::Kind::kDeleted:
            return fmt::format("- {}{}\n", path, slash);
        case ImageChange::Kind::kRenamed:
            return fmt::format("R {}{} -> {}{}{}\n", printable(change.from), slash, path, slash,
                               change.bytes != 0   ? fmt::format(" ({} bytes)", change.bytes)
                               : change.attributes ? " (attributes)"
                                                   : "");
        case ImageChange::Kind::kChanged:
            break;
    }
    return change.bytes == 0 ? fmt::format("M {}{} (attributes)\n", path, slash)
                             : fmt::format("M {} ({} bytes)\n", path, change.bytes);
}

Json json_of(const std::vector<ImageChange>& changes) {
    Json all = Json::array();
    for (const auto& change : changes) {
        Json one;
        put_path(one, "path", change.path);
        one["change"] = word_for(change);
        if (!change.from.empty()) put_path(one, "from", change.from);
        one["type"] = word_for_type(change.mode);
        one["bytes"] = change.bytes;
        one["attributes"] = change.attributes;
        all.push_back(std::move(one));
    }
    return all;
}

// The volume as it is now.
class Now {
   public:
    static Outcome<std::unique_ptr<Now>> of(OpenPast& past) {
        std::unique_ptr<Now> now{new Now{past}};
        const auto& paths = past.paths();
        TS_ASSIGN(const auto daemon, serving_daemon(paths));
        if (!daemon) {
            TS_ASSIGN(now->image_, past.past().present());
            return now;
        }
        TS_ASSIGN(const auto lock, lock_volume(paths));
        now->clear_leavings();
        TS_ASSIGN(const auto taken,
                  take_snapshot(paths, fmt::format("{}{}", kTemporaryPrefix, ::getpid()),
                                {.hooks = SnapshotOptions::Hooks::kSkip}));
        now->temporary_ = Snapshot{.number = taken.lsn, .name = taken.name, .time = taken.time};
        TS_TRY(settle(paths));
        TS_ASSIGN(now->image_, past.image(*now->temporary_));
        return now;
    }
    ~Now() {
        image_.reset();
        if (!temporary_) return;
        const auto done = destroy_snapshot(past_.paths(), past_.config(), *temporary_);
        if (!done.ok())
            print_warning(fmt::format("the snapshot {}@{} of this comparison is left: {}",
                                      past_.paths().name, temporary_->name, done.error().sentence));
    }
    Now(const Now&) = delete;
    Now& operator=(const Now&) = delete;
    Image& image() { return *image_; }

   private:
    explicit Now(OpenPast& past) : past_(past) {}
    // Those that a running diff uses are held by it.
    void clear_leavings() const {
        for (const auto& snapshot : past_.snapshots())
            if (snapshot.name.starts_with(kTemporaryPrefix))
                (void)destroy_snapshot(past_.paths(), past_.config(), snapshot);
    }
    OpenPast& past_;
    std::optional<Snapshot> temporary_;
    std::unique_ptr<Image> image_;
};

Outcome<std::vector<ImageChange>> compare(Image& before, Image& after, const std::string& what) {
    LongWork work{fmt::format("comparing {}", what)};
    std::uint64_t objects = 0;
    ImageDiff comparison{before, after, [&](std::string_view path) {
                             work.show(++objects, 0, path);
                             return LongWork::go_on();
                         }};
    auto changes = comparison.run();
    if (changes.ok()) return std::move(changes).value();
    if (LongWork::interrupted())
        return failure("interrupted after {} objects; nothing was changed", objects);
    return changes.error();
}

}  // namespace

Outcome<ExitCode> run_diff(const DiffArguments& arguments) {
    TS_TRY(require_root());
    TS_ASSIGN(const auto point, parse_point(arguments.before, PathPart::kNone));
    std::optional<Point> other;
    if (arguments.after) {
        TS_ASSIGN(other, parse_point(*arguments.after, PathPart::kNone));
        if (other->volume != point.volume)
            return bad_input("{} and {} are different volumes: only snapshots of one are compared",
                             point.volume, other->volume);
    }
    TS_ASSIGN(auto past, OpenPast::of(point.volume));
    TS_ASSIGN(const auto before, past.find(point.snapshot));
    std::optional<Snapshot> after;
    if (other) {
        TS_ASSIGN(after, past.find(other->snapshot));
    }
    TS_ASSIGN(const auto old_image, past.image(before));
    std::vector<ImageChange> changes;
    if (after) {
        TS_ASSIGN(const auto new_image, past.image(*after));
        TS_ASSIGN(changes, compare(*old_image, *new_image, arguments.before));
    } else {
        TS_ASSIGN(const auto now, Now::of(past));
        TS_ASSIGN(changes, compare(*old_image, now->image(), arguments.before));
    }
    if (arguments.json) {
        print(json_of(changes).dump(2) + "\n");
        return ExitCode::kDone;
    }
    std::string text;
    for (const auto& change : changes) text += line_of(change);
    print(text);
    return ExitCode::kDone;
}

}  // namespace twinspool
