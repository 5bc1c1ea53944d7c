// SPDX-License-Identifier: Apache-2.0
// ApplyRun: the state of one call of apply(). Its passes are called once each, in order; entries in
// journal/delta/apply_entries.cc, contents and attributes in journal/delta/apply_objects.cc.
// Used by journal/delta/apply only; one thread.
#pragma once

#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "journal/delta/apply.h"

namespace twinspool {

class ApplyRun {
   public:
    ApplyRun(const Delta& delta, Tree& tree, ObjectIndex& index, const ApplyOptions& options)
        : delta_(delta), tree_(tree), index_(index), options_(options) {}

    Status place_entries();
    Status remove_entries();
    Status change_contents();
    Status set_attributes();
    Status empty_staging();
    Status forget_the_gone();
    Status set_directory_times();

    [[nodiscard]] const ApplyCounters& counters() const { return counters_; }

   private:
    // Why a name goes. By an operation: its object goes with its last name, if the operation says
    // so. By a statement: the object is parked, since it may be told of elsewhere. For good: all
    // goes.
    enum class Removal { kByOperation, kByStatement, kForGood };
    enum class Realness : bool { kLeftOver, kReal };

    // --- entries
    Status ensure_placed(ObjectId directory);
    Result<ObjectId> parent_at_end(ObjectId directory);
    Status place(const Link& link, const ObjectChange& change);
    Status make_parked(const ObjectChange& change);
    Status place_known(int directory, const Link& link, const ObjectChange& change,
                       const IndexEntry& known, int object);
    Status place_new(int directory, const Link& link, const ObjectChange& change);
    Status note_placed(const ObjectChange& change, const Link& link, IndexEntry entry);
    Status take_away(int directory, const char* name, const Standing& standing, Removal removal);
    Status take_away_directory(int directory, const char* name, const Standing& standing,
                               Removal removal);
    Status park(int directory, const char* name, const Standing& standing);
    Status has_name_again(ObjectId object, const IndexEntry& known, int fd);
    // Its last name goes: kept for a snapshot, or removed. `real`: it is the object itself.
    Status let_go(int directory, const char* name, const Standing& standing, Realness real);
    Status keep(int directory, const char* name, const Standing& standing, const IndexEntry& known,
                const Keeper::Place& place);
    Status note_kept(ObjectId object, IndexEntry known, const struct stat& status, Lsn upto);
    Status note_if_kept(ObjectId object, const IndexEntry& known, int fd);
    Status remove_named(const ObjectChange& directory, int fd);
    Status remove_unlisted(const ObjectChange& directory, int fd);
    Status empty_folder(int folder, Removal removal);
    Status empty_entry(int folder, const std::string& name, Removal removal);
    [[nodiscard]] bool wanted(const Standing& standing) const;
    [[nodiscard]] bool goes_for_good(const Standing& standing, Removal removal) const;
    Result<bool> counts(const Standing& standing);  // it is the object, not a left-over with its id

    // --- objects
    Status write_content(const ObjectChange& change);
    Status set_attributes_of(const ObjectChange& change);
    Status set_xattrs(int object, const ObjectChange& change);
    Status set_time_of(ObjectId directory);
    // Nothing: it is gone, or never came to be, and may be.
    Result<Fd> open_changed(const ObjectChange& change, int flags);

    // The object's descriptor for *at() calls, borrowed until the next call; -1: it is gone, and
    // may be.
    Result<int> directory_fd(ObjectId directory);
    [[nodiscard]] Error diverged(const ObjectChange& change, std::string_view what) const;

    const Delta& delta_;
    Tree& tree_;
    ObjectIndex& index_;
    const ApplyOptions options_;
    ApplyCounters counters_;
    std::unordered_set<ObjectId> ensured_;   // it and what is above it stand where they belong
    std::unordered_set<ObjectId> touched_;   // directories whose mtime has to be set
    std::unordered_map<ObjectId, Fd> open_;  // directories
    bool something_parked_ = false;
};

}  // namespace twinspool
