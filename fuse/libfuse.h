// SPDX-License-Identifier: Apache-2.0
// libfuse's low-level interface, in the version that fuse/{session,handlers,reply}.cc are written
// for. Included by these files only.
#pragma once

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wpedantic"
#include <fuse_lowlevel.h>
#pragma GCC diagnostic pop
