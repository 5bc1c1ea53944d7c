// SPDX-License-Identifier: Apache-2.0
#include "replicator_model.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "journal/base/fd.h"
#include "journal/format/block_hash.h"
#include "journal/format/check_list.h"

namespace twinspool::test {
namespace {

constexpr std::uint64_t kMaxContent = 40000;

Bytes bytes_of(const std::string& text) { return std::as_bytes(std::span{text}); }

std::map<std::string, std::string> xattrs_of(const std::string& path) {
    std::map<std::string, std::string> result;
    char names[4096];
    const ssize_t size = ::llistxattr(path.c_str(), names, sizeof names);
    for (ssize_t at = 0; at < size;) {
        const std::string name{names + at};
        at += static_cast<ssize_t>(name.size()) + 1;
        if (name.starts_with("trusted.twinspool.")) continue;
        char value[4096];
        const ssize_t length = ::lgetxattr(path.c_str(), name.c_str(), value, sizeof value);
        result[name] = std::string(value, static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
    }
    return result;
}

}  // namespace

Model::Model(std::uint64_t seed) : random_(seed) {
    for (const char* path : {"/vol/one", "/vol/deep/two"}) {
        const ObjectId id{next_id_++};
        Node& node = nodes_[id];
        node.id = id;
        node.attributes = {.mode = S_IFDIR | 0755, .uid = 0, .gid = 0, .mtime = new_time()};
        node.parent = kRootObject;
        node.names = 1;
        roots_[path] = id;
        log_.add(DirectoryOp{.object = id, .path = path, .attributes = node.attributes});
    }
}

FileTime Model::new_time() {
    return {.seconds = static_cast<std::int64_t>(1'000'000'000 + below(100'000'000)),
            .nanoseconds = static_cast<std::uint32_t>(below(1'000'000'000))};
}

std::size_t Model::live_objects() const { return nodes_.size(); }

ObjectId Model::random_directory() {
    std::vector<ObjectId> all;
    for (const auto& [id, node] : nodes_)
        if (node.is(S_IFDIR)) all.push_back(id);
    return all[below(all.size())];
}

std::vector<Model::Place> Model::places() {
    std::vector<Place> all;
    for (const auto& [id, node] : nodes_)
        for (const auto& [name, object] : node.entries) all.push_back({id, name});
    return all;
}

Model::Place Model::random_place() {
    const auto all = places();
    return all.empty() ? Place{} : all[below(all.size())];
}

ObjectId Model::random_of(bool files_only) {
    std::vector<ObjectId> all;
    for (const auto& [id, node] : nodes_)
        if (!files_only || node.is(S_IFREG)) all.push_back(id);
    return all.empty() ? kNoObject : all[below(all.size())];
}

bool Model::is_below(ObjectId directory, ObjectId ancestor) {
    for (; directory != kRootObject; directory = nodes_[directory].parent)
        if (directory == ancestor) return true;
    return false;
}

void Model::put(const Place& at, ObjectId object) {
    nodes_[at.parent].entries[at.name] = object;
    ++nodes_[object].names;
    if (nodes_[object].is(S_IFDIR)) nodes_[object].parent = at.parent;
}

void Model::take(const Place& at) {
    const ObjectId object = nodes_[at.parent].entries.at(at.name);
    nodes_[at.parent].entries.erase(at.name);
    --nodes_[object].names;
}

// A record of an unlink does not say whether other names are left. So a file that loses a name by a
// record while another of its names is not told of yet cannot be told from one that is gone.
bool Model::hidden_link(ObjectId object) {
    return silent_ && object != kNoObject && !nodes_[object].is(S_IFDIR) &&
           nodes_[object].names > 1;
}

void Model::drop_if_gone(ObjectId object) {
    if (object != kNoObject && nodes_[object].names == 0) nodes_.erase(object);
}

void Model::act() {
    const auto dice = below(100);
    if (dice < 25) return create();
    if (dice < 31) return silent_ ? create() : link();
    if (dice < 46) return unlink();
    if (dice < 66) return rename();
    if (dice < 78) return write();
    if (dice < 82) return truncate();
    if (dice < 88) return allocate();
    if (dice < 94) return set_attributes();
    return set_xattr();
}

void Model::create() {
    const Place at{random_directory(), new_name()};
    if (nodes_[at.parent].entries.contains(at.name)) return;
    const std::uint32_t types[] = {S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR,
                                   S_IFDIR, S_IFLNK, S_IFIFO, S_IFCHR};
    const std::uint32_t type = types[below(std::size(types))];
    know(at.parent);
    const ObjectId id{next_id_++};
    known_.insert(id);
    walked_.insert(id);
    Node& node = nodes_[id];
    node.id = id;
    node.told = !silent_;
    node.attributes = {
        .mode = type | (type == S_IFLNK ? 0777 : static_cast<std::uint32_t>(below(07777))),
        .uid = static_cast<std::uint32_t>(below(3)),
        .gid = static_cast<std::uint32_t>(below(3)),
        .mtime = new_time()};
    if (type == S_IFLNK) node.target = "to/" + std::to_string(raw(id));
    if (type == S_IFCHR) node.device = makedev(1, 3);
    put(at, id);
    auto& mtime = nodes_[at.parent].attributes.mtime = new_time();
    tell(CreateOp{.object = id,
                  .parent = at.parent,
                  .name = at.name,
                  .attributes = node.attributes,
                  .device = node.device,
                  .target = node.target,
                  .parent_mtime = mtime});
}

void Model::link() {
    const ObjectId object = random_of(false);
    const Place at{random_directory(), new_name()};
    if (nodes_[object].is(S_IFDIR) || nodes_[at.parent].entries.contains(at.name)) return;
    know(at.parent);
    know(object);
    put(at, object);
    auto& mtime = nodes_[at.parent].attributes.mtime = new_time();
    tell(LinkOp{.object = object, .parent = at.parent, .name = at.name, .parent_mtime = mtime});
}

void Model::unlink() {
    const Place at = random_place();
    if (at.name.empty()) return;
    const ObjectId object = nodes_[at.parent].entries[at.name];
    if (!nodes_[object].entries.empty() || hidden_link(object)) return;
    know(at.parent);
    know(object);
    take(at);
    const std::uint32_t names_left = nodes_[object].names;
    drop_if_gone(object);
    auto& mtime = nodes_[at.parent].attributes.mtime = new_time();
    tell(UnlinkOp{.object = object,
                  .parent = at.parent,
                  .name = at.name,
                  .parent_mtime = mtime,
                  .names_left = names_left});
}

void Model::rename() {
    const Place source = random_place();
    if (source.name.empty()) return;
    Place target{random_directory(), new_name()};
    const bool exchange = below(4) == 0;
    if (exchange) target = random_place();
    if (source.parent == target.parent && source.name == target.name) return;
    const ObjectId object = nodes_[source.parent].entries[source.name];
    auto& entries = nodes_[target.parent].entries;
    const auto it = entries.find(target.name);
    const ObjectId replaced = it == entries.end() ? kNoObject : it->second;
    if (object == replaced || hidden_link(object) || hidden_link(replaced)) return;
    if (nodes_[object].is(S_IFDIR) && is_below(target.parent, object)) return;
    if (exchange && nodes_[replaced].is(S_IFDIR) && is_below(source.parent, replaced)) return;
    if (!exchange && replaced != kNoObject &&
        (nodes_[replaced].is(S_IFDIR) != nodes_[object].is(S_IFDIR) ||
         !nodes_[replaced].entries.empty()))
        return;
    for (const ObjectId id : {source.parent, target.parent, object, replaced}) know(id);
    take(source);
    if (replaced != kNoObject) take(target);
    put(target, object);
    if (exchange) put(source, replaced);
    const std::uint32_t names_left = replaced == kNoObject ? 0 : nodes_[replaced].names;
    drop_if_gone(replaced);
    nodes_[source.parent].attributes.mtime = new_time();
    nodes_[target.parent].attributes.mtime = new_time();
    tell(RenameOp{.object = object,
                  .source_parent = source.parent,
                  .source_name = source.name,
                  .target_parent = target.parent,
                  .target_name = target.name,
                  .replaced = replaced,
                  .exchange = static_cast<std::uint8_t>(exchange ? 1 : 0),
                  .source_mtime = nodes_[source.parent].attributes.mtime,
                  .target_mtime = nodes_[target.parent].attributes.mtime,
                  .names_left = names_left});
}

void Model::write() {
    const ObjectId id = random_of(true);
    if (id == kNoObject) return;
    know(id);
    Node& node = nodes_[id];
    const std::uint64_t offset = below(3) == 0 ? node.content.size() : below(kMaxContent);
    const std::string data(1 + below(6000), static_cast<char>('A' + below(26)));
    if (node.content.size() < offset + data.size()) node.content.resize(offset + data.size());
    node.content.replace(offset, data.size(), data);
    node.attributes.mtime = new_time();
    if (silent_) content_changed_.insert(id);
    tell(WriteOp{
        .object = id, .offset = offset, .mtime = node.attributes.mtime, .data = bytes_of(data)});
}

void Model::truncate() {
    const ObjectId id = random_of(true);
    if (id == kNoObject) return;
    know(id);
    Node& node = nodes_[id];
    node.content.resize(below(kMaxContent));
    node.attributes.mtime = new_time();
    if (silent_) content_changed_.insert(id);
    tell(TruncateOp{.object = id, .size = node.content.size(), .mtime = node.attributes.mtime});
}

void Model::allocate() {
    const ObjectId id = random_of(true);
    if (id == kNoObject) return;
    know(id);
    Node& node = nodes_[id];
    const auto kind = static_cast<AllocateKind>(below(3));
    const std::uint64_t offset = below(kMaxContent);
    const std::uint64_t length = 1 + below(12000);
    if (kind != AllocateKind::kPunch && below(2) == 0)
        node.content.resize(std::max<std::size_t>(node.content.size(), offset + length));
    if (kind != AllocateKind::kAllocate && offset < node.content.size()) {
        const auto inside = std::min<std::uint64_t>(length, node.content.size() - offset);
        node.content.replace(offset, inside, std::string(inside, '\0'));
    }
    node.attributes.mtime = new_time();
    if (silent_) content_changed_.insert(id);
    tell(AllocateOp{.object = id,
                    .kind = kind,
                    .offset = offset,
                    .length = length,
                    .size = node.content.size(),
                    .mtime = node.attributes.mtime});
}

void Model::set_attributes() {
    const ObjectId id = random_of(false);
    know(id);
    Node& node = nodes_[id];
    if (!node.is(S_IFLNK))
        node.attributes.mode =
            (node.attributes.mode & S_IFMT) | static_cast<std::uint32_t>(below(07777));
    node.attributes.uid = static_cast<std::uint32_t>(below(3));
    node.attributes.gid = static_cast<std::uint32_t>(below(3));
    if (below(2) == 0) node.attributes.mtime = new_time();
    tell(AttributesOp{.object = id, .attributes = node.attributes});
}

void Model::set_xattr() {
    const ObjectId id = random_of(false);
    know(id);
    Node& node = nodes_[id];
    const std::string name = "trusted.x" + std::to_string(below(3));
    if (below(3) == 0) {
        if (node.xattrs.erase(name) != 0) tell(RemoveXattrOp{.object = id, .name = name});
        return;
    }
    const std::string value(below(30), static_cast<char>('a' + below(26)));
    node.xattrs[name] = value;
    tell(SetXattrOp{.object = id, .name = name, .value = bytes_of(value)});
}

void Model::change_underneath(int changes) {
    silent_ = true;
    for (int i = 0; i < changes; ++i) act();
    silent_ = false;
    walk();
}

void Model::know(ObjectId object) {
    if (!walking_ || object == kNoObject || object == kRootObject || known_.contains(object))
        return;
    for (const auto& [path, id] : roots_)
        if (id == object) return;  // told at the beginning
    const Place at = place_of(object);
    know(at.parent);
    adopt(at);
}

Model::Place Model::place_of(ObjectId object) {
    for (const auto& [id, node] : nodes_)
        for (const auto& [name, entry] : node.entries)
            if (entry == object) return {id, name};
    TS_ASSERT(false);
    return {};
}

void Model::walk() {
    walking_ = true;
    known_.clear();
    walked_.clear();
    for (const auto& [path, id] : roots_) {
        const Node& node = nodes_[id];
        log_.add(DirectoryOp{.object = id, .path = path, .attributes = node.attributes});
        for (const auto& [name, value] : node.xattrs)
            log_.add(SetXattrOp{.object = id, .name = name, .value = bytes_of(value)});
    }
    for (bool again = true; again;) {
        again = false;
        std::vector<ObjectId> left;
        for (const auto& [id, node] : nodes_)
            if (node.is(S_IFDIR) && !walked_.contains(id)) left.push_back(id);
        std::shuffle(left.begin(), left.end(), random_);
        for (const ObjectId id : left) {
            again = true;
            if (!nodes_.contains(id)) continue;  // removed since
            know(id);
            walk_directory(id);
            for (auto acts = below(6); acts > 2; --acts) act();
        }
    }
    for (auto& [id, node] : nodes_) tell_content(node);
    walking_ = false;
    content_changed_.clear();
    if (!by_hash_) seeded(1);
}

void Model::walk_directory(ObjectId directory) {
    walked_.insert(directory);
    std::string after;
    std::string names;
    const auto state = [&](const std::string& upto) {
        log_.add(EntriesOp{.parent = directory,
                           .after = after,
                           .upto = upto,
                           .names = bytes_of(names),
                           .parent_mtime = nodes_[directory].attributes.mtime});
        after = upto;
        names.clear();
    };
    for (const auto& [name, object] : nodes_[directory].entries) {
        adopt({directory, name});
        if (below(2) == 0) tell_content(nodes_[object]);
        const auto size = static_cast<std::uint32_t>(name.size());
        names.append(reinterpret_cast<const char*>(&size), sizeof size).append(name);
        if (below(3) == 0) state(name);
    }
    state("");
}

void Model::adopt(const Place& at) {
    Node& node = nodes_[nodes_[at.parent].entries[at.name]];
    known_.insert(node.id);
    log_.add(AdoptOp{.object = node.id,
                     .parent = at.parent,
                     .name = at.name,
                     .attributes = node.attributes,
                     .device = node.device,
                     .target = node.target});
    for (const auto& [name, value] : node.xattrs)
        log_.add(SetXattrOp{.object = node.id, .name = name, .value = bytes_of(value)});
}

void Model::tell_content(Node& node) {
    if (by_hash_ && node.is(S_IFREG)) {
        log_.add(TruncateOp{
            .object = node.id, .size = node.content.size(), .mtime = node.attributes.mtime});
        check_content(node.id);
        return;
    }
    if (!node.is(S_IFREG) || (node.told && !content_changed_.contains(node.id))) return;
    log_.add(
        TruncateOp{.object = node.id, .size = node.content.size(), .mtime = node.attributes.mtime});
    if (!node.content.empty())
        log_.add(WriteOp{.object = node.id,
                         .offset = 0,
                         .mtime = node.attributes.mtime,
                         .data = bytes_of(node.content)});
    node.told = true;
    content_changed_.erase(node.id);
}

void Model::tell_anew() {
    by_hash_ = true;
    walk();
    by_hash_ = false;
}

bool Model::answer(const std::vector<Finding>& findings) {
    for (const Finding& finding : findings) {
        if (!nodes_.contains(finding.object)) continue;  // gone since
        TS_ASSERT(finding.kind != FindingKind::kMissing);
        const Node& node = nodes_[finding.object];
        const FileTime mtime = node.attributes.mtime;
        if (finding.kind == FindingKind::kChangedMeanwhile && node.is(S_IFREG))
            check_content(node.id, 1);
        if (finding.kind == FindingKind::kSize)
            log_.add(TruncateOp{.object = node.id, .size = node.content.size(), .mtime = mtime});
        if (finding.kind == FindingKind::kContent && finding.offset < node.content.size()) {
            const std::string data = node.content.substr(finding.offset, finding.length);
            log_.add(WriteOp{.object = node.id,
                             .offset = finding.offset,
                             .mtime = mtime,
                             .data = bytes_of(data)});
        }
    }
    return !findings.empty();
}

void Model::check_all() {
    for (const auto& [id, node] : nodes_) {
        check_object(id);
        if (node.is(S_IFREG)) check_content(id);
        if (node.is(S_IFDIR)) check_entries(id);
    }
}

void Model::check_object(ObjectId object, std::uint8_t exact) {
    const Node& node = nodes_.at(object);
    std::vector<std::byte> xattrs;
    for (const auto& [name, value] : node.xattrs) add_checked_xattr(xattrs, {name, value});
    log_.add(CheckObjectOp{.object = object,
                           .attributes = node.attributes,
                           .device = node.device,
                           .target = node.target,
                           .exact = exact,
                           .xattrs = xattrs});
}

void Model::check_content(ObjectId object, std::uint8_t exact) {
    const Node& node = nodes_.at(object);
    const Fd fd{::memfd_create("content", MFD_CLOEXEC)};
    TS_ASSERT(::write(fd.get(), node.content.data(), node.content.size()) ==
              static_cast<ssize_t>(node.content.size()));
    const std::uint64_t size = node.content.size();
    // In parts, as of a large file; the last one is open.
    for (std::uint64_t offset = 0; offset == 0 || offset < size; offset += 2 * kCheckBlockBytes) {
        const auto hashes = hash_blocks(fd.get(), offset, 2 * kCheckBlockBytes, size);
        TS_ASSERT(hashes.ok());
        log_.add(CheckContentOp{.object = object,
                                .offset = offset,
                                .length = 2 * kCheckBlockBytes,
                                .size = size,
                                .exact = exact,
                                .hashes = *hashes});
    }
}

void Model::check_entries(ObjectId directory, std::uint8_t exact) {
    std::string after;
    std::vector<std::byte> entries;
    const auto check = [&](const std::string& upto) {
        log_.add(CheckEntriesOp{
            .parent = directory, .after = after, .upto = upto, .exact = exact, .entries = entries});
        after = upto;
        entries.clear();
    };
    for (const auto& [name, object] : nodes_.at(directory).entries) {
        add_checked_entry(entries, {name, object});
        if (below(3) == 0) check(name);
    }
    check("");
}

std::string Model::compare(const std::string& store) const {
    std::string difference;
    std::map<ObjectId, std::uint64_t> inodes;
    for (const auto& [path, id] : roots_) {
        compare_object(store + "/tree" + path, nodes_.at(id), difference);
        compare_directory(store + "/tree" + path, nodes_.at(id), inodes, difference);
    }
    for (const char* folder : {"/staging", "/parked"})
        if (!std::filesystem::is_empty(store + folder)) difference += store + folder + " in use\n";
    return difference;
}

void Model::compare_object(const std::string& path, const Node& node,
                           std::string& difference) const {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) {
        difference += path + ": missing\n";
        return;
    }
    const auto& want = node.attributes;
    if (status.st_mode != want.mode)
        difference += fmt::format("{}: mode {:o} not {:o}\n", path, status.st_mode, want.mode);
    if (status.st_uid != want.uid || status.st_gid != want.gid) difference += path + ": owner\n";
    if (status.st_mtim.tv_sec != want.mtime.seconds ||
        static_cast<std::uint32_t>(status.st_mtim.tv_nsec) != want.mtime.nanoseconds)
        difference +=
            fmt::format("{}: mtime {} not {}\n", path, status.st_mtim.tv_sec, want.mtime.seconds);
    if (!node.is(S_IFDIR) && status.st_nlink != node.names)
        difference += fmt::format("{}: {} names, not {}\n", path, status.st_nlink, node.names);
    if (status.st_rdev != node.device) difference += path + ": device\n";
    if (xattrs_of(path) != node.xattrs) difference += path + ": xattrs\n";
    if (node.is(S_IFLNK) && std::filesystem::read_symlink(path) != node.target)
        difference += path + ": target\n";
    if (node.is(S_IFREG)) {
        std::ifstream in{path, std::ios::binary};
        const std::string content{std::istreambuf_iterator<char>{in}, {}};
        if (content.size() != node.content.size())
            difference +=
                fmt::format("{}: size {} not {}\n", path, content.size(), node.content.size());
        else if (content != node.content)
            difference += path + ": content\n";
    }
}

void Model::compare_directory(const std::string& path, const Node& node,
                              std::map<ObjectId, std::uint64_t>& inodes,
                              std::string& difference) const {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator{path, error})
        if (!node.entries.contains(entry.path().filename()))
            difference += entry.path().string() + ": should not be\n";
    for (const auto& [name, id] : node.entries) {
        const std::string child = path + "/" + name;
        const Node& object = nodes_.at(id);
        compare_object(child, object, difference);
        struct stat status {};
        (void)::lstat(child.c_str(), &status);
        if (inodes.emplace(id, status.st_ino).first->second != status.st_ino)
            difference += child + ": not the same object as its other name\n";
        if (object.is(S_IFDIR)) compare_directory(child, object, inodes, difference);
    }
}

}  // namespace twinspool::test
