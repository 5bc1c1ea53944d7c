// SPDX-License-Identifier: Apache-2.0
// Mending: logs the primary's version of what standbys have been found to have otherwise. What is
// missing is told again before what is in it: the caller mends parents first.
//
// Threads: the verifier's. Nothing of the objects here is changed.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fuse/objects/volume.h"
#include "fuse/tell/checks.h"

namespace twinspool {

// An object, and where it was found.
struct Subject {
    InodeRef object;
    InodeRef parent;   // none: one of the volume's directories
    std::string name;  // in it
    std::string path;  // as programs see it
    [[nodiscard]] Subject share() const;
};

struct EntryRange {
    std::string after;
    std::string upto;
    friend bool operator<(const EntryRange& one, const EntryRange& other) {
        return std::tie(one.after, one.upto) < std::tie(other.after, other.upto);
    }
};

// What a standby has otherwise.
struct Damage {
    Subject subject;
    bool missing = false;
    bool attributes = false;  // or extended ones
    bool size = false;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> content;  // from, and behind it
    std::set<EntryRange> entries;
    std::set<std::string> names;  // the entries themselves
    bool all_names = false;       // of the ranges
};

// Bytes of content are told to `logged` as they go; its error ends it. ESTALE and its like: it is
// gone.
Status mend(Volume& volume, const Damage& damage,
            const std::function<Status(std::uint64_t)>& logged);

// The names in a directory that are shown, with their objects' ids; ascending. `known`: ids by
// name, for those whose inode is still the same one. The directory's lock is held, or what comes of
// it is looked at again.
struct NamedId {
    std::string name;
    ObjectId object{};
};
struct KnownId {
    std::uint64_t number = 0;
    ObjectId object{};
};
using KnownIds = std::unordered_map<std::string, KnownId>;
// Only those in the range (after, upto].
Result<std::vector<NamedId>> entries_with_ids(Volume& volume, const Inode& directory, int fd,
                                              const KnownIds& known, const EntryRange& range);

}  // namespace twinspool
