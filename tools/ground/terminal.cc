// SPDX-License-Identifier: Apache-2.0
#include "tools/ground/terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace twinspool {

void print(std::string_view text) {
    (void)std::fwrite(text.data(), 1, text.size(), stdout);
    (void)std::fflush(stdout);
}

void print_error(std::string_view sentence) {
    (void)std::fprintf(stderr, "twinspool: %.*s\n", static_cast<int>(sentence.size()),
                       sentence.data());
}

void print_warning(std::string_view sentence) { print_error(fmt::format("warning: {}", sentence)); }

Verdict require_root() {
    if (::geteuid() == 0) return {};
    return failure("this needs root: it mounts file systems and reads what belongs to others");
}

}  // namespace twinspool
