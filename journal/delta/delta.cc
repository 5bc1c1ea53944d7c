// SPDX-License-Identifier: Apache-2.0
#include "journal/delta/delta.h"

#include <sys/stat.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <utility>

#include "journal/base/handle.h"

namespace twinspool {
namespace {

constexpr std::uint64_t kMaxOffset = INT64_MAX;

// The applier hands names to the kernel: whatever a record says, none may lead out of its
// directory.
Status check_name(std::string_view name) {
    if (name.empty() || name.size() > NAME_MAX || name == "." || name == ".." ||
        name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos)
        return make_error(EBADMSG, "take \"{}\" for the name of an entry", name);
    return {};
}

Status check_path(std::string_view path) {
    const auto bad = [&] {
        return make_error(EBADMSG, "take \"{}\" for a directory's path", path);
    };
    if (path.size() < 2 || path.front() != '/') return bad();
    for (std::string_view rest = path.substr(1);;) {
        const auto slash = rest.find('/');
        if (!check_name(rest.substr(0, slash)).ok()) return bad();
        if (slash == std::string_view::npos) return {};
        rest = rest.substr(slash + 1);
    }
}

Status check_xattr(std::string_view name) {
    if (name.empty() || name.size() > 255 || name.find('\0') != std::string_view::npos ||
        name.starts_with(kPrivateXattrPrefix))
        return make_error(EBADMSG, "take \"{}\" for the name of an extended attribute", name);
    return {};
}

Status check_range(std::uint64_t offset, std::uint64_t length) {
    if (offset > kMaxOffset || length > kMaxOffset - offset)
        return make_error(EBADMSG, "take {}+{} for a range of a file", offset, length);
    return {};
}

bool is_check(const Op& op) {
    return std::holds_alternative<CheckContentOp>(op) ||
           std::holds_alternative<CheckObjectOp>(op) || std::holds_alternative<CheckEntriesOp>(op);
}

}  // namespace

bool Statement::removes(std::string_view name) const {
    if (name <= after || (!upto.empty() && name > upto)) return false;
    return !std::binary_search(names.begin(), names.end(), name);
}

Status Delta::add(Frame frame, Lsn applied) {
    frame.stored = {};
    bytes_ += frame.payload.size();
    frames_.push_back(std::move(frame));
    return frames_.back().for_each([&](const Record& record) -> Status {
        if (record.lsn <= applied) return {};
        closed_ = closed_ || mark_ || (checks_.exact() && !is_check(record.op));
        return closed_ ? Status{} : add(record);
    });
}

Status Delta::add(const Record& record) {
    TS_ASSERT(!mark_ && !closed_);
    last_ = record.lsn;
    ++records_;
    return std::visit(
        [&](const auto& op) -> Status {
            using T = std::decay_t<decltype(op)>;
            if constexpr (!std::is_same_v<T, std::monostate>) word_ = OpTraits<T>::word;
            return on(op);
        },
        record.op);
}

const ObjectChange* Delta::find(ObjectId id) const {
    const auto it = by_id_.find(id);
    return it == by_id_.end() ? nullptr : it->second;
}

std::uint64_t Delta::elided() const {
    return static_cast<std::uint64_t>(std::count_if(
        objects_.begin(), objects_.end(), [](const ObjectChange& o) { return o.elided(); }));
}

ObjectChange& Delta::object(ObjectId id) {
    auto& place = by_id_[id];
    if (place == nullptr) {
        place = &objects_.emplace_back();
        place->id = id;
        place->first = last_;
        place->first_word = word_;
    }
    return *place;
}

DirectoryChange& Delta::directory(ObjectId id) {
    auto& change = object(id);
    if (!change.directory) change.directory = std::make_unique<DirectoryChange>();
    return *change.directory;
}

void Delta::set_entry(ObjectId parent, std::string_view name, EntryChange entry) {
    checks_.entry_changed(parent, name);
    auto& current = directory(parent).entries[name];
    if (current.object != kNoObject) {
        auto& before = object(current.object);
        before.dropped |= entry.by_statement;
        std::erase_if(before.links,
                      [&](const Link& l) { return l.parent == parent && l.name == name; });
    }
    current = entry;
    if (entry.object != kNoObject) object(entry.object).links.push_back({parent, name});
}

// A directory that goes is empty: what this delta still has in it went underneath, unnoticed.
void Delta::take_name(ObjectId id, std::uint32_t names_left) {
    if (id == kNoObject) return;
    auto& change = object(id);
    change.unlinked = true;
    change.names_left = names_left;
    if (names_left == 0) checks_.gone(id);
    if (!change.directory) return;
    for (const auto& [name, entry] : change.directory->entries)
        if (entry.object != kNoObject) set_entry(id, name, {.by_statement = true});
}

void Delta::set_time(ObjectId id, const FileTime& mtime) {
    checks_.object_changed(id);
    object(id).mtime = mtime;
}

void Delta::tell(ObjectChange& change, const Attributes& attributes) {
    checks_.object_changed(change.id);
    change.told = true;
    change.dropped = false;
    change.attributes = attributes;
    change.mtime = attributes.mtime;
}

Status Delta::on(const DirectoryOp& op) {
    TS_TRY(check_path(op.path));
    auto& change = object(op.object);
    tell(change, op.attributes);
    change.xattrs_cleared = true;
    change.xattrs.clear();
    while (!change.links.empty())  // it stands nowhere else
        set_entry(change.links.back().parent, change.links.back().name, {});
    set_entry(kRootObject, op.path, {.object = op.object});
    return {};
}

Status Delta::on(const AdoptOp& op) {
    TS_TRY(check_name(op.name));
    all_told_ = false;
    auto& change = object(op.object);
    tell(change, op.attributes);
    change.device = op.device;
    change.target = op.target;
    change.xattrs_cleared = true;
    change.xattrs.clear();
    if (S_ISDIR(op.attributes.mode)) {
        while (!change.links.empty()) {
            const Link link = change.links.back();
            set_entry(link.parent, link.name, {});
        }
    }
    const auto& entries = directory(op.parent).entries;
    const auto before = entries.find(op.name);
    if (before != entries.end() && before->second.object != op.object)
        set_entry(op.parent, op.name, {.by_statement = true});
    set_entry(op.parent, op.name, {.object = op.object});
    return {};
}

Status Delta::on(const CreateOp& op) {
    TS_TRY(check_name(op.name));
    auto& change = object(op.object);
    change.created = true;
    tell(change, op.attributes);
    change.device = op.device;
    change.target = op.target;
    change.xattrs_cleared = true;
    change.xattrs.clear();
    if (S_ISREG(op.attributes.mode)) change.content.start_empty();
    set_entry(op.parent, op.name, {.object = op.object});
    set_time(op.parent, op.parent_mtime);
    return {};
}

Status Delta::on(const LinkOp& op) {
    TS_TRY(check_name(op.name));
    set_entry(op.parent, op.name, {.object = op.object});
    set_time(op.parent, op.parent_mtime);
    return {};
}

Status Delta::on(const UnlinkOp& op) {
    TS_TRY(check_name(op.name));
    take_name(op.object, op.names_left);
    if (op.object == kNoObject) all_told_ = false;
    set_entry(op.parent, op.name, {.by_statement = op.object == kNoObject});
    set_time(op.parent, op.parent_mtime);
    return {};
}

Status Delta::on(const RenameOp& op) {
    TS_TRY(check_name(op.source_name));
    TS_TRY(check_name(op.target_name));
    if (op.exchange != 0) {
        set_entry(op.source_parent, op.source_name, {.object = op.replaced});
    } else {
        take_name(op.replaced, op.names_left);
        set_entry(op.source_parent, op.source_name, {});
    }
    set_entry(op.target_parent, op.target_name, {.object = op.object});
    set_time(op.source_parent, op.source_mtime);
    set_time(op.target_parent, op.target_mtime);
    return {};
}

Status Delta::on(const WriteOp& op) {
    TS_TRY(check_range(op.offset, op.data.size()));
    auto& change = object(op.object);
    checks_.written(op.object, op.offset, op.data.size());
    change.content.write(op.offset, op.data);
    change.mtime = op.mtime;
    return {};
}

Status Delta::on(const TruncateOp& op) {
    TS_TRY(check_range(op.size, 0));
    auto& change = object(op.object);
    checks_.truncated(op.object, op.size);
    change.content.truncate(op.size);
    change.mtime = op.mtime;
    return {};
}

Status Delta::on(const AllocateOp& op) {
    TS_TRY(check_range(op.offset, op.length));
    TS_TRY(check_range(op.size, 0));
    auto& change = object(op.object);
    checks_.allocated(op);
    change.content.allocate(op);
    change.mtime = op.mtime;
    return {};
}

Status Delta::on(const AttributesOp& op) {
    checks_.object_changed(op.object);
    auto& change = object(op.object);
    change.attributes = op.attributes;
    change.mtime = op.attributes.mtime;
    return {};
}

Status Delta::on(const SetXattrOp& op) {
    TS_TRY(check_xattr(op.name));
    checks_.object_changed(op.object);
    object(op.object).xattrs[op.name] = op.value;
    return {};
}

Status Delta::on(const RemoveXattrOp& op) {
    TS_TRY(check_xattr(op.name));
    checks_.object_changed(op.object);
    object(op.object).xattrs[op.name] = std::nullopt;
    return {};
}

Status Delta::on(const EntriesOp& op) {
    Statement statement{.after = op.after, .upto = op.upto, .names = {}};
    for (Bytes rest = op.names; !rest.empty();) {
        std::uint32_t size = 0;
        if (rest.size() < sizeof size) return make_error(EBADMSG, "read a list of names");
        std::memcpy(&size, rest.data(), sizeof size);
        rest = rest.subspan(sizeof size);
        if (rest.size() < size) return make_error(EBADMSG, "read a list of names");
        const std::string_view name{reinterpret_cast<const char*>(rest.data()), size};
        if (!statement.names.empty() && name <= statement.names.back())
            return make_error(EBADMSG, "read a list of names: \"{}\" is out of order", name);
        statement.names.push_back(name);
        rest = rest.subspan(size);
    }
    all_told_ = false;
    checks_.entries_stated(op.parent, op.after, op.upto);
    auto& change = directory(op.parent);
    for (auto it = change.entries.upper_bound(op.after); it != change.entries.end(); ++it) {
        if (!op.upto.empty() && it->first > op.upto) break;
        if (it->second.object != kNoObject && statement.removes(it->first))
            set_entry(op.parent, it->first, {.by_statement = true});
    }
    change.statements.push_back(std::move(statement));
    set_time(op.parent, op.parent_mtime);
    return {};
}

Status Delta::on(const MarkOp& op) {
    mark_ = {.number = last_, .name = op.name, .time = op.time, .incomplete = op.incomplete != 0};
    return {};
}

Status Delta::on(const UnmarkOp& op) {
    unmarked_.push_back(op.mark);
    return {};
}

Status Delta::on(const SeededOp& op) {
    seeded_ = op.generation;
    all_told_ = true;
    // What has no name now goes for good.
    checks_.gone_if([this](ObjectId id) {
        const ObjectChange* change = find(id);
        return change != nullptr && change->dropped && change->links.empty();
    });
    return {};
}

}  // namespace twinspool
