// SPDX-License-Identifier: Apache-2.0
// libfuse's low-level interface, in the version that this folder is written for, what differs
// between versions of it, and its log and loop. Included by fuse/serve/{session,handlers,reply}.cc,
// fuse/view/view_fs.cc and fuse/kernel/notifier.cc only, and by the test that plays the kernel
// (tests/unit/costs_requests_test.cc).
#pragma once

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wpedantic"
#include <fuse_lowlevel.h>
#pragma GCC diagnostic pop

#include <cstdint>

namespace twinspool {

inline void want(fuse_conn_info* connection, std::uint64_t feature) {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
    fuse_set_feature_flag(connection, feature);
#else
    connection->want |= connection->capable & static_cast<unsigned>(feature);
#endif
}

inline void do_not_want(fuse_conn_info* connection, std::uint64_t feature) {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
    fuse_unset_feature_flag(connection, feature);
#else
    connection->want &= ~static_cast<unsigned>(feature);
#endif
}

// What libfuse has to say goes to our log; to standard error otherwise.
void take_over_libfuse_log();

// Serves until the session ends, with this many threads; the calling one gets the name
// `<what>-loop`.
void run_libfuse_loop(fuse_session* session, const char* what, unsigned threads);

}  // namespace twinspool
