// SPDX-License-Identifier: Apache-2.0
// The walk of an Alignment: what stays, what goes, and in which order.
#include "replicator/past/alignment.h"

#include <fcntl.h>
#include <xxhash.h>

#include <algorithm>

#include "replicator/past/printable.h"

namespace twinspool {
namespace {

// Deeper ones no absolute path leads to; each level takes a descriptor and some stack.
constexpr std::size_t kMaxDepth = 2048;
constexpr int kRemovalTries = 16;  // of a directory that somebody else puts things into

bool is_listed(const std::vector<ImageEntry>& entries, std::string_view name) {
    const auto at = std::lower_bound(
        entries.begin(), entries.end(), name,
        [](const ImageEntry& entry, std::string_view n) { return entry.name < n; });
    return at != entries.end() && at->name == name;
}

}  // namespace

// One name further down, for the time of its life.
class Alignment::Step {
   public:
    Step(Alignment& alignment, const std::string& name)
        : alignment_(alignment), length_(alignment.path_.size()) {
        alignment_.path_ += '/';
        alignment_.path_ += name;
        ++alignment_.depth_;
    }
    // After an error the path stays, to be told.
    ~Step() {
        --alignment_.depth_;
        if (done_) alignment_.path_.resize(length_);
    }
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;
    Status end(Status status) {
        done_ = status.ok();
        return status;
    }

   private:
    Alignment& alignment_;
    std::size_t length_;
    bool done_ = false;
};

Alignment::Alignment(Image& image, AlignmentOptions options)
    : image_(image), options_(std::move(options)) {}

Status Alignment::root(int fd, ObjectId object, const std::string& path) {
    base_ = fd;
    path_ = path;
    base_length_ = path.size();
    const auto work = [&]() -> Status {
        TS_ASSIGN(const auto wanted, wanted_of(image_, object));
        struct stat status {};
        if (::fstat(fd, &status) != 0) return last_error("look at it");
        TS_ASSIGN(const bool same, has_attributes(fd, status, wanted));
        if (!same) announce(RestoreChange::Kind::kChanged, 0);
        if (acts() && !same) TS_TRY(finish_attributes(fd, wanted, WithMtime::kNo));
        TS_TRY(fill(fd, object));
        if (acts()) TS_TRY(finish_attributes(fd, wanted, WithMtime::kYes));
        ++counters_.objects;
        return go_on();
    };
    return named(work());
}

Status Alignment::entry(int fd, const std::string& path, const std::vector<ImageEntry>& siblings,
                        const ImageEntry& entry) {
    base_ = fd;
    path_ = path;
    base_length_ = path_.size();
    return named(put({.fd = fd, .entries = siblings}, entry));
}

// Everything in a directory.
Status Alignment::fill(int fd, ObjectId object) {
    if (depth_ > kMaxDepth) return make_error(ENAMETOOLONG, "go deeper");
    TS_ASSIGN(const auto entries, image_.list(object));
    const Folder folder{.fd = fd, .entries = entries};
    if (fd >= 0) {
        TS_ASSIGN(const auto names, names_in(fd));
        for (const auto& name : names)
            if (!is_listed(entries, name)) TS_TRY(remove(fd, name));
    }
    for (const auto& entry : entries) TS_TRY(put(folder, entry));
    return acts() && is_read() ? check_filled(folder) : Status{};
}

Status Alignment::check_filled(const Folder& folder) {
    TS_ASSIGN(const auto names, names_in(folder.fd));
    const bool same =
        std::equal(names.begin(), names.end(), folder.entries.begin(), folder.entries.end(),
                   [](const auto& name, const auto& e) { return name == e.name; });
    if (!same)
        differences_.push_back(fmt::format(
            "{}: other names than in the image; somebody changes it meanwhile", printable(path_)));
    return {};
}

Status Alignment::put(const Folder& folder, const ImageEntry& entry) {
    Step down(*this, entry.name);
    const auto work = [&]() -> Status {
        TS_ASSIGN(const auto wanted, wanted_of(image_, entry.object));
        std::optional<Occupant> occupant;
        if (folder.fd >= 0) {
            TS_ASSIGN(occupant, look_at(folder.fd, entry.name));
        }
        const bool is_directory = wanted.type() == S_IFDIR;
        if (occupant && occupant->is_directory() != is_directory) {
            occupant.reset();
            // It is told of by its own path.
            const std::string whole = path_;
            path_.resize(path_.size() - entry.name.size() - 1);
            TS_TRY(remove(folder.fd, entry.name));
            path_ = whole;
        }
        if (is_directory)
            TS_TRY(put_directory(folder, entry.name, wanted, std::move(occupant)));
        else if (places_.contains(entry.object))
            TS_TRY(put_link(folder, entry.name, wanted, std::move(occupant)));
        else
            TS_TRY(put_other(folder, entry.name, wanted, std::move(occupant)));
        ++counters_.objects;
        return go_on();
    };
    return down.end(work());
}

Status Alignment::put_directory(const Folder& folder, const std::string& name, const Wanted& wanted,
                                std::optional<Occupant> occupant) {
    if (!occupant) {
        announce(RestoreChange::Kind::kMade, 0);
        if (!acts()) return fill(-1, wanted.object);
        TS_TRY(step());
        TS_ASSIGN(const Fd made, make_directory(folder.fd, name));
        TS_TRY(fill(made.get(), wanted.object));
        return finish_attributes(made.get(), wanted, WithMtime::kYes);
    }
    occupant.reset();
    TS_ASSIGN(const Fd fd, open_directory(folder.fd, name));
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return last_error("look at it");
    TS_ASSIGN(const bool same, has_attributes(fd.get(), status, wanted));
    if (!same) announce(RestoreChange::Kind::kChanged, 0);
    // What is in it may be for fewer eyes than its mode allowed up to now.
    if (acts() && !same) TS_TRY(finish_attributes(fd.get(), wanted, WithMtime::kNo));
    TS_TRY(fill(fd.get(), wanted.object));
    return acts() ? finish_attributes(fd.get(), wanted, WithMtime::kYes) : Status{};
}

Status Alignment::put_other(const Folder& folder, const std::string& name, const Wanted& wanted,
                            std::optional<Occupant> occupant) {
    Likeness likeness = Likeness::kDifferent;
    if (occupant) {
        TS_ASSIGN(likeness, compare(wanted, *occupant));
    }
    if (likeness == Likeness::kDifferent) {
        announce(occupant ? RestoreChange::Kind::kChanged : RestoreChange::Kind::kMade,
                 wanted.is_file() ? wanted.attributes.size : 0);
        if (acts()) return replace(folder, name, wanted, occupant ? &*occupant : nullptr);
        if (occupant) release(*occupant);
        remember(wanted, {});
        return {};
    }
    const Inode inode{occupant->status.st_dev, occupant->status.st_ino};
    if (occupant->status.st_nlink > 1) kept_[inode] = wanted.object;
    remember(wanted, inode);
    if (likeness == Likeness::kSame) return {};
    announce(RestoreChange::Kind::kChanged, 0);
    return acts() ? finish_attributes(occupant->fd.get(), wanted, WithMtime::kYes) : Status{};
}

// A further name of what already has its place.
Status Alignment::put_link(const Folder& folder, const std::string& name, const Wanted& wanted,
                           std::optional<Occupant> occupant) {
    const Place& place = places_.at(wanted.object);
    if (occupant && place.inode == Inode{occupant->status.st_dev, occupant->status.st_ino})
        return {};
    announce(occupant ? RestoreChange::Kind::kChanged : RestoreChange::Kind::kMade, 0);
    if (!acts()) {
        if (occupant) release(*occupant);
        return {};
    }
    TS_ASSIGN(const Fd source, open_place(place));
    const std::string temporary = is_read() ? aside(folder, name) : name;
    if (occupant || is_read()) {
        TS_TRY(step());
        TS_TRY(unlink_at(folder.fd, temporary));
    }
    TS_TRY(step());
    if (auto linked = link_at(source.get(), folder.fd, temporary); !linked.ok()) {
        if (linked.error().code != EXDEV) return linked;
        warnings_.push_back(fmt::format("{} is a copy: a hard link cannot lead to another mount",
                                        printable(path_)));
        return replace(folder, name, wanted, occupant ? &*occupant : nullptr);
    }
    if (!is_read()) return {};
    TS_TRY(step());
    return rename_at(folder.fd, temporary, folder.fd, name, RenameWay::kReplace);
}

// With everything below it.
Status Alignment::remove(int fd, const std::string& name) {
    Step down(*this, name);
    const auto work = [&]() -> Status {
        TS_ASSIGN(const auto occupant, look_at(fd, name));
        if (!occupant) return {};
        announce(RestoreChange::Kind::kRemoved, 0);
        if (occupant->is_directory()) return remove_content(fd, name);
        if (!acts()) {
            release(*occupant);
            return {};
        }
        TS_TRY(step());
        TS_TRY(unlink_at(fd, name));
        return go_on();
    };
    return down.end(work());
}

Status Alignment::remove_content(int fd, const std::string& name) {
    if (depth_ > kMaxDepth) return make_error(ENAMETOOLONG, "go deeper");
    for (int tries = 0; tries < kRemovalTries; ++tries) {
        TS_ASSIGN(const Fd directory, open_directory(fd, name));
        TS_ASSIGN(const auto names, names_in(directory.get()));
        for (const auto& each : names) TS_TRY(remove(directory.get(), each));
        if (!acts()) return {};
        TS_TRY(step());
        TS_ASSIGN(const bool removed, remove_directory_at(fd, name));
        if (removed) return go_on();
    }
    return make_error(ENOTEMPTY, "remove it while somebody puts things into it");
}

// What a name is made under first.
std::string Alignment::aside(const Folder& folder, const std::string& name) const {
    for (std::uint64_t salt = 0;; ++salt) {
        std::string found = fmt::format(".twinspool-restore-{:016x}",
                                        XXH3_64bits_withSeed(name.data(), name.size(), salt));
        if (!is_listed(folder.entries, found)) return found;
    }
}

Status Alignment::step() { return options_.on_step ? options_.on_step() : Status{}; }

Status Alignment::go_on() {
    if (options_.on_progress) options_.on_progress(counters_, path_);
    if (options_.interrupted && options_.interrupted())
        return make_error(ECANCELED, "go on after a signal");
    return {};
}

ChunkDone Alignment::chunks(std::uint64_t& counter) {
    return [this, &counter](std::uint64_t bytes) {
        counter += bytes;
        return go_on();
    };
}

void Alignment::announce(RestoreChange::Kind kind, std::uint64_t bytes) {
    auto& counter = kind == RestoreChange::Kind::kMade      ? counters_.made
                    : kind == RestoreChange::Kind::kRemoved ? counters_.removed
                                                            : counters_.changed;
    ++counter;
    if (options_.on_change) options_.on_change({.kind = kind, .path = path_, .bytes = bytes});
}

Status Alignment::named(const Status& status) const {
    if (status.ok() || status.error().code == EINTR || status.error().code == ECANCELED)
        return status;
    return Error{status.error().code,
                 fmt::format("restore {}: {}", printable(path_), status.error().doing)};
}

}  // namespace twinspool
