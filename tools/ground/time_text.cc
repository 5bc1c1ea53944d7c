// SPDX-License-Identifier: Apache-2.0
#include "tools/ground/time_text.h"

#include <ctime>

namespace twinspool {

std::string spell_time(WallTime time) {
    constexpr std::int64_t kSecond = 1'000'000'000;
    const std::time_t seconds = raw(time) / kSecond;
    std::tm parts{};
    char text[32];
    if (::gmtime_r(&seconds, &parts) == nullptr ||
        std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        return "?";
    return text;
}

}  // namespace twinspool
