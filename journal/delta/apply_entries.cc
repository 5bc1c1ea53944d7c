// SPDX-License-Identifier: Apache-2.0
// The part of ApplyRun that places and removes entries.
#include <fcntl.h>
#include <sys/stat.h>

#include <utility>
#include <vector>

#include "journal/delta/apply_run.h"

namespace twinspool {

Status ApplyRun::place_entries() {
    TS_ASSIGN(const auto parked, tree_.list(tree_.parked()));
    something_parked_ = !parked.empty();
    for (const ObjectChange& change : delta_.objects()) {
        if (change.links.empty()) TS_TRY(make_parked(change));
        for (const Link& link : change.links) {
            if (ensured_.contains(change.id)) break;  // a directory, placed on the way to others
            TS_TRY(place(link, change));
        }
    }
    return {};
}

// A directory can be moved below another only when what is above that one stands where it belongs:
// until then that may be the very directory to be moved.
Status ApplyRun::ensure_placed(ObjectId directory) {
    std::vector<ObjectId> chain;
    for (ObjectId id = directory; id != kRootObject && id != kNoObject;) {
        if (!ensured_.insert(id).second) break;
        chain.push_back(id);
        TS_ASSIGN(id, parent_at_end(id));
    }
    for (; !chain.empty(); chain.pop_back()) {
        const ObjectChange* change = delta_.find(chain.back());
        if (change == nullptr) continue;
        if (change->links.empty())
            TS_TRY(make_parked(*change));
        else
            TS_TRY(place(change->links.back(), *change));
    }
    return {};
}

// New in this range, and without a name at its end by a statement only.
Status ApplyRun::make_parked(const ObjectChange& change) {
    if (!change.told || change.gone()) return {};
    TS_ASSIGN(const auto known, index_.find(change.id));
    if (known) {
        const auto object = tree_.open_object(known->handle, O_PATH);
        if (object.ok()) return {};
        if (object.error().code != ESTALE) return object.error();
    }
    const std::string name = fmt::format("new-{:016x}", raw(change.id));
    const Link place{.parent = kNoObject, .name = name};
    TS_TRY(place_new(tree_.staging(), place, change));
    TS_ASSIGN(const auto standing, tree_.at(tree_.staging(), name.c_str()));
    if (!standing) return diverged(change, "was just made and is not there");
    return park(tree_.staging(), name.c_str(), *standing);
}

Result<ObjectId> ApplyRun::parent_at_end(ObjectId directory) {
    const ObjectChange* change = delta_.find(directory);
    if (change != nullptr && !change->links.empty()) return change->links.back().parent;
    TS_ASSIGN(const auto known, index_.find(directory));
    return known ? known->parent : kNoObject;
}

Status ApplyRun::place(const Link& link, const ObjectChange& change) {
    Fd folder;
    int directory = -1;
    std::string_view name = link.name;
    if (link.parent == kRootObject) {
        TS_ASSIGN(folder, tree_.open_parent_of_root(link.name));
        directory = folder.get();
        name.remove_prefix(name.rfind('/') + 1);
    } else {
        TS_TRY(ensure_placed(link.parent));
        const ObjectChange& parent = *delta_.find(link.parent);
        if (parent.gone()) return diverged(change, "is put into a directory that is removed");
        TS_ASSIGN(directory, directory_fd(link.parent));
        if (directory < 0) return diverged(parent, "is not in the replica");
    }
    const Link place{.parent = link.parent, .name = name};
    TS_ASSIGN(const auto known, index_.find(change.id));
    if (known) {
        auto object = tree_.open_object(known->handle, O_PATH);
        if (object.ok()) return place_known(directory, place, change, *known, object->get());
        if (object.error().code != ESTALE) return object.error();
        if (change.told) TS_TRY(index_.erase(change.id));
    }
    if (!change.told) {
        if (!known && options_.tree == ApplyOptions::Tree::kBeingSeeded) return {};
        return diverged(change, "is not in the replica");
    }
    return place_new(directory, place, change);
}

Status ApplyRun::place_known(int directory, const Link& link, const ObjectChange& change,
                             const IndexEntry& known, int object) {
    const EntryName name{link.name};
    const bool is_directory = known.type == S_IFDIR;
    if (!is_directory) {
        auto linked = tree_.link(object, directory, name.c_str());
        if (!linked.ok() && linked.error().code != EEXIST) return linked;
        if (linked.ok()) {
            ++counters_.placed;
            return has_name_again(change.id, known, object);
        }
    }
    TS_ASSIGN(const auto standing, tree_.at(directory, name.c_str()));
    if (!standing || standing->handle != known.handle) {
        if (standing) TS_TRY(take_away(directory, name.c_str(), *standing, Removal::kByOperation));
        ++counters_.placed;
        TS_TRY(is_directory ? tree_.move_directory(object, directory, name.c_str())
                            : tree_.link(object, directory, name.c_str()));
    }
    return is_directory ? note_placed(change, link, known)
                        : has_name_again(change.id, known, object);
}

Status ApplyRun::place_new(int directory, const Link& link, const ObjectChange& change) {
    const EntryName name{link.name};
    const std::uint32_t type = change.attributes->mode & S_IFMT;
    const ObjectToMake what{
        .object = change.id, .type = type, .device = change.device, .target = change.target};
    auto made = tree_.make(directory, name.c_str(), what);
    if (!made.ok() && made.error().code == EEXIST) {
        TS_ASSIGN(auto standing, tree_.at(directory, name.c_str()));
        if (standing && standing->object == change.id &&
            (standing->status.st_mode & S_IFMT) == type) {
            made = std::move(*standing);  // by an apply that was interrupted
        } else {
            if (standing)
                TS_TRY(take_away(directory, name.c_str(), *standing, Removal::kByOperation));
            made = tree_.make(directory, name.c_str(), what);
        }
    }
    if (!made.ok()) return made.error();
    ++counters_.made;
    return note_placed(change, link,
                       {.handle = made->handle, .type = type, .parent = {}, .mtime = {}});
}

Status ApplyRun::note_placed(const ObjectChange& change, const Link& link, IndexEntry entry) {
    if (entry.type == S_IFDIR) {
        ensured_.insert(change.id);
        touched_.insert(change.id);
        if (entry.parent != kNoObject) touched_.insert(entry.parent);
        entry.parent = link.parent;
        entry.kept = {};
        if (change.mtime) entry.mtime = *change.mtime;
    }
    return index_.put(change.id, entry);
}

Status ApplyRun::remove_entries() {
    for (const ObjectChange& change : delta_.objects()) {
        if (!change.directory || change.id == kRootObject) continue;
        TS_ASSIGN(const int directory, directory_fd(change.id));
        if (directory < 0) continue;
        TS_TRY(remove_named(change, directory));
        if (!change.directory->statements.empty()) TS_TRY(remove_unlisted(change, directory));
    }
    return {};
}

Status ApplyRun::remove_named(const ObjectChange& directory, int fd) {
    for (const auto& [name, entry] : directory.directory->entries) {
        if (entry.object != kNoObject) continue;
        const EntryName text{name};
        TS_ASSIGN(const auto standing, tree_.at(fd, text.c_str()));
        if (!standing) continue;
        ++counters_.removed;
        TS_TRY(take_away(fd, text.c_str(), *standing,
                         entry.by_statement ? Removal::kByStatement : Removal::kByOperation));
    }
    return {};
}

Status ApplyRun::remove_unlisted(const ObjectChange& directory, int fd) {
    const DirectoryChange& change = *directory.directory;
    TS_ASSIGN(const auto names, tree_.list(fd));
    for (const auto& name : names) {
        if (change.entries.contains(name)) continue;
        bool removed = false;
        for (const Statement& statement : change.statements) removed |= statement.removes(name);
        if (!removed) continue;
        TS_ASSIGN(const auto standing, tree_.at(fd, name.c_str()));
        if (!standing) continue;
        ++counters_.removed;
        TS_TRY(take_away(fd, name.c_str(), *standing, Removal::kByStatement));
    }
    return {};
}

// Once more than one inode carries an object's id, after an interrupted apply, the index decides.
Result<bool> ApplyRun::counts(const Standing& standing) {
    if (standing.object == kNoObject) return false;
    TS_ASSIGN(const auto known, index_.find(standing.object));
    return known && known->handle == standing.handle;
}

bool ApplyRun::wanted(const Standing& standing) const {
    const ObjectChange* change = delta_.find(standing.object);
    return change != nullptr && !change->links.empty();
}

bool ApplyRun::goes_for_good(const Standing& standing, Removal removal) const {
    if (removal != Removal::kByOperation) return removal == Removal::kForGood;
    const ObjectChange* change = delta_.find(standing.object);
    return change != nullptr && change->ends();
}

Status ApplyRun::take_away(int directory, const char* name, const Standing& standing,
                           Removal removal) {
    if (standing.is_directory()) return take_away_directory(directory, name, standing, removal);
    TS_ASSIGN(const bool real, counts(standing));
    const bool last = standing.status.st_nlink == 1;
    if (real && last) {
        if (removal != Removal::kForGood && wanted(standing))
            return tree_.set_aside(directory, name, standing, tree_.staging());
        if (!goes_for_good(standing, removal)) return park(directory, name, standing);
    }
    return let_go(directory, name, standing, real && last ? Realness::kReal : Realness::kLeftOver);
}

Status ApplyRun::take_away_directory(int directory, const char* name, const Standing& standing,
                                     Removal removal) {
    TS_ASSIGN(const bool real, counts(standing));
    if (real && wanted(standing))
        return tree_.set_aside(directory, name, standing, tree_.staging());
    if (real && !goes_for_good(standing, removal)) return park(directory, name, standing);
    auto gone = let_go(directory, name, standing, real ? Realness::kReal : Realness::kLeftOver);
    if (gone.ok() || (gone.error().code != ENOTEMPTY && gone.error().code != EEXIST)) return gone;
    // What is in it may be wanted elsewhere and not have been placed yet.
    return tree_.set_aside(directory, name, standing, tree_.staging());
}

Status ApplyRun::park(int directory, const char* name, const Standing& standing) {
    something_parked_ = true;
    ++counters_.parked;
    return tree_.set_aside(directory, name, standing, tree_.parked());
}

Status ApplyRun::let_go(int directory, const char* name, const Standing& standing, Realness real) {
    if (real == Realness::kReal && options_.keeper != nullptr) {
        TS_ASSIGN(const auto known, index_.find(standing.object));
        TS_ASSIGN(const auto place, options_.keeper->place_for(*known));
        if (place.folder >= 0) return keep(directory, name, standing, *known, place);
    }
    TS_TRY(standing.is_directory() ? tree_.remove_directory(directory, name)
                                   : tree_.unlink(directory, name));
    return real == Realness::kReal ? index_.erase(standing.object) : Status{};
}

// It is found by its handle as before.
Status ApplyRun::keep(int directory, const char* name, const Standing& standing,
                      const IndexEntry& known, const Keeper::Place& place) {
    if (standing.is_directory()) {
        TS_ASSIGN(const auto names, tree_.list(standing.fd.get()));
        if (!names.empty()) return make_error(ENOTEMPTY, "keep the directory \"{}\"", name);
    }
    TS_TRY(tree_.set_aside(directory, name, standing, place.folder));
    return note_kept(standing.object, known, standing.status, place.kept);
}

Status ApplyRun::note_kept(ObjectId object, IndexEntry known, const struct stat& status, Lsn upto) {
    known.kept = upto;
    options_.keeper->keeps(known, static_cast<std::uint64_t>(status.st_blocks) * 512);
    return index_.put(object, known);
}

// After an apply that was interrupted when it had set the object aside.
Status ApplyRun::note_if_kept(ObjectId object, const IndexEntry& known, int fd) {
    if (options_.keeper == nullptr || known.kept != Lsn{}) return {};
    TS_ASSIGN(const auto place, options_.keeper->place_for(known));
    if (place.folder < 0) return {};
    struct stat status {};
    if (::fstat(fd, &status) != 0) return last_error("look at an object");
    TS_ASSIGN(const bool aside, tree_.stands_aside(object, status.st_ino, place.folder));
    return aside ? note_kept(object, known, status, place.kept) : Status{};
}

Status ApplyRun::has_name_again(ObjectId object, const IndexEntry& known, int fd) {
    if (something_parked_) TS_TRY(tree_.release(object, fd, tree_.parked()));
    if (known.kept == Lsn{} || options_.keeper == nullptr) return {};
    TS_ASSIGN(const int folder, options_.keeper->folder_of(known));
    if (folder >= 0) TS_TRY(tree_.release(object, fd, folder));
    IndexEntry again = known;
    again.kept = {};
    return index_.put(object, again);
}

Status ApplyRun::empty_staging() {
    open_.clear();
    TS_TRY(empty_folder(tree_.staging(), Removal::kByOperation));
    if (delta_.all_told()) TS_TRY(empty_folder(tree_.parked(), Removal::kForGood));
    return {};
}

Status ApplyRun::empty_folder(int folder, Removal removal) {
    TS_ASSIGN(const auto names, tree_.list(folder));
    for (const auto& name : names) TS_TRY(empty_entry(folder, name, removal));
    return {};
}

Status ApplyRun::empty_entry(int folder, const std::string& name, Removal removal) {
    TS_ASSIGN(const auto standing, tree_.at(folder, name.c_str()));
    if (!standing) return {};
    TS_ASSIGN(const bool real, counts(*standing));
    if (removal != Removal::kForGood && real && wanted(*standing) &&
        (standing->is_directory() || standing->status.st_nlink == 1))
        return diverged(*delta_.find(standing->object), "has a place, but was not put there");
    if (!standing->is_directory() || (real && !goes_for_good(*standing, removal)))
        return take_away(folder, name.c_str(), *standing, removal);
    TS_TRY(empty_folder(standing->fd.get(), removal));
    return let_go(folder, name.c_str(), *standing, real ? Realness::kReal : Realness::kLeftOver);
}

}  // namespace twinspool
