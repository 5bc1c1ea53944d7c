// SPDX-License-Identifier: Apache-2.0
// Delta: the net effect of a range of the journal. Per object: final attributes, extended
// attributes and content; per directory: final entries. What was made and gone again within the
// range leaves nothing behind. Used for applying, for redo after a crash, and for reading between
// two positions.
//
// Invariants: add() is called in order of Lsn. For each object, `links` are just the entries of
// this delta that lead to it. A delta of a longer range from the same start mentions every entry
// and every object that the shorter one does: that makes an interrupted apply harmless. Names,
// values and data are borrowed from the frames, which the delta keeps. One thread. The caller
// bounds the memory by where it cuts the range.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/delta/pending_checks.h"
#include "journal/format/extents.h"
#include "journal/format/frame.h"
#include "journal/format/op.h"
#include "journal/format/record.h"

namespace twinspool {

// What a name leads to at the end of the range.
struct EntryChange {
    ObjectId object = kNoObject;  // kNoObject: the name is gone
    // Gone because a statement about the directory as it is does not list it; its object may be
    // told of elsewhere, later.
    bool by_statement = false;
};

// See EntriesOp. `names` ascend.
struct Statement {
    std::string_view after;
    std::string_view upto;
    std::vector<std::string_view> names;
    [[nodiscard]] bool removes(std::string_view name) const;
};

struct DirectoryChange {
    std::map<std::string_view, EntryChange> entries;
    std::vector<Statement> statements;
};

struct Link {
    ObjectId parent{};
    std::string_view name;
};

struct ObjectChange {
    ObjectId id{};
    Lsn first;                     // the record that mentions it first, for messages
    std::string_view first_word;   // and its operation
    bool created = false;          // by a CreateOp
    bool told = false;             // created or adopted: type, device and target are known
    bool unlinked = false;         // a name of it was taken away by an operation that says so
    bool dropped = false;          // a name was dropped by a statement since it was told of last
    std::uint32_t names_left = 0;  // in the source, when a name was taken away last
    std::optional<Attributes> attributes;  // but for the mtime
    std::optional<FileTime> mtime;
    std::uint64_t device = 0;
    std::string_view target;
    ContentChange content;
    bool xattrs_cleared = false;                              // none but the following
    std::map<std::string_view, std::optional<Bytes>> xattrs;  // nothing: removed
    std::vector<Link> links;
    std::unique_ptr<DirectoryChange> directory;

    // No name is left, unless one that this delta does not mention. What the source still has is
    // kept: it may be told of elsewhere, later.
    [[nodiscard]] bool gone() const { return links.empty() && ends(); }
    // ... if the one that it stands under goes.
    [[nodiscard]] bool ends() const { return unlinked && !dropped && names_left == 0; }
    // Made and gone within the range.
    [[nodiscard]] bool elided() const { return created && gone(); }
};

// The snapshot that a delta ends with.
struct Mark {
    Lsn number;
    std::string_view name;
    WallTime time{};
    bool incomplete = false;
};

class Delta {
   public:
    Delta() = default;
    Delta(const Delta&) = delete;
    Delta& operator=(const Delta&) = delete;

    // Adds the records of the frame beyond `applied`, up to where the range ends, and keeps the
    // frame.
    Status add(Frame frame, Lsn applied);
    // Adds one record; what it points to must outlive the delta. EBADMSG: a name or a range that no
    // file system has. No record may follow the end of the range.
    Status add(const Record& record);
    // With a mark, or with an exact check and those right behind it: what follows belongs to
    // another range.
    [[nodiscard]] bool ends() const { return mark_ || checks_.exact(); }

    // In the order of their first mention. kRootObject holds the volume's directories, by path.
    [[nodiscard]] const std::deque<ObjectChange>& objects() const { return objects_; }
    [[nodiscard]] const ObjectChange* find(ObjectId id) const;
    // The newest SeededOp in the range.
    [[nodiscard]] std::optional<std::uint32_t> seeded() const { return seeded_; }
    // A walk ended in this range and none began since: what lost its name by a statement and was
    // not told of elsewhere is gone for good.
    [[nodiscard]] bool all_told() const { return all_told_; }

    // The delta ends with this mark.
    [[nodiscard]] const std::optional<Mark>& mark() const { return mark_; }
    // To be made when the range has been applied.
    [[nodiscard]] const std::vector<PendingCheck>& checks() const { return checks_.all(); }
    [[nodiscard]] std::uint64_t check_bytes() const { return checks_.bytes(); }  // to be read

    // Snapshots that are to be destroyed.
    [[nodiscard]] const std::vector<Lsn>& unmarked() const { return unmarked_; }

    [[nodiscard]] bool empty() const { return records_ == 0; }
    [[nodiscard]] Lsn last() const { return last_; }
    [[nodiscard]] std::uint64_t records() const { return records_; }
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }  // of the frames kept
    [[nodiscard]] std::uint64_t elided() const;  // objects that were made and gone again

   private:
    ObjectChange& object(ObjectId id);
    DirectoryChange& directory(ObjectId id);
    void set_entry(ObjectId parent, std::string_view name, EntryChange entry);
    void take_name(ObjectId id, std::uint32_t names_left);
    void set_time(ObjectId id, const FileTime& mtime);
    void tell(ObjectChange& change, const Attributes& attributes);

    Status on(const EpochOp&) { return {}; }
    Status on(const DirectoryOp& op);
    Status on(const AdoptOp& op);
    Status on(const CreateOp& op);
    Status on(const LinkOp& op);
    Status on(const UnlinkOp& op);
    Status on(const RenameOp& op);
    Status on(const WriteOp& op);
    Status on(const TruncateOp& op);
    Status on(const AllocateOp& op);
    Status on(const AttributesOp& op);
    Status on(const SetXattrOp& op);
    Status on(const RemoveXattrOp& op);
    Status on(const EntriesOp& op);
    Status on(const StandbyOp&) { return {}; }
    Status on(const SeededOp& op);
    Status on(const ClosedOp&) { return {}; }
    Status on(const MarkOp& op);
    Status on(const UnmarkOp& op);
    Status on(const CheckContentOp& op) { return checks_.add(last_, op); }
    Status on(const CheckObjectOp& op) { return checks_.add(last_, op); }
    Status on(const CheckEntriesOp& op) { return checks_.add(last_, op); }
    Status on(const VoidOp&) { return {}; }
    Status on(std::monostate) { return {}; }

    std::deque<Frame> frames_;
    std::deque<ObjectChange> objects_;
    std::unordered_map<ObjectId, ObjectChange*> by_id_;
    std::optional<std::uint32_t> seeded_;
    bool all_told_ = false;
    std::optional<Mark> mark_;
    std::vector<Lsn> unmarked_;
    PendingChecks checks_;
    bool closed_ = false;  // a record behind the end has been left out
    Lsn last_;
    std::string_view word_;  // of the record being added
    std::uint64_t records_ = 0;
    std::uint64_t bytes_ = 0;
};

}  // namespace twinspool
