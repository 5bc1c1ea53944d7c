// SPDX-License-Identifier: Apache-2.0
#include "replicator/past/restore.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>

#include "replicator/past/printable.h"

namespace twinspool {
namespace {

constexpr int kDirectoryFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
constexpr mode_t kFolderMode =
    0755;  // above the volume's directories, of which an image knows none

Result<Fd> open_path(const std::string& path, int flags) {
    Fd fd{::open(path.c_str(), kDirectoryFlags | flags)};
    if (!fd.valid()) return last_error("open {}", printable(path));
    return fd;
}

// The private directory: while it is being filled, and from when everything in it was read back.
struct StagingNames {
    std::string filling;
    std::string whole;
    explicit StagingNames(const NewPlace& place) {
        const std::string all = place.token + '\n' + place.name;
        const auto hash = XXH3_64bits(all.data(), all.size());
        filling = fmt::format(".twinspool-restore-{:016x}", hash);
        whole = fmt::format(".twinspool-restored-{:016x}", hash);
    }
};

// As it was left, or new; ours alone while it is open.
Result<Fd> open_staging(int directory, const std::string& name) {
    auto made = make_directory(directory, name);
    if (!made.ok() && made.error().code != EEXIST) return made.error();
    TS_ASSIGN(Fd fd, made.ok() ? std::move(made) : open_directory(directory, name));
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return last_error("look at {}", name);
    if (status.st_uid != ::geteuid() || (status.st_mode & 0077) != 0)
        return make_error(EEXIST, "use {}, which somebody else has put there", name);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
        return make_error(EBUSY, "use {}: another restore of the same works on it", name);
    // Nothing that is made in it is to inherit from what is around it.
    const Wanted plain{
        .attributes = {.mode = S_IFDIR | 0700, .uid = status.st_uid, .gid = status.st_gid}};
    TS_TRY(set_attributes(fd.get(), plain, WithMtime::kNo));
    return fd;
}

Status check_free(int directory, const NewPlace& place, const StagingNames& staging) {
    if (!place.name.empty()) {
        TS_ASSIGN(const auto occupant, look_at(directory, place.name));
        if (!occupant) return {};
        return make_error(EEXIST, "restore to {}/{}", printable(place.directory),
                          printable(place.name));
    }
    TS_ASSIGN(const auto names, names_in(directory));
    const auto ours = std::count(names.begin(), names.end(), staging.filling);
    if (names.size() == static_cast<std::size_t>(ours)) return {};
    return make_error(ENOTEMPTY, "restore to {}", printable(place.directory));
}

// Down to the directory at `path` below `fd`; what is missing is made (or -1, if `acting` says so).
Result<Fd> open_folders(Fd fd, std::string_view path, Acting acting) {
    while (!path.empty() && fd.valid()) {
        const std::string name{path.substr(0, path.find('/'))};
        path.remove_prefix(std::min(path.size(), name.size() + 1));
        if (name.empty()) continue;
        auto next = open_directory(fd.get(), name);
        if (!next.ok() && next.error().code == ENOENT && acting == Acting::kAct) {
            next = make_directory(fd.get(), name);
            if (next.ok() && ::fchmod(next->get(), kFolderMode) != 0)
                return last_error("set the mode of the folder {}", printable(name));
        }
        if (!next.ok() && next.error().code == ENOENT) return Fd{};
        TS_ASSIGN(fd, std::move(next));
    }
    return fd;
}

Result<Fd> again(int fd) {
    if (fd < 0) return Fd{};
    Fd copy{::fcntl(fd, F_DUPFD_CLOEXEC, 0)};
    if (!copy.valid()) return last_error("open a directory once more");
    return copy;
}

std::string parent_of(std::string_view path) {
    return std::string{path.substr(0, path.rfind('/'))};
}

// fsync as well: syncfs does not reach what stands behind an overlay.
Status sync_all(int fd) {
    if (::syncfs(fd) != 0 || ::fsync(fd) != 0) return last_error("sync what was restored");
    return {};
}

RestoreReport report_of(const Alignment& alignment) {
    return {.counters = alignment.counters(),
            .differences = alignment.differences(),
            .warnings = alignment.warnings()};
}

}  // namespace

std::string unfinished_place(const NewPlace& place) {
    return place.directory + "/" + StagingNames{place}.filling;
}

Restorer::Restorer(Image& image, AlignmentOptions options)
    : image_(image), options_(std::move(options)) {}

Result<int> Restorer::keep(Result<Fd> fd) {
    TS_ASSIGN(auto opened, std::move(fd));
    opened_.push_back(std::move(opened));
    return opened_.back().get();
}

// Below the private directory, or (-1) nowhere.
Status Restorer::align_new(Alignment& alignment, int fd, const std::optional<ImagePart>& part,
                           const std::string& name) {
    const Acting acting = fd < 0 ? Acting::kOnlySay : options_.acting;
    if (part) {
        const ImageEntry entry{.name = std::string{part->name()}, .object = part->object};
        return alignment.entry(fd, parent_of(part->path), {entry}, entry);
    }
    for (const auto& root : image_.roots()) {
        const std::string above = parent_of(root.path);
        const ImageEntry entry{.name = root.path.substr(above.size() + 1), .object = root.object};
        TS_ASSIGN(auto base, again(fd));
        TS_ASSIGN(const int folder, keep(open_folders(std::move(base), name + above, acting)));
        TS_TRY(alignment.entry(folder, above, {entry}, entry));
    }
    return {};
}

// Everything once more, from the disk.
Status Restorer::verify(int fd, const std::optional<ImagePart>& part, const std::string& name,
                        RestoreReport& report) {
    AlignmentOptions options = options_;
    options.acting = Acting::kOnlySay;
    options.readers = Readers::kNone;
    options.on_change = [&](const RestoreChange& change) {
        report.differences.push_back(
            fmt::format("{}: is not as in the image when it is read back", printable(change.path)));
    };
    Alignment alignment{image_, std::move(options)};
    return align_new(alignment, fd, part, name);
}

// Killed in here, the next run goes on here.
Status Restorer::put_in_place(int directory, const std::string& whole, const NewPlace& place) {
    TS_ASSIGN(const Fd fd, open_staging(directory, whole));
    TS_ASSIGN(const auto names, names_in(fd.get()));
    for (const auto& name : names) {
        TS_TRY(step());
        TS_TRY(rename_at(fd.get(), name, directory, place.name.empty() ? name : place.name,
                         RenameWay::kOnlyNew));
    }
    TS_TRY(sync_all(directory));
    TS_TRY(step());
    TS_ASSIGN(const bool removed, remove_directory_at(directory, whole));
    if (!removed) return make_error(ENOTEMPTY, "remove {}", whole);
    return {};
}

Result<RestoreReport> Restorer::to_new_place(const std::optional<ImagePart>& part,
                                             const NewPlace& place) {
    opened_.clear();
    const StagingNames staging{place};
    TS_ASSIGN(const Fd directory, open_path(place.directory, 0));
    TS_ASSIGN(const auto left, look_at(directory.get(), staging.whole));
    AlignmentOptions options = options_;
    options.readers = Readers::kNone;
    Alignment alignment{image_, options};
    if (!left) TS_TRY(check_free(directory.get(), place, staging));
    if (options_.acting == Acting::kOnlySay) {
        TS_TRY(align_new(alignment, -1, part, place.name));
        return report_of(alignment);
    }
    RestoreReport report;
    if (!left) {
        TS_TRY(step());
        TS_ASSIGN(const Fd fd, open_staging(directory.get(), staging.filling));
        TS_TRY(align_new(alignment, fd.get(), part, place.name));
        TS_TRY(sync_all(fd.get()));
        report = report_of(alignment);
        TS_TRY(verify(fd.get(), part, place.name, report));
        if (!report.differences.empty()) {
            report.left_in = unfinished_place(place);
            return report;
        }
        TS_TRY(step());
        TS_TRY(rename_at(directory.get(), staging.filling, directory.get(), staging.whole,
                         RenameWay::kOnlyNew));
    }
    TS_TRY(put_in_place(directory.get(), staging.whole, place));
    return report;
}

Status Restorer::align_place(Alignment& alignment, const ImagePart& part) {
    TS_ASSIGN(const int root, keep(open_path(part.root, O_NOFOLLOW)));
    if (part.is_root()) return alignment.root(root, part.object, part.path);
    const std::string above = parent_of(part.path);
    TS_ASSIGN(auto base, again(root));
    auto found = open_folders(std::move(base), std::string_view{above}.substr(part.root.size()),
                              Acting::kOnlySay);
    if (!found.ok() || !found->valid())
        return make_error(found.ok() ? ENOENT : found.error().code, "open {}, where it stood",
                          printable(above));
    TS_ASSIGN(const int folder, keep(std::move(found)));
    TS_ASSIGN(const auto siblings, image_.list(part.parent));
    return alignment.entry(folder, above, siblings,
                           {.name = std::string{part.name()}, .object = part.object});
}

Result<RestoreReport> Restorer::in_place(const std::optional<ImagePart>& part) {
    opened_.clear();
    AlignmentOptions options = options_;
    options.readers = Readers::kSome;
    std::vector<ImagePart> parts;
    if (part) parts.push_back(*part);
    // All must be there before the first is changed.
    for (const auto& root : image_.roots()) {
        if (part && part->root != root.path) continue;
        TS_ASSIGN(const int opened, keep(open_path(root.path, O_NOFOLLOW)));
        (void)opened;
        if (!part) parts.push_back({.path = root.path, .root = root.path, .object = root.object});
    }
    Alignment alignment{image_, options};
    for (const auto& each : parts) TS_TRY(align_place(alignment, each));
    if (options_.acting == Acting::kAct)
        for (const auto& fd : opened_) TS_TRY(sync_all(fd.get()));
    return report_of(alignment);
}

}  // namespace twinspool
