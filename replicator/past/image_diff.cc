// SPDX-License-Identifier: Apache-2.0
#include "replicator/past/image_diff.h"

#include <sys/stat.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "replicator/past/printable.h"

namespace twinspool {
namespace {

constexpr std::size_t kMaxDepth = 2048;  // deeper ones no absolute path leads to

Result<bool> has(Image& image, ObjectId object) {
    const auto attributes = image.attributes(object);
    if (attributes.ok()) return true;
    if (attributes.error().code == ESTALE) return false;
    return attributes.error();
}

Result<ImageChange> change_of(Image& image, ImageChange::Kind kind, const std::string& path,
                              ObjectId object) {
    TS_ASSIGN(const auto attributes, image.attributes(object));
    return ImageChange{.kind = kind,
                       .path = path,
                       .mode = attributes.mode,
                       .bytes = S_ISREG(attributes.mode) ? attributes.size : 0};
}

Status named(const Status& status, std::string_view path) {
    if (status.ok()) return status;
    return make_error(status.error().code, "compare {}: {}", printable(path), status.error().doing);
}

}  // namespace

Result<ObjectDifference> difference_of(Image& before, ObjectId a, Image& after, ObjectId b,
                                       const ChunkDone& done) {
    ObjectDifference difference;
    TS_ASSIGN(const auto old_attributes, before.attributes(a));
    TS_ASSIGN(const auto new_attributes, after.attributes(b));
    TS_ASSIGN(const auto old_xattrs, before.xattrs(a));
    TS_ASSIGN(const auto new_xattrs, after.xattrs(b));
    difference.mtime = old_attributes.mtime != new_attributes.mtime;
    difference.attributes =
        old_attributes.mode != new_attributes.mode || old_attributes.uid != new_attributes.uid ||
        old_attributes.gid != new_attributes.gid ||
        old_attributes.device != new_attributes.device || old_xattrs != new_xattrs;
    if (S_ISLNK(new_attributes.mode)) {
        TS_ASSIGN(const auto old_target, before.target(a));
        TS_ASSIGN(const auto new_target, after.target(b));
        difference.attributes = difference.attributes || old_target != new_target;
    }
    if (S_ISREG(new_attributes.mode)) {
        ImageContent old_content{before, a, old_attributes.size};
        ImageContent new_content{after, b, new_attributes.size};
        TS_ASSIGN(difference.bytes,
                  count_differing(old_content, new_content, CountWhat::kAll, done));
    }
    return difference;
}

ImageDiff::ImageDiff(Image& before, Image& after, GoOn go_on)
    : before_(before), after_(after), go_on_(std::move(go_on)) {}

Result<std::vector<ImageChange>> ImageDiff::run() {
    std::map<std::string, ObjectId> roots;
    for (const auto& root : before_.roots()) roots.emplace(root.path, root.object);
    for (const auto& root : after_.roots()) {
        const auto old = roots.find(root.path);
        if (old == roots.end() || old->second != root.object) {
            come_.push_back({.path = root.path, .object = root.object});
            continue;
        }
        roots.erase(old);
        TS_TRY(same_object(root.object, root.path, root.path, Arrival::kNone));
    }
    for (const auto& [path, object] : roots) gone_.push_back({.path = path, .object = object});
    // What has moved is compared where it is, which may show more that is gone or has come.
    while (!gone_.empty() || !come_.empty()) {
        TS_TRY(sort_out_gone());
        TS_TRY(sort_out_come());
        TS_TRY(pair_moved());
    }
    TS_TRY(add_created());
    TS_TRY(add_deleted());
    std::sort(changes_.begin(), changes_.end(), [](const auto& a, const auto& b) {
        return std::tie(a.path, a.kind) < std::tie(b.path, b.kind);
    });
    return std::move(changes_);
}

// One object that both have, by two paths (or the same).
Status ImageDiff::same_object(ObjectId object, const std::string& before, const std::string& after,
                              Arrival arrival) {
    TS_TRY(go_on_(after));
    const auto work = [&]() -> Status {
        TS_ASSIGN(const auto old_version, before_.version(object));
        TS_ASSIGN(const auto new_version, after_.version(object));
        TS_ASSIGN(const auto now, after_.attributes(object));
        if (old_version != new_version || arrival == Arrival::kRenamed)
            TS_TRY(changed_object(object, before, after, arrival, now));
        return {};
    };
    TS_TRY(named(work(), after));
    TS_ASSIGN(const auto now, after_.attributes(object));
    return S_ISDIR(now.mode) ? directories(object, before, after) : Status{};
}

Status ImageDiff::changed_object(ObjectId object, const std::string& before,
                                 const std::string& after, Arrival arrival,
                                 const ImageAttributes& now) {
    TS_ASSIGN(const auto difference, difference_of(before_, object, after_, object,
                                                   [&](std::uint64_t) { return go_on_(after); }));
    // The mtime of a directory says that names have come or gone, which are told of themselves.
    const bool mtime_counts = difference.mtime && !S_ISDIR(now.mode);
    const bool attributes = difference.attributes || mtime_counts;
    const bool renamed = arrival == Arrival::kRenamed;
    if (!renamed && !attributes && difference.bytes == 0) return {};
    changes_.push_back({.kind = renamed ? ImageChange::Kind::kRenamed : ImageChange::Kind::kChanged,
                        .path = after,
                        .from = renamed ? before : "",
                        .mode = now.mode,
                        .bytes = difference.bytes,
                        .attributes = attributes});
    return {};
}

Status ImageDiff::directories(ObjectId object, const std::string& before,
                              const std::string& after) {
    if (depth_ >= kMaxDepth)
        return make_error(ENAMETOOLONG, "compare what is below {}", printable(after));
    TS_ASSIGN(const auto old_version, before_.version(object));
    TS_ASSIGN(const auto new_version, after_.version(object));
    TS_ASSIGN(const auto new_entries, after_.list(object));
    std::vector<ImageEntry> read;
    if (old_version != new_version) {
        TS_ASSIGN(read, before_.list(object));
    }
    const auto& old_entries = old_version != new_version ? read : new_entries;
    ++depth_;
    auto old = old_entries.begin();
    for (const auto& entry : new_entries) {
        for (; old != old_entries.end() && old->name < entry.name; ++old)
            gone_.push_back({.path = before + "/" + old->name, .object = old->object});
        const bool in_both = old != old_entries.end() && old->name == entry.name;
        if (in_both && old->object == entry.object) {
            TS_TRY(same_object(entry.object, before + "/" + old->name, after + "/" + entry.name,
                               Arrival::kNone));
        } else {
            if (in_both) gone_.push_back({.path = before + "/" + old->name, .object = old->object});
            come_.push_back({.path = after + "/" + entry.name, .object = entry.object});
        }
        if (in_both) ++old;
    }
    for (; old != old_entries.end(); ++old)
        gone_.push_back({.path = before + "/" + old->name, .object = old->object});
    --depth_;
    return {};
}

Status ImageDiff::expand(Image& image, const Sighting& directory, std::vector<Sighting>& into) {
    TS_ASSIGN(const auto attributes, image.attributes(directory.object));
    if (!S_ISDIR(attributes.mode)) return {};
    TS_ASSIGN(const auto entries, image.list(directory.object));
    for (const auto& entry : entries)
        into.push_back({.path = directory.path + "/" + entry.name, .object = entry.object});
    return {};
}

Status ImageDiff::sort_out_gone() {
    while (!gone_.empty()) {
        const Sighting gone = std::move(gone_.back());
        gone_.pop_back();
        TS_TRY(go_on_(gone.path));
        TS_ASSIGN(const bool elsewhere, has(after_, gone.object));
        if (elsewhere) {
            moved_from_[gone.object].push_back(gone.path);
            continue;
        }
        deleted_[gone.path] = gone.object;
        TS_TRY(named(expand(before_, gone, gone_), gone.path));
    }
    return {};
}

Status ImageDiff::sort_out_come() {
    while (!come_.empty()) {
        const Sighting come = std::move(come_.back());
        come_.pop_back();
        TS_TRY(go_on_(come.path));
        TS_ASSIGN(const bool known, has(before_, come.object));
        if (known) {
            moved_to_[come.object].push_back(come.path);
            continue;
        }
        created_[come.path] = come.object;
        TS_TRY(named(expand(after_, come, come_), come.path));
    }
    return {};
}

// A name of the object that is gone and one that has come make a rename.
Status ImageDiff::pair_moved() {
    std::vector<std::pair<ObjectId, std::pair<std::string, std::string>>> pairs;
    for (auto& [object, from] : moved_from_) {
        auto& to = moved_to_[object];
        std::sort(from.rbegin(), from.rend());
        std::sort(to.rbegin(), to.rend());
        for (; !from.empty() && !to.empty(); from.pop_back(), to.pop_back())
            pairs.push_back({object, {from.back(), to.back()}});
    }
    for (const auto& [object, paths] : pairs)
        TS_TRY(same_object(object, paths.first, paths.second, Arrival::kRenamed));
    return {};
}

Status ImageDiff::add_created() {
    using Kind = ImageChange::Kind;
    for (const auto& created : created_) {
        const std::string& path = created.first;  // captured below
        const ObjectId object = created.second;
        TS_TRY(go_on_(path));
        TS_ASSIGN(auto change, change_of(after_, Kind::kCreated, path, object));
        // Written anew beside it and renamed over: for people it is the same file, changed.
        const auto old = deleted_.find(path);
        if (old != deleted_.end()) {
            TS_ASSIGN(const auto before, before_.attributes(old->second));
            if ((before.mode & S_IFMT) == (change.mode & S_IFMT) && !S_ISDIR(change.mode)) {
                TS_ASSIGN(const auto difference,
                          difference_of(before_, old->second, after_, object,
                                        [&](std::uint64_t) { return go_on_(path); }));
                change.kind = Kind::kChanged;
                change.bytes = difference.bytes;
                change.attributes = difference.attributes || difference.mtime;
                deleted_.erase(old);
                if (!difference.any()) continue;
            }
        }
        changes_.push_back(std::move(change));
    }
    // Further names of what was there already.
    for (const auto& [object, paths] : moved_to_)
        for (const auto& path : paths) {
            TS_ASSIGN(auto change, change_of(after_, Kind::kCreated, path, object));
            changes_.push_back(std::move(change));
        }
    return {};
}

Status ImageDiff::add_deleted() {
    using Kind = ImageChange::Kind;
    for (const auto& [path, object] : deleted_) {
        TS_ASSIGN(auto change, change_of(before_, Kind::kDeleted, path, object));
        changes_.push_back(std::move(change));
    }
    for (const auto& [object, paths] : moved_from_)
        for (const auto& path : paths) {
            TS_ASSIGN(auto change, change_of(before_, Kind::kDeleted, path, object));
            changes_.push_back(std::move(change));
        }
    return {};
}

}  // namespace twinspool
