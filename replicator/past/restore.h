// SPDX-License-Identifier: Apache-2.0
// Restorer: brings an image, or one object of it with all below it, to a place.
//
// A new place comes to be at one moment: everything is made in a private directory beside it,
// `.twinspool-restore-<hex>`, synced, read back and compared, and only then renamed. A run that was
// killed is gone on with by the same call. In place (over what programs use), each object is
// changed at one moment, and read back when it is written (see alignment.h). Nothing is followed at
// the destination, and nothing outside it is touched. Errors: EEXIST, ENOTEMPTY: the new place is
// not free. EBUSY: another run works on it. ENOENT: the directory in which to restore is missing.
// EINTR, ECANCELED: as with Alignment. One thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "journal/base/fd.h"
#include "journal/base/result.h"
#include "journal/delta/image.h"
#include "replicator/past/alignment.h"
#include "replicator/past/image_path.h"

namespace twinspool {

struct RestoreReport {
    RestoreCounters counters;
    std::vector<std::string> differences;  // what did not become as it should
    std::vector<std::string> warnings;
    std::string left_in;  // new places with differences: the private directory, still there
};

struct NewPlace {
    std::string directory;  // exists
    // What is made in it. Empty, for whole images: its own entries; it must have none.
    std::string name;
    std::string token;  // says which image it is: a run only goes on with the work of its like
};

// Where a run that did not end well has left what it had.
std::string unfinished_place(const NewPlace& place);

class Restorer {
   public:
    // What `options` says of readers does not count.
    Restorer(Image& image, AlignmentOptions options);

    // Without a part: the whole image, by full paths.
    Result<RestoreReport> to_new_place(const std::optional<ImagePart>& part, const NewPlace& place);
    Result<RestoreReport> in_place(const std::optional<ImagePart>& part);

   private:
    Status align_new(Alignment& alignment, int fd, const std::optional<ImagePart>& part,
                     const std::string& name);
    Status align_place(Alignment& alignment, const ImagePart& part);
    Status verify(int fd, const std::optional<ImagePart>& part, const std::string& name,
                  RestoreReport& report);
    Status put_in_place(int directory, const std::string& whole, const NewPlace& place);
    Result<int> keep(Result<Fd> fd);
    Status step() const { return options_.on_step ? options_.on_step() : Status{}; }

    Image& image_;
    AlignmentOptions options_;
    std::vector<Fd> opened_;  // alignments borrow them
};

}  // namespace twinspool
