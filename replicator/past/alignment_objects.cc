// SPDX-License-Identifier: Apache-2.0
// The part of Alignment that deals with one object: is it the same, and how it is made.
#include <fcntl.h>
#include <unistd.h>

#include "replicator/past/alignment.h"
#include "replicator/past/printable.h"

namespace twinspool {

// How many names it has, once those are gone that would be gone.
std::uint64_t Alignment::names_left(const Occupant& occupant) const {
    const std::uint64_t names = occupant.status.st_nlink;
    const auto gone = released_.find({occupant.status.st_dev, occupant.status.st_ino});
    if (gone == released_.end()) return names;
    return names > gone->second ? names - gone->second : 1;
}

// Whether the inode may be kept as this object, as far as its other names go.
bool Alignment::may_stand_for(const Wanted& wanted, const Occupant& occupant) const {
    if (names_left(occupant) == 1) return true;
    const auto kept = kept_.find({occupant.status.st_dev, occupant.status.st_ino});
    if (kept != kept_.end() && kept->second != wanted.object) return false;
    return names_left(occupant) <= wanted.attributes.links;
}

Result<Alignment::Likeness> Alignment::compare(const Wanted& wanted, const Occupant& occupant) {
    if (occupant.type() != wanted.type() || !may_stand_for(wanted, occupant))
        return Likeness::kDifferent;
    if (wanted.is_file()) {
        TS_ASSIGN(const bool same, same_content(wanted, occupant));
        if (!same) return Likeness::kDifferent;
    } else if (wanted.type() == S_IFLNK) {
        TS_ASSIGN(const auto target, target_of(occupant));
        if (target != wanted.target) return Likeness::kDifferent;
    } else if (wanted.type() == S_IFCHR || wanted.type() == S_IFBLK) {
        if (occupant.status.st_rdev != wanted.attributes.device) return Likeness::kDifferent;
    }
    TS_ASSIGN(const bool same, has_attributes(occupant.fd.get(), occupant.status, wanted));
    if (same) return Likeness::kSame;
    return names_left(occupant) > 1 ? Likeness::kDifferent : Likeness::kAttributes;
}

Result<bool> Alignment::same_content(const Wanted& wanted, const Occupant& occupant) {
    const auto size = static_cast<std::uint64_t>(occupant.status.st_size);
    if (size != wanted.attributes.size) return false;
    if (size == 0) return true;
    TS_ASSIGN(const Fd fd, open_file(occupant));
    // What nobody uses yet is compared as the disk has it. Others keep what is in their cache.
    if (!is_read()) (void)::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
    ImageContent source{image_, wanted.object, wanted.attributes.size};
    FileContent found{fd.get(), size};
    std::uint64_t read = 0;
    TS_ASSIGN(const auto count,
              count_differing(source, found, CountWhat::kFirstOnly, chunks(read)));
    return count == 0;
}

void Alignment::remember(const Wanted& wanted, const Inode& inode) {
    if (wanted.attributes.links <= 1) return;
    places_[wanted.object] = {
        .base = base_, .below = path_.substr(base_length_ + 1), .inode = inode};
}

void Alignment::release(const Occupant& occupant) {
    if (occupant.status.st_nlink > 1) ++released_[{occupant.status.st_dev, occupant.status.st_ino}];
}

Status Alignment::replace(const Folder& folder, const std::string& name, const Wanted& wanted,
                          const Occupant* occupant) {
    const std::string first = is_read() ? aside(folder, name) : name;
    if (occupant != nullptr || is_read()) {
        TS_TRY(step());
        TS_TRY(unlink_at(folder.fd, first));
    }
    auto made = make(folder, first, wanted);
    if (!made.ok()) {
        // Whoever stops half-way leaves nothing behind; a kill does, and the next run finds it.
        if (made.error().code != EINTR && made.error().code != EEXIST)
            (void)unlink_at(folder.fd, first);
        return made.error();
    }
    struct stat status {};
    if (::fstat(made->get(), &status) != 0) return last_error("look at it");
    if (is_read()) {
        TS_TRY(step());
        TS_TRY(rename_at(folder.fd, first, folder.fd, name, RenameWay::kReplace));
        TS_ASSIGN(const auto seen, look_at(folder.fd, name));
        if (!seen || seen->status.st_ino != status.st_ino)
            differences_.push_back(
                fmt::format("{}: somebody else puts things there meanwhile", printable(path_)));
    }
    if (!places_.contains(wanted.object)) remember(wanted, {status.st_dev, status.st_ino});
    return {};
}

Result<Fd> Alignment::make(const Folder& folder, const std::string& name, const Wanted& wanted) {
    TS_TRY(step());
    TS_ASSIGN(auto fd, wanted.is_file() ? make_file(folder.fd, name)
                                        : make_special(folder.fd, name, wanted));
    if (wanted.is_file()) TS_TRY(make_content(fd.get(), wanted));
    TS_TRY(finish_attributes(fd.get(), wanted, WithMtime::kYes));
    return fd;
}

Status Alignment::make_content(int fd, const Wanted& wanted) {
    ImageContent source{image_, wanted.object, wanted.attributes.size};
    TS_TRY(step());
    TS_TRY(copy_content(source, fd, chunks(counters_.bytes)));
    if (!is_read()) return {};
    // Read back before anybody sees it.
    TS_TRY(step());
    if (::fsync(fd) != 0) return last_error("sync it");
    (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    FileContent written{fd, wanted.attributes.size};
    std::uint64_t read = 0;
    TS_ASSIGN(const auto count,
              count_differing(source, written, CountWhat::kFirstOnly, chunks(read)));
    if (count != 0) return make_error(EBADMSG, "other bytes were read back than were written");
    return {};
}

Status Alignment::finish_attributes(int fd, const Wanted& wanted, WithMtime with_mtime) {
    TS_TRY(step());
    TS_TRY(set_attributes(fd, wanted, with_mtime));
    if (with_mtime == WithMtime::kNo || !is_read()) return {};
    struct stat status {};
    if (::fstat(fd, &status) != 0) return last_error("look at it");
    TS_ASSIGN(const bool same, has_attributes(fd, status, wanted));
    if (!same)
        differences_.push_back(
            fmt::format("{}: other attributes than in the image", printable(path_)));
    return {};
}

// By name, because descriptors are few; somebody may have put something else there since.
Result<Fd> Alignment::open_place(const Place& place) {
    Fd directory{::openat(place.base, ".", O_PATH | O_DIRECTORY | O_CLOEXEC)};
    if (!directory.valid()) return last_error("open where its first name is");
    const std::string_view below = place.below;
    std::size_t at = 0;
    for (auto slash = below.find('/'); slash != std::string_view::npos;
         slash = below.find('/', at)) {
        TS_ASSIGN(directory,
                  open_directory(directory.get(), std::string{below.substr(at, slash - at)}));
        at = slash + 1;
    }
    TS_ASSIGN(auto found, look_at(directory.get(), std::string{below.substr(at)}));
    if (!found || place.inode != Inode{found->status.st_dev, found->status.st_ino})
        return make_error(ESTALE, "link it to its first name {}", printable(below));
    return std::move(found->fd);
}

}  // namespace twinspool
