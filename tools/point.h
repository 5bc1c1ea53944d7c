// SPDX-License-Identifier: Apache-2.0
// Point: VOLUME@NAME[:/path], as people write a snapshot and what is in it; and the way from there
// to the image. Also what all commands about snapshots begin with: the list as it is now, with
// every mark applied that was appended before the call. For commands; one thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/fd.h"
#include "replicator/past.h"
#include "tools/complaint.h"
#include "tools/config.h"
#include "tools/paths.h"

namespace twinspool {

struct Point {
    std::string volume;
    std::string snapshot;  // a name, "latest", or "lsn:N"
    std::string path;      // absolute, without a slash at its end; empty: all directories
};

enum class PathPart : std::uint8_t { kNone, kOptional };

// Complaints are bad input: they say what is wrong with the text.
Outcome<Point> parse_point(std::string_view text, PathPart path);
// VOLUME:/path
Outcome<Point> parse_path_of_volume(std::string_view text);
// What a new snapshot may be called: letters, digits, ".", "_" and "-", not beginning with a digit,
// "-", or "lsn:"; at most 64 characters; not "latest".
Verdict check_snapshot_name(std::string_view name);

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
