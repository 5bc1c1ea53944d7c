// SPDX-License-Identifier: Apache-2.0
#include "fuse/tell/mending.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "fuse/objects/directory_stream.h"
#include "fuse/objects/orphans.h"

namespace twinspool {
namespace {

// Credit for as much as one object can take is waited for with nothing held; the attempt itself
// takes its own.
template <typename Attempt>
Status with_credit(Volume& volume, Attempt&& attempt) {
    for (;;) {
        Turn turn{volume.journal, Turn::Waiting::kAllowed};
        const Ending ending = attempt(turn);
        if (ending.is_done()) return {};
        if (ending.is_busy()) return plain(ESTALE);  // another object stands there
        if (!ending.lacks_credit()) return plain(ending);
        if (!volume.journal.take_credit(kMaxFramePayload)) return plain(EROFS);
        volume.journal.give_credit(kMaxFramePayload);
    }
}

Status tell_again(Volume& volume, Inode& parent, const char* name, Inode& object) {
    TS_ASSIGN(const Lease lease, volume.lease(parent));
    return with_credit(volume, [&](Turn& turn) -> Ending {
        const GatePass pass{volume.gate};
        ObjectLocks locks;
        (void)locks.lock({&parent, &object}, turn);
        if (!volume.told(parent) || !volume.told(object) || object.unlinked) return ESTALE;
        return repeat_entry(volume, turn, parent, lease.fd(), name, object);
    });
}

Status tell_again(Volume& volume, const Subject& subject) {
    if (subject.parent)
        return tell_again(volume, *subject.parent, subject.name.c_str(), *subject.object);
    return with_credit(volume, [&](Turn& turn) -> Ending {
        const GatePass pass{volume.gate};
        ObjectLocks locks;
        (void)locks.lock({subject.object.get()}, turn);
        return repeat_root(volume, turn, *subject.object);
    });
}

Status tell_child_again(Volume& volume, Inode& directory, const std::string& name) {
    const Turn turn{volume.journal, Turn::Waiting::kAllowed};
    const auto found = identify_entry(volume, turn, directory, name.c_str());
    if (!found.ok()) return is_gone(found.error().code) ? Status{} : Status{found.error()};
    const Status told = tell_again(volume, directory, name.c_str(), *found->inode);
    return !told.ok() && is_gone(told.error().code) ? Status{} : told;
}

Status state_range(Volume& volume, Inode& directory, int fd, const EntryRange& range) {
    return with_object(
        volume, directory, fd, max_encoded_size(kMaxDataBytes),
        [&](Turn& turn, const struct statx& now) -> Status {
            TS_ASSIGN(const auto entries, entries_with_ids(volume, directory, fd, {}, range));
            std::vector<std::byte> names;
            for (const NamedId& entry : entries) {
                const auto size = static_cast<std::uint32_t>(entry.name.size());
                const auto* const head = reinterpret_cast<const std::byte*>(&size);
                names.insert(names.end(), head, head + sizeof size);
                const auto* const text = reinterpret_cast<const std::byte*>(entry.name.data());
                names.insert(names.end(), text, text + entry.name.size());
            }
            if (names.size() > kMaxDataBytes - 2 * NAME_MAX) return plain(E2BIG);
            turn.append(EntriesOp{.parent = directory.id,
                                  .after = range.after,
                                  .upto = range.upto,
                                  .names = names,
                                  .parent_mtime = mtime_of(now)});
            return {};
        });
}

Status mend_entries(Volume& volume, const Damage& damage) {
    Inode& directory = *damage.subject.object;
    TS_ASSIGN(const Lease lease, volume.lease(directory));
    std::set<std::string> names = damage.names;
    if (damage.all_names)
        for (const EntryRange& range : damage.entries) {
            TS_ASSIGN(const auto entries,
                      entries_with_ids(volume, directory, lease.fd(), {}, range));
            for (const NamedId& entry : entries) names.insert(entry.name);
        }
    for (const std::string& name : names) TS_TRY(tell_child_again(volume, directory, name));
    for (const EntryRange& range : damage.entries)
        TS_TRY(state_range(volume, directory, lease.fd(), range));
    return {};
}

Status mend_content(Volume& volume, const Damage& damage,
                    const std::function<Status(std::uint64_t)>& logged) {
    Inode& file = *damage.subject.object;
    TS_ASSIGN(const Fd fd, open_content(volume, file));
    auto ranges = damage.content;
    if (damage.missing) ranges = {{0, UINT64_MAX}};
    if (damage.missing || damage.size) TS_TRY(log_size(volume, file, fd.get()));
    for (const auto& [from, end] : ranges) {
        ContentStep step{.next = from};
        while (!step.at_end) {
            TS_ASSIGN(step, log_content(volume, file, fd.get(), step.next, end));
            TS_TRY(logged(step.logged));
        }
    }
    return log_attributes(volume, file, fd.get());
}

}  // namespace

Subject Subject::share() const {
    Subject copy{.object = object.share(), .parent = {}, .name = name, .path = path};
    if (parent) copy.parent = parent.share();
    return copy;
}

Status mend(Volume& volume, const Damage& damage,
            const std::function<Status(std::uint64_t)>& logged) {
    const bool is_file = damage.subject.object->type == S_IFREG;
    if (damage.missing || damage.attributes) TS_TRY(tell_again(volume, damage.subject));
    if (!damage.entries.empty()) TS_TRY(mend_entries(volume, damage));
    if (is_file && (damage.missing || damage.size || !damage.content.empty()))
        TS_TRY(mend_content(volume, damage, logged));
    return {};
}

namespace {

bool is_within(std::string_view name, const EntryRange& range) {
    return name > range.after && (range.upto.empty() || name <= range.upto);
}

}  // namespace

Result<std::vector<NamedId>> entries_with_ids(Volume& volume, const Inode& directory, int fd,
                                              const KnownIds& known, const EntryRange& range) {
    Fd own{::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!own.valid()) return plain(errno);
    DirectoryStream stream{std::move(own)};
    std::vector<NamedId> entries;
    for (;; stream.skip()) {
        TS_ASSIGN(const auto entry, stream.peek());
        if (!entry) break;
        const char* const name = entry->name;
        if (std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0 ||
            !is_within(name, range) || is_hidden(volume, directory, name))
            continue;
        const auto before = known.find(name);
        if (before != known.end() && before->second.number == entry->number) {
            entries.push_back({.name = name, .object = before->second.object});
            continue;
        }
        const Fd object{::openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)};
        if (!object.valid() && is_gone(errno)) continue;
        if (!object.valid()) return plain(errno);
        struct statx now {};
        if (const int error = stat_object(object.get(), now)) return plain(error);
        if (!belongs(volume.directories[directory.directory], now)) continue;
        TS_ASSIGN(const auto inode,
                  identify_object(volume, directory.directory, object.get(), now));
        entries.push_back({.name = name, .object = inode->id});
    }
    std::sort(entries.begin(), entries.end(),
              [](const NamedId& one, const NamedId& other) { return one.name < other.name; });
    return entries;
}

}  // namespace twinspool
