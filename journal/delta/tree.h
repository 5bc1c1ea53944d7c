// SPDX-License-Identifier: Apache-2.0
// Tree: a store's plain files, changed one system call at a time. Finds what stands at a name,
// makes, links, moves, sets aside and removes objects, writes content and attributes. Knows nothing
// of deltas; journal/delta/apply decides what is to be done.
//
// Below the store: `tree/<path of a directory of the volume>`, `staging/` (taken from its place
// while an apply runs, empty otherwise) and `parked/` (lost its last name by a statement; may be
// told of elsewhere later). Both take names of their own, from object and inode number.
// ObjectIndex: how an object is found without its name.
// One thread. Needs root rights (file handles, trusted xattrs).
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/fd.h"
#include "journal/base/handle.h"
#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/format/extents.h"
#include "journal/format/op.h"

namespace twinspool {

// What the index knows of an object in the tree.
struct IndexEntry {
    FileHandle handle;
    std::uint32_t type = 0;  // S_IFMT bits
    ObjectId parent{};       // directories only: where it stands at the end of the range
    FileTime mtime;          // directories only: changing their entries changes the one on disk
    // The newest mark when it came to be known: it is in no snapshot up to that one.
    Lsn born;
    // Not 0: it has lost its last name, and is kept for snapshots up to this one.
    Lsn kept;
    friend bool operator==(const IndexEntry&, const IndexEntry&) = default;
};

// Changes count from the next commit of whoever implements it; until then find() shows them. `born`
// of an object that is new to it is its own business.
class ObjectIndex {
   public:
    virtual ~ObjectIndex() = default;
    virtual Result<std::optional<IndexEntry>> find(ObjectId object) = 0;
    virtual Status put(ObjectId object, const IndexEntry& entry) = 0;
    virtual Status erase(ObjectId object) = 0;
};

// A name as the kernel takes it.
class EntryName {
   public:
    explicit EntryName(std::string_view name);
    [[nodiscard]] const char* c_str() const { return text_; }

   private:
    char text_[256];
};

// What stands at a name.
struct Standing {
    Fd fd;  // O_PATH
    struct stat status {};
    FileHandle handle;
    ObjectId object = kNoObject;  // by its identity xattr; kNoObject: none that counts
    [[nodiscard]] bool is_directory() const { return S_ISDIR(status.st_mode); }
};

struct ObjectToMake {
    ObjectId object{};
    std::uint32_t type = 0;  // S_IFMT bits
    std::uint64_t device = 0;
    std::string_view target;
};

class Tree {
   public:
    struct Options {
        // Called before each system call that changes the disk; an error ends the apply there.
        std::function<Status()> on_step;
    };
    // Makes the folders of the store that are missing.
    static Result<std::unique_ptr<Tree>> open(const std::string& store, Options options);

    [[nodiscard]] int staging() const { return staging_.get(); }
    [[nodiscard]] int parked() const { return parked_.get(); }

    // --- finding
    Result<std::optional<Standing>> at(int directory, const char* name) const;
    // ESTALE: it is gone.
    Result<Fd> open_object(const FileHandle& handle, int flags) const;
    // The folder in tree/ that holds the volume's directory `path`; made if need be.
    Result<Fd> open_parent_of_root(std::string_view path);
    static Result<std::vector<std::string>> list(int directory);
    // Where a directory stands: what it is in, and its name there.
    struct Place {
        Fd parent;  // O_PATH
        std::string name;
    };
    static Result<Place> place_of(int directory);
    static Result<std::map<std::string, std::string>> xattrs(int object);  // but for our own

    // --- entries
    // EEXIST: something stands there.
    Result<Standing> make(int directory, const char* name, const ObjectToMake& what);
    Status link(int object, int directory, const char* name);  // EEXIST likewise
    // Moves a directory from wherever it is.
    Status move_directory(int object, int directory, const char* name);
    Status unlink(int directory, const char* name);
    Status remove_directory(int directory, const char* name);
    // Renames what stands there into `folder` (staging() or parked()), under a name of its own.
    Status set_aside(int directory, const char* name, const Standing& standing, int folder);
    // Unlinks the object's name in `folder`, if it has one there.
    Status release(ObjectId object, int fd, int folder);
    // Whether it has.
    Result<bool> stands_aside(ObjectId object, ino_t inode, int folder) const;

    // --- content and attributes
    Status change_content(int fd, const ContentChange& content);
    Status set_owner(int object, std::uint32_t uid, std::uint32_t gid);
    Status set_mode(int object, std::uint32_t mode);
    Status set_mtime(int object, const FileTime& mtime);
    Status set_xattr(int object, std::string_view name, Bytes value);
    Status remove_xattr(int object, std::string_view name);           // it need not be there
    static Result<std::vector<std::string>> list_xattrs(int object);  // but for our own

    Status sync();

   private:
    Tree(Fd store, Fd tree, Fd staging, Fd parked, Options options);
    Status step() const { return options_.on_step ? options_.on_step() : Status{}; }
    Status write_data(int fd, ContentChange::Extents::const_iterator& it,
                      ContentChange::Extents::const_iterator end);
    Status make_zeros(int fd, std::uint64_t offset, const Extent& extent, std::uint64_t file_size);
    Status empty_edges(int fd, std::uint64_t offset, const Extent& hole);
    Status cut_at(int fd, std::uint64_t cut, const struct stat& before);
    Status set_size(int fd, std::uint64_t size);

    Fd store_;
    Fd tree_;
    Fd staging_;
    Fd parked_;
    Options options_;
};

// Empties the store of everything that a Tree keeps there, and of the entries of `others` (plain
// names): for a reseed from scratch. Follows no link and enters no other file system. Interrupted,
// it is to be called again; `reset_interrupted` says so.
Status reset_tree(const std::string& store, const std::vector<std::string>& others);
Result<bool> reset_interrupted(const std::string& store);

}  // namespace twinspool
