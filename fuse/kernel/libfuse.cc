// SPDX-License-Identifier: Apache-2.0
#include "fuse/kernel/libfuse.h"

#include <spdlog/spdlog.h>

#include <cstdarg>
#include <cstdio>
#include <string_view>

#include "fuse/kernel/process.h"

namespace twinspool {
namespace {

void log_libfuse(fuse_log_level level, const char* format, va_list arguments) {
    char text[512];
    (void)std::vsnprintf(text, sizeof text, format, arguments);
    std::string_view line{text};
    while (line.ends_with('\n')) line.remove_suffix(1);
    if (level <= FUSE_LOG_ERR)
        spdlog::error("libfuse: {}", line);
    else
        spdlog::debug("libfuse: {}", line);
}

}  // namespace

void take_over_libfuse_log() { fuse_set_log_func(log_libfuse); }

void run_libfuse_loop(fuse_session* session, const char* what, unsigned threads) {
    name_thread(fmt::format("{}-loop", what).c_str());
    fuse_loop_config* const config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(config, 0);
    fuse_loop_cfg_set_max_threads(config, threads);
    fuse_loop_cfg_set_idle_threads(config, threads);
    const int error = fuse_session_loop_mt(session, config);
    if (error != 0) spdlog::error("{}-loop ended with error {}", what, error);
    fuse_loop_cfg_destroy(config);
}

}  // namespace twinspool
