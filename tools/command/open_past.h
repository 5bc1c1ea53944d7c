// SPDX-License-Identifier: Apache-2.0
// OpenPast: what all commands about snapshots begin with: the list as it is now, with every mark
// applied that was appended before the call, and the way from a point to its image. For commands;
// one thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/fd.h"
#include "replicator/past/past.h"
#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"
#include "tools/volume/config.h"
#include "tools/volume/point.h"

namespace twinspool {

// Waits until each standby has applied every mark that was appended before the call, so that all
// snapshots are known and can be read; what comes behind the last mark may take its time. For a
// bounded time: a complaint (not current) if one has not. Nothing to wait for while the volume is
// down. On the host of a standby: the marks that it knows to be committed.
Verdict settle(const VolumePaths& paths);

// By a name as in Point::snapshot. Bad input if there is none.
Outcome<Snapshot> find_snapshot(const VolumePaths& paths, const std::vector<Snapshot>& snapshots,
                                std::string_view name);

// The volume's past, opened, from a store on this machine. The scratch directory goes with it; it
// is also gone when the process was killed, as soon as another one opens a past of this volume (a
// lock on it, which a child of this process shares, says that it is in use).
class OpenPast {
   public:
    // Settles first; if the standby cannot, a warning is printed, and what is applied counts.
    static Outcome<OpenPast> of(const std::string& volume);
    // The same without that, for who has settled.
    static Outcome<OpenPast> as_it_stands(const std::string& volume);
    OpenPast(OpenPast&&) noexcept;
    OpenPast& operator=(OpenPast&&) = delete;
    ~OpenPast();

    [[nodiscard]] const VolumePaths& paths() const { return paths_; }
    [[nodiscard]] const VolumeConfig& config() const { return config_; }
    // The directory that it is read from.
    [[nodiscard]] const std::string& store() const { return store_; }
    [[nodiscard]] const std::vector<Snapshot>& snapshots() const { return snapshots_; }
    [[nodiscard]] Past& past() { return *past_; }
    // By a name as in Point::snapshot. Bad input if there is none.
    Outcome<Snapshot> find(std::string_view name) const;
    // A complaint if it is broken or being destroyed; a warning is printed if it is incomplete.
    Outcome<std::unique_ptr<Image>> image(const Snapshot& snapshot);

   private:
    OpenPast() = default;
    VolumePaths paths_;
    VolumeConfig config_;
    std::string store_;
    std::string scratch_;  // empty: moved from
    Fd in_use_;
    std::shared_ptr<Past> past_;
    std::vector<Snapshot> snapshots_;
};

}  // namespace twinspool
