// SPDX-License-Identifier: Apache-2.0
#include "fuse/serve/listing.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <charconv>

#include "fuse/objects/orphans.h"
#include "fuse/tell/finder.h"

namespace twinspool {
namespace {

// The inode number of what has gone meanwhile and is known no more; not 0, which programs skip.
constexpr ObjectId kNoNumber{0xffffffff};

Answered list_roots(Volume& volume, const Request& request, std::int64_t place, ListingStyle style,
                    EntryWriter& writer) {
    for (auto index = static_cast<std::size_t>(place); index < volume.directories.size(); ++index) {
        char name[24] = {};
        std::to_chars(name, name + sizeof name - 1, index);
        const Directory& directory = volume.directories[index];
        const ListedEntry entry{.name = name,
                                .object = directory.root->id,
                                .type = S_IFDIR,
                                .next = static_cast<std::int64_t>(index) + 1};
        struct statx now {};
        if (const int error = stat_object(directory.backing_fd, now)) return plain(error);
        const bool fits = style == ListingStyle::kNames
                              ? writer.add(entry)
                              : writer.add_plus(entry, now, directory.root.get());
        if (!fits) break;
    }
    return Answer{Answer::Data{.data = request.buffer, .size = writer.size()}};
}

std::uint32_t changes_of(Inode& directory) {
    const std::lock_guard lock{directory.mutex};
    return directory.changes;
}

using Moment = std::shared_ptr<const DirectoryMoment>;
using Reader = DirectoryMoment::Reader;

Result<Moment> read_moment(Volume& volume, Inode& directory, std::int64_t place,
                           std::uint32_t changes) {
    TS_ASSIGN(const Lease lease, volume.lease(directory));
    // Opened anew: the place in a descriptor is everybody's who has it.
    const Fd fd{::openat(lease.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd.valid()) return plain(errno);
    return DirectoryMoment::read(fd.get(), {.place = place, .changes = changes},
                                 volume.open_directories.used_bytes());
}

// Reads it without its lock, and counts that if nobody has begun to change it meanwhile. (The
// kernel lets nobody do so while a listing is on its way; that is not relied upon.)
Result<Moment> take_moment(Volume& volume, Inode& directory, std::int64_t place) {
    OpenDirectories& open_directories = volume.open_directories;
    constexpr int kTimes = 2;
    for (int i = 0; i < kTimes; ++i) {
        const std::uint32_t before = changes_of(directory);
        Moment newest = open_directories.newest(directory.instance);
        if (place == 0 && newest && newest->changes() == before) return newest;
        TS_ASSIGN(Moment moment, read_moment(volume, directory, place, before));
        if (changes_of(directory) != before) continue;
        if (place == 0) open_directories.remember(directory.instance, moment);
        return moment;
    }
    const std::lock_guard lock{directory.mutex};
    return read_moment(volume, directory, place, directory.changes);
}

// A reader that stands at `place`, of a moment to be taken. Who comes to the middle first is most
// likely served from all of it as well, which the next can share.
Result<Reader> read_from(Volume& volume, Inode& directory, std::int64_t place) {
    TS_ASSIGN(Moment all, take_moment(volume, directory, 0));
    Reader reader{std::move(all)};
    if (reader.seek(place)) return reader;
    TS_ASSIGN(Moment rest, take_moment(volume, directory, place));
    return Reader{std::move(rest)};
}

bool is_removed(int error) { return error == ENOENT || error == ESTALE; }

// The reader that stands where `place` is; none if the directory has been removed.
Result<Reader*> arrive(Volume& volume, const Turn& turn, OpenDirectory& open, Inode& directory,
                       std::int64_t place) {
    const bool anew = place == 0 || !open.reader;
    for (auto* each : {&open.reader, &open.elsewhere})
        if (!anew && *each && (*each)->seek(place)) return &**each;
    if (!turn.may_wait()) return plain(Ending::busy());
    auto reader = read_from(volume, directory, place);
    if (!reader.ok() && !is_removed(reader.error().code)) return reader.error();
    if (anew) {
        open.reader.reset();
        open.elsewhere.reset();
    }
    if (!reader.ok()) return static_cast<Reader*>(nullptr);
    Reader& here = (anew ? open.reader : open.elsewhere).emplace(std::move(*reader));
    volume.open_directories.make_room(open);
    return &here;
}

class Listing {
   public:
    Listing(Volume& volume, Turn& turn, Inode& directory, ListingStyle style, EntryWriter& writer)
        : volume_(volume), turn_(turn), directory_(directory), style_(style), writer_(writer) {}

    // Done, an errno, or a reason to call again; `full()` says whether there was room.
    Ending add(const DirectoryEntry& entry, Reader& at);
    [[nodiscard]] bool full() const { return full_; }

   private:
    // By its number, which says nothing of a directory: something may be mounted there, and the
    // number of a subvolume (btrfs) is that of another object.
    [[nodiscard]] InodeRef known(const DirectoryEntry& entry) const {
        if (entry.type == DT_DIR || entry.type == DT_UNKNOWN) return {};
        InodeRef found = volume_.inodes.find(directory_.directory, entry.number);
        if (found && found->type != static_cast<mode_t>(DTTOIF(entry.type))) return {};
        return found;
    }
    // Whether the entry's name and number are all that is to be said of an object that is known.
    [[nodiscard]] bool name_is_enough(const Inode& inode) const {
        return style_ == ListingStyle::kNames ||
               inode.attributes_kept.load(std::memory_order_relaxed);
    }
    void add_name(ListedEntry listed, ObjectId object) {
        struct statx none {};
        none.stx_mode = static_cast<std::uint16_t>(listed.type);
        listed.object = object;
        full_ = style_ == ListingStyle::kNames ? !writer_.add(listed)
                                               : !writer_.add_plus(listed, none, nullptr);
    }

    Volume& volume_;
    Turn& turn_;
    Inode& directory_;
    const ListingStyle style_;
    EntryWriter& writer_;
    bool full_ = false;
};

Ending Listing::add(const DirectoryEntry& entry, Reader& at) {
    ListedEntry listed{.name = entry.name,
                       .object = directory_.id,
                       .type = static_cast<mode_t>(DTTOIF(entry.type)),
                       .next = entry.next};
    if (is_hidden(volume_, directory_, entry.name)) return Ending::done();
    if (is_dots(entry.name)) {
        add_name(listed, directory_.id);
        return Ending::done();
    }
    if (style_ == ListingStyle::kNames && at.object() != kNoObject) {
        add_name(listed, at.object());
        return Ending::done();
    }
    if (const InodeRef object = known(entry); object && name_is_enough(*object)) {
        at.set_object(object->id);
        add_name(listed, object->id);
        return Ending::done();
    }
    const auto found = find_entry(volume_, turn_, directory_, entry.name);
    if (!found.ok()) {
        const Ending ending{found.error().code};
        if (ending.is_busy() || ending.lacks_credit()) return ending;
        if (ending.code() == EXDEV) return Ending::done();  // another file system's: not shown
    }
    if (!found.ok() || found->inode->number != entry.number) {
        // It stood here at the moment that is listed, and where it is now it is not listed; or it
        // cannot be read, which is said to who asks for it, and keeps nobody from the others.
        const InodeRef object = known(entry);
        add_name(listed, object ? object->id : kNoNumber);
        return Ending::done();
    }
    listed.object = found->inode->id;
    listed.type = found->inode->type;
    if (listed.type != S_IFDIR) at.set_object(listed.object);
    if (style_ == ListingStyle::kNames) {
        full_ = !writer_.add(listed);
        return Ending::done();
    }
    full_ = !writer_.add_plus(listed, found->attributes, found->inode.get());
    if (!full_) found->inode->attributes_kept.store(true, std::memory_order_relaxed);
    return Ending::done();
}

}  // namespace

Answered open_directory(Volume& volume, Turn& /*turn*/, const Request& /*request*/, ObjectId id) {
    if (id == kRootObject) return Answer{Answer::Opened{}};
    const InodeRef directory = volume.inodes.find(id);
    if (!directory) return plain(ESTALE);
    return Answer{Answer::Opened{.handle = volume.open_directories.open(directory->instance)}};
}

Answered list_directory(Volume& volume, Turn& turn, const Request& request, ObjectId id,
                        std::uint64_t handle, std::int64_t place, ListingStyle style,
                        EntryWriter& writer) {
    if (id == kRootObject) return list_roots(volume, request, place, style, writer);
    const InodeRef directory = volume.inodes.find(id);
    if (!directory) return plain(ESTALE);
    const auto open = volume.open_directories.find(handle, directory->instance);
    std::unique_lock lock{open->mutex, std::defer_lock};
    if (turn.may_wait())
        lock.lock();
    else if (!lock.try_lock())
        return plain(Ending::busy());
    TS_ASSIGN(Reader* const reader, arrive(volume, turn, *open, *directory, place));
    Listing listing{volume, turn, *directory, style, writer};
    while (reader != nullptr) {
        const auto entry = reader->peek();
        if (!entry) break;
        const Ending ending = listing.add(*entry, *reader);
        // What is there already goes out; the rest is asked for again.
        if (!ending.is_done() && writer.size() == 0) return plain(ending);
        if (!ending.is_done() || listing.full()) break;
        reader->skip();
    }
    return Answer{Answer::Data{.data = request.buffer, .size = writer.size()}};
}

}  // namespace twinspool
