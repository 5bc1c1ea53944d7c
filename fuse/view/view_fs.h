// SPDX-License-Identifier: Apache-2.0
// View: an image, mounted read-only for everybody to browse: the volume's directories by their full
// paths below the mount point, with permissions and ACLs as they were.
//
// Because an image never changes, the kernel keeps what it was told for as long as it likes, and
// opening costs no message; what it has to ask for fails if the image fails.
// Threads: those that serve the kernel (libfuse's) are the View's own; the public functions are for
// others. The image must outlive it.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "journal/base/result.h"
#include "journal/delta/image.h"

namespace twinspool {

struct ViewOptions {
    std::string mountpoint;  // absolute
    std::string source;      // VOLUME@NAME, as mount(8) and df(1) show it
    std::string disk;        // a directory on the file system whose space statfs(2) shows
};

class View {
   public:
    // Mounted, and serving.
    static Result<std::unique_ptr<View>> mount(const ViewOptions& options, Image& image);
    // Takes the mount away if it is still there, and waits.
    ~View();
    View(const View&) = delete;
    View& operator=(const View&) = delete;

    // The device of the mount, as in st_dev and the mount table.
    [[nodiscard]] dev_t device() const;
    // Until it is unmounted everywhere, by whomever, and the last request has been answered.
    void wait();

   private:
    struct Parts;
    explicit View(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

}  // namespace twinspool
