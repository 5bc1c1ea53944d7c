// SPDX-License-Identifier: Apache-2.0
#include "fuse/listing.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <cstring>

#include "fuse/finder.h"
#include "fuse/orphans.h"

namespace twinspool {
namespace {

struct KernelEntry {
    std::uint64_t number;
    std::int64_t next;
    unsigned short size;
    unsigned char type;
    char name[];
};

bool is_dots(const char* name) {
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

// What may happen to one entry without spoiling the listing: it has gone meanwhile, or it belongs
// to another file system and is not shown.
bool leaves_it_out(int error) { return error == ENOENT || error == EXDEV || error == ESTALE; }

}  // namespace

Status DirectoryStream::seek(std::int64_t place) {
    if (place == place_) return {};
    at_ = end_ = 0;
    if (::lseek(fd_.get(), place, SEEK_SET) < 0) return plain(errno);
    place_ = place;
    return {};
}

Result<std::optional<DirectoryStream::Entry>> DirectoryStream::peek() {
    if (at_ == end_) {
        long got = ::syscall(SYS_getdents64, fd_.get(), buffer_.data(), buffer_.size());
        if (got < 0 && errno == ENOENT) got = 0;  // removed meanwhile
        if (got < 0) return plain(errno);
        at_ = 0;
        end_ = static_cast<std::size_t>(got);
        if (got == 0) return std::optional<Entry>{};
    }
    const auto* entry = reinterpret_cast<const KernelEntry*>(buffer_.data() + at_);
    return std::optional{Entry{.number = entry->number,
                               .next = entry->next,
                               .type = entry->type,
                               .name = buffer_.data() + at_ + offsetof(KernelEntry, name)}};
}

void DirectoryStream::skip() {
    const auto* entry = reinterpret_cast<const KernelEntry*>(buffer_.data() + at_);
    place_ = entry->next;
    at_ += entry->size;
}

Result<std::unique_ptr<DirectoryStream>> Listings::take(Inode& directory, std::int64_t place) {
    {
        const std::lock_guard lock{mutex_};
        for (auto at = streams_.begin(); at != streams_.end(); ++at) {
            // From the start it must be read anew: entries may have come and gone.
            if ((*at)->directory() != directory.id || (*at)->place() != place || place == 0)
                continue;
            auto stream = std::move(*at);
            streams_.erase(at);
            return stream;
        }
    }
    TS_ASSIGN(const Lease lease, volume_.lease(directory));
    Fd fd{::openat(lease.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    // One that has been removed has no entries.
    if (!fd.valid() && errno != ENOENT) return plain(errno);
    auto stream = std::make_unique<DirectoryStream>(directory.id, std::move(fd));
    if (stream->fd() >= 0) TS_TRY(stream->seek(place));
    return stream;
}

void Listings::give_back(std::unique_ptr<DirectoryStream> stream) {
    std::unique_ptr<DirectoryStream> oldest;  // closed after the lock is free
    const std::lock_guard lock{mutex_};
    streams_.push_back(std::move(stream));
    if (streams_.size() <= kStreams) return;
    oldest = std::move(streams_.front());
    streams_.pop_front();
}

Answered Listings::list_roots(const Request& request, std::int64_t place, Style style,
                              EntryWriter& writer) {
    for (auto index = static_cast<std::size_t>(place); index < volume_.directories.size();
         ++index) {
        char name[24] = {};
        std::to_chars(name, name + sizeof name - 1, index);
        const Directory& directory = volume_.directories[index];
        const ListedEntry entry{.name = name,
                                .object = directory.root->id,
                                .type = S_IFDIR,
                                .next = static_cast<std::int64_t>(index) + 1};
        struct statx now {};
        if (const int error = stat_object(directory.backing_fd, now)) return plain(error);
        const bool fits = style == Style::kNames
                              ? writer.add(entry)
                              : writer.add_plus(entry, now, directory.root.get());
        if (!fits) break;
    }
    return Answer{Answer::Data{.data = request.buffer, .size = writer.size()}};
}

Ending Listings::add(Turn& turn, Inode& directory, const DirectoryStream::Entry& entry, Style style,
                     EntryWriter& writer, bool& full) {
    ListedEntry listed{.name = entry.name,
                       .object = directory.id,
                       .type = static_cast<mode_t>(DTTOIF(entry.type)),
                       .next = entry.next};
    struct statx none {};
    if (is_dots(entry.name)) {
        none.stx_mode = S_IFDIR;
        full =
            style == Style::kNames ? !writer.add(listed) : !writer.add_plus(listed, none, nullptr);
        return Ending::done();
    }
    if (is_hidden(volume_, directory, entry.name)) return Ending::done();
    if (style == Style::kNames) {
        const InodeRef known = volume_.inodes.find(directory.directory, entry.number);
        if (known) {
            listed.object = known->id;
            full = !writer.add(listed);
            return Ending::done();
        }
    }
    auto found = find_entry(volume_, turn, directory, entry.name);
    if (!found.ok()) return found.error().code;
    listed.object = found->inode->id;
    listed.type = found->attributes.stx_mode & S_IFMT;
    full = style == Style::kNames ? !writer.add(listed)
                                  : !writer.add_plus(listed, found->attributes, found->inode.get());
    return Ending::done();
}

Answered Listings::list(Turn& turn, const Request& request, ObjectId id, std::int64_t place,
                        Style style, EntryWriter& writer) {
    if (id == kRootObject) return list_roots(request, place, style, writer);
    const InodeRef directory = volume_.inodes.find(id);
    if (!directory) return plain(ESTALE);
    TS_ASSIGN(auto stream, take(*directory, place));
    bool full = stream->fd() < 0;
    while (!full) {
        TS_ASSIGN(const auto entry, stream->peek());
        if (!entry) break;
        const Ending ending = add(turn, *directory, *entry, style, writer, full);
        if (full) break;
        if (!ending.is_done() && !leaves_it_out(ending.code())) {
            // What is there already goes out; the rest is asked for again.
            if (writer.size() > 0) break;
            return plain(ending);
        }
        stream->skip();
    }
    const std::size_t size = writer.size();
    if (size > 0) give_back(std::move(stream));
    return Answer{Answer::Data{.data = request.buffer, .size = size}};
}

}  // namespace twinspool
