// SPDX-License-Identifier: Apache-2.0
#include "journal/base/fault.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "journal/base/result.h"

namespace twinspool {
namespace {

constexpr std::array kNames{
#define X(name) std::string_view{#name},
    TWINSPOOL_FAULT_POINTS(X)
#undef X
};

struct Choice {
    int point = -1;
    std::atomic<long> passages_left{0};
    Choice() {
        const char* text = std::getenv("TWINSPOOL_FAULT");  // NOLINT(concurrency-mt-unsafe)
        if (text == nullptr) return;
        const std::string_view chosen{text};
        const auto colon = chosen.find(':');
        const auto name = chosen.substr(0, colon);
        for (std::size_t i = 0; i < kNames.size(); ++i)
            if (kNames[i] == name) point = static_cast<int>(i);
        passages_left =
            colon == std::string_view::npos
                ? 1
                : std::strtol(std::string{chosen.substr(colon + 1)}.c_str(), nullptr, 10);
    }
};

}  // namespace

std::string_view fault_name(FaultPoint point) { return kNames[static_cast<std::size_t>(point)]; }
int fault_count() { return static_cast<int>(kNames.size()); }

void pass_fault_point(FaultPoint point) {
    static Choice choice;
    if (choice.point != static_cast<int>(point)) return;
    if (choice.passages_left.fetch_sub(1) == 1) ::kill(::getpid(), SIGKILL);
}

void assertion_failed(const char* what, const char* file, int line) {
    (void)std::fprintf(stderr, "twinspool: assertion failed: %s (%s:%d)\n", what, file, line);
    std::abort();
}

}  // namespace twinspool
