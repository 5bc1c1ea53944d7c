// SPDX-License-Identifier: Apache-2.0
// Export: an image, or one object of it with all below it, as a tar stream (pax), with what GNU tar
// needs to bring everything back: owners by number, xattrs, ACLs, hard links, holes, devices.
// Names that are no UTF-8 go out as they are (GNU tar says that it ignores "hdrcharset", rightly).
// Sockets cannot be in a tar; they are left out and counted. Cut short by an error, the stream has
// no end mark, so that no reader takes it for whole.
// Memory: one directory on each level of the path, and the objects with several names.
// Free functions; one thread. EPIPE: the reader has gone.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "journal/base/result.h"
#include "journal/delta/image.h"
#include "replicator/past/image_path.h"

namespace twinspool {

struct ExportOptions {
    std::function<void(std::string_view path)> on_left_out;  // a socket
};

struct ExportCounters {
    std::uint64_t members = 0;
    std::uint64_t bytes = 0;
};

// The whole image: members are called by their full paths without the first slash; a part:
// beginning with the object's own name.
Result<ExportCounters> export_image(Image& image, const std::optional<ImagePart>& part, int fd,
                                    const ExportOptions& options);

}  // namespace twinspool
