// SPDX-License-Identifier: Apache-2.0
// MountTable: the mounts that a process sees, from /proc/PID/mountinfo; and where a path stands in
// the file system that holds it, which is the same in every mount namespace. Reading it asks no
// file system anything, so a dead or busy mount cannot hold it up. A snapshot; values; any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/result.h"

namespace twinspool {

inline constexpr std::string_view kOverlayType = "fuse.twinspool";
inline constexpr std::string_view kViewType = "fuse.twinspool-view";

struct MountEntry {
    int id = 0;
    int parent = 0;
    dev_t device = 0;
    std::string root;   // what of the file system is mounted
    std::string point;  // where
    std::string type;
    std::string source;
    std::uint64_t shared = 0;  // peer group, or 0
    std::uint64_t master = 0;  // the group it receives from, or 0
    std::uint64_t propagate_from = 0;
};

// A place in a file system, whatever is mounted where.
struct FsPlace {
    dev_t device = 0;
    std::string path;
    [[nodiscard]] bool holds(const FsPlace& other) const;  // itself, or something below it
    friend bool operator==(const FsPlace&, const FsPlace&) = default;
};

class MountTable {
   public:
    static Result<MountTable> of_self();
    static Result<MountTable> of_process(pid_t pid);
    static MountTable parse(std::string_view mountinfo);

    [[nodiscard]] const std::vector<MountEntry>& entries() const { return entries_; }
    [[nodiscard]] const MountEntry* find(int id) const;
    // The mounts that stand at just this path, the lowest first; the last one is seen.
    [[nodiscard]] std::vector<const MountEntry*> stack_at(std::string_view path) const;
    // The mount that a walk to this absolute path ends in.
    [[nodiscard]] const MountEntry* covering(std::string_view path) const;
    // The same as if no overlay of ours were mounted anywhere.
    [[nodiscard]] const MountEntry* covering_without_overlays(std::string_view path) const;
    // Where `path` is in the file system that `mount` shows.
    static FsPlace place_in(const MountEntry& mount, std::string_view path);

   private:
    [[nodiscard]] const MountEntry* walk(std::string_view path, bool into_overlays) const;
    std::vector<MountEntry> entries_;
};

}  // namespace twinspool
