// SPDX-License-Identifier: Apache-2.0
// Overlay: the volume's directories, served to the kernel as one FUSE file system. Its root has one
// entry per directory, named "0", "1" and so on; `up` bind-mounts each over the directory it stands
// for. Whatever is changed through it becomes a record of the journal.
//
// Threads: those that serve the kernel (libfuse's), a pool, the walker; all are the Overlay's own.
// The public functions may be called from any thread but these. The journal must outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fuse/mark.h"
#include "fuse/process.h"
#include "fuse/walker.h"
#include "journal/journal.h"
#include "journal/result.h"

namespace twinspool {

struct OverlayDirectory {
    std::string path;  // as programs see it
    int backing_fd =
        -1;  // O_RDONLY | O_DIRECTORY, from before anything was mounted over it; borrowed
};

enum class Transport : std::uint8_t { kAuto, kIoUring, kDev };

struct OverlayOptions {
    std::string mountpoint;  // a directory that nobody but root reaches
    std::vector<OverlayDirectory> directories;
    Transport transport = Transport::kAuto;
    std::uint32_t generation = 1;     // of the seed in progress, or of the last one
    bool seeded = false;              // that seed is complete
    std::uint32_t standby_count = 1;  // the walker keeps in step with so many
};

class Overlay {
   public:
    // Logs what a killed predecessor had begun, mounts, serves.
    static Result<std::unique_ptr<Overlay>> start(const OverlayOptions& options, Journal& journal);
    ~Overlay();
    Overlay(const Overlay&) = delete;
    Overlay& operator=(const Overlay&) = delete;

    // From now on nobody gets past the overlay: begins the walk that the start needs, so that it
    // finds what was changed underneath until now. Once; a second call does nothing.
    void in_place();

    // What requests really come over.
    [[nodiscard]] Transport transport() const;
    [[nodiscard]] WalkProgress walk() const;
    // Objects are not known to the standbys as they are; a reign must not be closed as clean then.
    [[nodiscard]] bool walking() const;
    // All standbys start from nothing: everything is told again. Records from the returned Lsn on
    // are enough for them.
    Lsn begin_reseed(std::uint32_t generation);
    // Names the position that the journal is at now (fuse/mark.h). Not durable yet when it returns.
    Result<Marked> mark(const MarkWish& wish);

    // With every bind mount of it gone: unmounts, and ends when the last request has been answered.
    // EBUSY: something is still open, and everything goes on.
    Status stop();

   private:
    struct Parts;
    explicit Overlay(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

}  // namespace twinspool
