// SPDX-License-Identifier: Apache-2.0
#include "tools/machine/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "tools/machine/launch.h"

namespace twinspool {

void begin_log(const std::string& volume, const std::string& role) {
    spdlog::set_default_logger(spdlog::stderr_logger_mt(volume));
    // journald stamps lines itself.
    const char* stamp = log_place() == LogPlace::kStandardError ? "" : "%Y-%m-%dT%H:%M:%S.%e%z ";
    spdlog::set_pattern(fmt::format("{}%n {}[%P] %l: %v", stamp, role));
    spdlog::flush_on(spdlog::level::trace);
}

}  // namespace twinspool
