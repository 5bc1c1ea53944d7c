// SPDX-License-Identifier: Apache-2.0
// Past: a standby's snapshots, for who reads them: commands and views, in processes of their own,
// while the standby process goes on applying to the same store (or while there is none).
//
// A reader looks into the catalogue as it stands, and never writes into the store, but for the file
// whose lock holds a snapshot. Threads: any number. An image may outlive its Past.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "journal/delta/image.h"
#include "replicator/link/snapshot.h"

namespace twinspool {

struct PastOptions {
    std::string store;
    std::uint64_t volume = 0;
    std::string scratch;  // a directory that this process may use and empty; made if need be
};

class Past {
   public:
    // ENOENT: nothing has been applied there yet. EINVAL: it is another volume's.
    static Result<std::shared_ptr<Past>> open(const PastOptions& options);
    ~Past();
    Past(const Past&) = delete;
    Past& operator=(const Past&) = delete;

    // Oldest first; as they are now.
    Result<std::vector<Snapshot>> snapshots();
    // Up to where the replica tree stands now.
    Result<Lsn> applied();
    // Holds the snapshot as long as the image lives. EBUSY: it is being destroyed. ENOENT: it is
    // gone. EIO: it is broken.
    Result<std::unique_ptr<Image>> image(Lsn number);
    // The replica tree as it stands. It is only whole as long as nothing is applied.
    Result<std::unique_ptr<Image>> present();

   private:
    struct Parts;
    explicit Past(std::shared_ptr<Parts> parts);
    std::shared_ptr<Parts> parts_;  // shared with the images
};

}  // namespace twinspool
