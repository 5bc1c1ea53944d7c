// SPDX-License-Identifier: Apache-2.0
// Handlers: libfuse's table of operations. Each handler decodes its arguments, and one verb of
// fuse/{reading,listing,mutation} does the work; fuse/serve/serving runs it and replies.
#pragma once

#include <atomic>

#include "fuse/objects/volume.h"

struct fuse_lowlevel_ops;
struct fuse_conn_info;

namespace twinspool {

// What libfuse hands to every handler.
struct Service {
    explicit Service(Volume& its_volume) : volume(its_volume) {}
    Volume& volume;
    std::atomic<bool> initialized{false};
    std::atomic<bool> over_uring{false};  // as far as requests have come over it
};

const fuse_lowlevel_ops& handlers();

}  // namespace twinspool
