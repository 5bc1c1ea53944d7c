// SPDX-License-Identifier: Apache-2.0
#include "fuse/tell/reconcile.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "fuse/objects/xattrs.h"
#include "fuse/tell/finder.h"
#include "fuse/tell/walker.h"
#include "journal/base/fault.h"

namespace twinspool {
namespace {

// What is lost of a file's range at most, without a note of it being whole: read in chunks.
constexpr std::uint64_t kToTheEnd = UINT64_MAX;

class Reconciliation {
   public:
    explicit Reconciliation(Volume& volume)
        : volume_(volume), turn_(volume.journal, Turn::Waiting::kAllowed) {}

    Status note(const Note& note) {
        if (note.entry_count > kMaxNotedEntries || note.object_count > kMaxNotedObjects)
            return make_error(EBADMSG, "read a note of the process that was killed");
        TS_TRY(entries(note));
        for (std::uint32_t i = 0; i < note.object_count; ++i)
            TS_TRY(object(note.objects[i], i == 0 && note.has_range != 0, note.range_offset,
                          note.range_length));
        if (note.entry_count == 0 && note.object_count == 1 && note.has_range == 0)
            TS_TRY(noted_xattr(note));
        return {};
    }

   private:
    template <typename T>
    Status append(const T& op) {
        if (!turn_.wait_for_credit(encoded_size(op)))
            return make_error(EIO, "log what a killed process had begun");
        turn_.append(op);
        return {};
    }

    // Objects and entries that are gone need no record: their unlinking has its own, or is in this
    // note.
    static bool tolerable(const Error& error) { return is_gone(error.code); }

    Result<Fd> open(const NotedObject& noted, int flags) {
        if (noted.directory >= volume_.directories.size() || noted.handle.size > kMaxHandleBytes)
            return make_error(EBADMSG, "read a note of the process that was killed");
        return open_handle(volume_.directories[noted.directory].backing_fd, noted.handle, flags);
    }

    Status log_xattrs(ObjectId id, int fd) {
        TS_ASSIGN(const auto xattrs, read_xattrs(fd));
        for (const Xattr& xattr : xattrs) TS_TRY(append(xattr.op(id)));
        return {};
    }

    Status content(ObjectId id, int fd, std::uint64_t offset, std::uint64_t length) {
        struct statx now {};
        if (const int error = stat_object(fd, now)) return plain(error);
        const std::uint64_t size = now.stx_size;
        TS_TRY(append(TruncateOp{.object = id, .size = size, .mtime = mtime_of(now)}));
        const std::uint64_t end = length > size - std::min(offset, size) ? size : offset + length;
        std::vector<std::byte> buffer(kMaxDataBytes);
        while (offset < end) {
            const auto wanted =
                static_cast<std::size_t>(std::min<std::uint64_t>(end - offset, buffer.size()));
            const ssize_t got = ::pread(fd, buffer.data(), wanted, static_cast<off_t>(offset));
            if (got < 0) return last_error("read what a killed process had begun to write");
            if (got == 0) break;
            TS_TRY(append(WriteOp{.object = id,
                                  .offset = offset,
                                  .mtime = mtime_of(now),
                                  .data = Bytes{buffer}.first(static_cast<std::size_t>(got))}));
            offset += static_cast<std::uint64_t>(got);
        }
        return {};
    }

    // The object that stands at the entry: who it is, from its identity, else from the note.
    Result<Identity> identity_of(const NotedEntry& noted, int fd) {
        TS_ASSIGN(const FileHandle handle, handle_of(fd));
        TS_ASSIGN(const auto known, read_identity(fd, handle));
        if (known && volume_.is_ours(*known)) return *known;
        // Nobody was told of it: the walker's.
        if (noted.object == kNoObject) return Identity{};
        // A new one that the process made and could not mark any more.
        Identity fresh{.object = noted.object,
                       .generation = volume_.generation,
                       .complete = true,
                       .handle = handle};
        TS_TRY(write_identity(fd, fresh));
        return fresh;
    }

    Status adopt(const NotedEntry& noted, const std::string& name, int parent_fd) {
        const Fd fd{::openat(parent_fd, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)};
        if (!fd.valid()) return last_error("open '{}'", name);
        struct statx now {};
        if (const int error = stat_object(fd.get(), now))
            return make_error(error, "read the attributes of '{}'", name);
        TS_ASSIGN(const Identity identity, identity_of(noted, fd.get()));
        std::string target;
        if (S_ISLNK(now.stx_mode)) {
            target.resize(4096);
            const ssize_t size = ::readlinkat(fd.get(), "", target.data(), target.size());
            target.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
        }
        // One that has not been told of in this generation is the walker's.
        if (identity.generation != volume_.generation) return {};
        TS_TRY(append(AdoptOp{.object = identity.object,
                              .parent = noted.parent.object,
                              .name = name,
                              .attributes = attributes_of(now),
                              .device = device_of(now),
                              .target = target}));
        TS_TRY(log_xattrs(identity.object, fd.get()));
        if (noted.object != identity.object || !S_ISREG(now.stx_mode)) return {};
        const Fd readable{::openat(parent_fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC)};
        if (!readable.valid()) return last_error("open '{}'", name);
        return content(identity.object, readable.get(), 0, kToTheEnd);
    }

    // An entry as it is now. No object: there is nothing, or nothing that was told of.
    struct Standing {
        Fd parent;
        std::string name;
        struct statx above {};
        bool there = false;
        ObjectId object{};
    };

    Result<std::optional<Standing>> look(const NotedEntry& noted) {
        if (noted.name_size > NAME_MAX)
            return make_error(EBADMSG, "read a note of the process that was killed");
        auto parent = open(noted.parent, O_RDONLY | O_DIRECTORY);
        if (!parent.ok() && tolerable(parent.error())) return std::optional<Standing>{};
        if (!parent.ok()) return parent.error();
        Standing standing{.parent = std::move(*parent), .name = std::string{noted.name()}};
        const int fd = standing.parent.get();
        if (const int error = stat_object(fd, standing.above)) return plain(error);
        struct statx now {};
        const int error = stat_entry(fd, standing.name.c_str(), now);
        if (error != 0 && error != ENOENT) return make_error(error, "look at '{}'", standing.name);
        standing.there = error == 0;
        if (!standing.there) return std::optional{std::move(standing)};
        const Fd object{::openat(fd, standing.name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)};
        if (!object.valid()) return last_error("open '{}'", standing.name);
        TS_ASSIGN(const Identity identity, identity_of(noted, object.get()));
        if (identity.generation == volume_.generation) standing.object = identity.object;
        return std::optional{std::move(standing)};
    }

    Status log_entry(const NotedEntry& noted, const Standing& standing) {
        if (standing.there) return adopt(noted, standing.name, standing.parent.get());
        return append(UnlinkOp{.object = kNoObject,
                               .parent = noted.parent.object,
                               .name = standing.name,
                               .parent_mtime = mtime_of(standing.above)});
    }

    Status log_parent(const NotedEntry& noted, const Standing& standing) {
        return append(AttributesOp{.object = noted.parent.object,
                                   .attributes = attributes_of(standing.above)});
    }

    // In one record, so that nothing is without a name in between.
    Status log_rename(const Note& note, const Standing& source, const Standing& target) {
        if (target.object == kNoObject || (source.there && source.object == kNoObject)) return {};
        return append(RenameOp{.object = target.object,
                               .source_parent = note.entries[0].parent.object,
                               .source_name = source.name,
                               .target_parent = note.entries[1].parent.object,
                               .target_name = target.name,
                               .replaced = source.object,
                               .exchange = static_cast<std::uint8_t>(source.there ? 1 : 0),
                               .source_mtime = mtime_of(source.above),
                               .target_mtime = mtime_of(target.above)});
    }

    Status entries(const Note& note) {
        std::optional<Standing> standing[kMaxNotedEntries];
        for (std::uint32_t i = 0; i < note.entry_count; ++i) {
            TS_ASSIGN(standing[i], look(note.entries[i]));
        }
        if (note.entry_count == 2 && standing[0] && standing[1])
            TS_TRY(log_rename(note, *standing[0], *standing[1]));
        // What is there first: it may be all that still names what is gone elsewhere.
        for (const bool there : {true, false})
            for (std::uint32_t i = 0; i < note.entry_count; ++i)
                if (standing[i] && standing[i]->there == there)
                    TS_TRY(log_entry(note.entries[i], *standing[i]));
        for (std::uint32_t i = 0; i < note.entry_count; ++i)
            if (standing[i]) TS_TRY(log_parent(note.entries[i], *standing[i]));
        return {};
    }

    // What is not told of is the walker's.
    [[nodiscard]] bool told(const NotedObject& noted, int fd) const {
        const auto known = read_identity(fd, noted.handle);
        return known.ok() && *known && (*known)->object == noted.object &&
               (*known)->generation == volume_.generation;
    }

    Status object(const NotedObject& noted, bool has_range, std::uint64_t offset,
                  std::uint64_t length) {
        auto fd = open(noted, O_PATH | O_NOFOLLOW);
        if (!fd.ok()) return tolerable(fd.error()) ? Status{} : Status{fd.error()};
        if (!told(noted, fd->get())) return {};
        struct statx now {};
        if (const int error = stat_object(fd->get(), now)) return plain(error);
        if (has_range && S_ISREG(now.stx_mode)) {
            TS_ASSIGN(const Fd readable, open(noted, O_RDONLY | O_NOFOLLOW));
            TS_TRY(content(noted.object, readable.get(), offset, length));
        }
        TS_TRY(append(AttributesOp{.object = noted.object, .attributes = attributes_of(now)}));
        if (!has_range) return xattrs_as_they_are(noted.object, fd->get());
        // Which content that is written to may cost it.
        TS_ASSIGN(const auto capability, read_xattr(fd->get(), kCapabilityXattr));
        if (capability) return {};
        return append(RemoveXattrOp{.object = noted.object, .name = kCapabilityXattr});
    }

    // Those that are there; and ACLs and the like, which come and go with a change of mode.
    Status xattrs_as_they_are(ObjectId id, int fd) {
        TS_TRY(log_xattrs(id, fd));
        for (const char* name : {kAccessAcl, kDefaultAcl, kCapabilityXattr}) {
            TS_ASSIGN(const auto there, read_xattr(fd, name));
            if (!there) TS_TRY(append(RemoveXattrOp{.object = id, .name = name}));
        }
        return {};
    }

    // One that was being removed: see Change::note_xattr().
    Status noted_xattr(const Note& note) {
        if (note.entries[0].name_size == 0 || note.entries[0].name_size > NAME_MAX) return {};
        auto fd = open(note.objects[0], O_PATH | O_NOFOLLOW);
        if (!fd.ok()) return tolerable(fd.error()) ? Status{} : Status{fd.error()};
        if (!told(note.objects[0], fd->get())) return {};
        const std::string name{note.entries[0].name()};
        TS_ASSIGN(const auto there, read_xattr(fd->get(), name.c_str()));
        if (there) return {};
        return append(RemoveXattrOp{.object = note.objects[0].object, .name = name});
    }

    Volume& volume_;
    Turn turn_;
};

}  // namespace

Status reconcile(Volume& volume) {
    const std::vector<Note>& notes = volume.journal.predecessor().notes;
    if (notes.empty()) return {};
    Reconciliation reconciliation{volume};
    for (const Note& note : notes) TS_TRY(reconciliation.note(note));
    spdlog::info("looked at {} operations that were in flight when the daemon was killed",
                 notes.size());
    TS_TRY(volume.journal.make_durable(volume.journal.appended()));
    TS_FAULT(recovery_noted);
    volume.journal.forget_notes();
    return {};
}

}  // namespace twinspool
