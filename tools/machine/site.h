// SPDX-License-Identifier: Apache-2.0
// Site: the volume's directories as they stand on this machine: what covers each, and where its
// backing tree can be reached. Prepared before the daemon starts, put in place once it serves,
// cleared when it has ended. For commands, under the volume's lock.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"
#include "tools/machine/mounts.h"
#include "tools/volume/config.h"

namespace twinspool {

class Site {
   public:
    // Looks, changes nothing. `daemon_lives`: what is mounted below the run directory is alive.
    struct LookOptions {
        bool daemon_lives = false;
    };
    static Outcome<Site> look(const VolumePaths& paths, const VolumeConfig& config,
                              LookOptions options);

    [[nodiscard]] bool in_place() const;      // every directory is covered by the living overlay
    [[nodiscard]] bool has_stale() const;     // a killed daemon left its mount over a directory
    [[nodiscard]] bool has_leavings() const;  // or anything else of it below the run directory
    [[nodiscard]] std::vector<std::string> sources() const;  // where each backing tree is reached

    // Who writes past the overlay, or would: a sentence with names, or nothing wrong.
    // The daemon itself has the backing trees open: `daemon` is left out. Who is passing is waited
    // for.
    [[nodiscard]] Verdict check_nobody_inside(pid_t daemon) const;
    [[nodiscard]] Verdict check_everybody_reached() const;
    // Who keeps the living overlay busy.
    [[nodiscard]] Verdict check_nobody_busy() const;

    // A dead overlay over a backing tree that nothing keeps reachable any more: taken away, with a
    // warning, because there is no other way to the files.
    Verdict uncover_lost();
    // Makes the private places, clears away a dead FUSE mount, makes the backing trees reachable.
    Verdict prepare();
    // Puts the overlay over each directory that does not have it. Undone if one fails.
    Verdict put_in_place();
    // Takes it away from each. kDone is all or nothing: if one is busy, those taken are put back.
    Verdict take_away();
    // Undoes what put_in_place() did: dead overlays that were replaced are not put back, but what
    // replaced them stays, and will be as dead once the daemon has ended. False if anything stays.
    bool withdraw();
    // Undoes what prepare() did, after the daemon's end.
    void undo();
    // After a clean end: nothing of the volume is left mounted anywhere.
    Verdict clear();

   private:
    struct Place {
        std::string directory;
        std::string mounted;  // below the FUSE mount
        std::string backing;
        Cover cover = Cover::kBare;
        bool bound = false;       // backing is mounted
        bool bound_now = false;   // by this command
        bool placed_now = false;  // bare before, covered by this command
    };
    Site(VolumePaths paths, std::uint64_t volume) : paths_(std::move(paths)), volume_(volume) {}
    [[nodiscard]] Outcome<dev_t> live_device() const;
    Verdict check_binding(const Place& place) const;
    Verdict bind(Place& place);
    [[nodiscard]] Complaint busy() const;

    VolumePaths paths_;
    std::uint64_t volume_;
    std::vector<Place> places_;
};

}  // namespace twinspool
