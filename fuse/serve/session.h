// SPDX-License-Identifier: Apache-2.0
// Overlay: the volume's directories, served to the kernel as one FUSE file system. Its root has one
// entry per directory, named "0", "1" and so on; `up` bind-mounts each over the directory it stands
// for. Whatever is changed through it becomes a record of the journal.
//
// Threads: those that serve the kernel (libfuse's), a pool, the walker; all are the Overlay's own.
// The public functions may be called from any thread but these. The journal must outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fuse/kernel/process.h"
#include "fuse/serve/mark.h"
#include "fuse/tell/verify.h"
#include "fuse/tell/walker.h"
#include "journal/base/result.h"
#include "journal/format/finding.h"
#include "journal/log/journal.h"

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
    // How a seed in progress (not `seeded`) tells contents. If in doubt by hash: correct for an
    // empty standby too, but slower.
    Contents contents = Contents::kByHash;
    std::uint64_t rate_limit = 0;  // bytes a second of walks and verifies; 0: none
    // Somebody waits for the answers to the checks up to here: asks the standbys to hurry. Never
    // waits. Any thread of the overlay's, not before in_place() or begin_reseed().
    std::function<void(Lsn)> hurry;
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
    // Everything is told again, because `standby` starts from nothing (kWhole), or has a tree that
    // is of no known position (kByHash). Records from the returned Lsn on are enough for it, and
    // harmless for the others. What an unfinished one before it owed to other standbys, this one
    // does. The round does not end before every standby that it is for has answered.
    Lsn begin_reseed(std::uint32_t generation, Contents contents, std::uint32_t standby);

    // --- what the links hear (SenderOptions::on_session, on_findings, on_applied). They take no
    // time. Of one standby in the order in which it said so, a session's first, before anything
    // that was sent in it can be answered.
    void session_began(std::uint32_t standby);
    void heard_findings(std::uint32_t standby, const std::vector<Finding>& findings);
    void heard_applied(std::uint32_t standby, Lsn lsn);

    // --- verify: one at a time
    // Begins one. EBUSY: another is running; EAGAIN: the standbys have not been told everything
    // yet; ENOENT: no such path in the volume; each with a text.
    Status begin_verify(const VerifyOptions& options);
    // Asks it to end; `why` becomes its failure.
    void cancel_verify(const std::string& why);
    // Of the one that runs, or of the last one.
    [[nodiscard]] VerifyReport verify_report() const;
    // Names the position that the journal is at now (fuse/serve/mark.h). Not durable yet when it
    // returns.
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
