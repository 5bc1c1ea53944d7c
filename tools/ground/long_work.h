// SPDX-License-Identifier: Apache-2.0
// LongWork: a command that may take long: it shows how far it is (a line that is redrawn on a
// terminal, a plain line now and then otherwise; both on standard error), and SIGINT, SIGTERM and
// SIGHUP only ask it to come to an end. Those that were ignored before (nohup) stay so. One at a
// time; the signals have their old effect again when it ends.
#pragma once

#include <csignal>

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "journal/base/result.h"

namespace twinspool {

class LongWork {
   public:
    explicit LongWork(std::string_view doing);  // "restoring mail@monday"
    ~LongWork();
    LongWork(const LongWork&) = delete;
    LongWork& operator=(const LongWork&) = delete;

    // As often as one likes.
    void show(std::uint64_t objects, std::uint64_t bytes, std::string_view path);
    // Before something else is printed.
    void clear();
    [[nodiscard]] static bool interrupted();
    // ECANCELED after a signal.
    static Status go_on();

   private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::array kHeeded{SIGINT, SIGTERM, SIGHUP};
    std::string doing_;
    bool on_terminal_;
    Clock::time_point next_;
    bool shown_ = false;
    std::array<struct sigaction, kHeeded.size()> before_{};
};

}  // namespace twinspool
