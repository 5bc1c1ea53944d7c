// SPDX-License-Identifier: Apache-2.0
#include "tools/ground/long_work.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "replicator/past/printable.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

constexpr auto kRedrawEvery = 200ms;
constexpr auto kLineEvery = 15s;
constexpr std::size_t kUsualColumns = 80;

volatile std::sig_atomic_t signal_came = 0;
void note_signal(int /*signal*/) { signal_came = 1; }

std::size_t columns() {
    winsize size{};
    if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsualColumns;
    return size.ws_col;
}

// The end of a path says more than its beginning. Whole characters of UTF-8 only.
std::string_view last_part(std::string_view path, std::size_t room) {
    if (path.size() <= room) return path;
    path.remove_prefix(path.size() - room);
    while (!path.empty() && (static_cast<unsigned char>(path.front()) & 0xc0U) == 0x80)
        path.remove_prefix(1);
    return path;
}

}  // namespace

LongWork::LongWork(std::string_view doing)
    : doing_(doing),
      on_terminal_(::isatty(STDERR_FILENO) == 1),
      next_(Clock::now() + (on_terminal_ ? Clock::duration{kRedrawEvery} : kLineEvery)) {
    signal_came = 0;
    for (std::size_t i = 0; i < kHeeded.size(); ++i) {
        struct sigaction action {};
        action.sa_handler = note_signal;
        action.sa_flags = SA_RESTART;
        (void)::sigaction(kHeeded[i], nullptr, &before_[i]);
        if (before_[i].sa_handler != SIG_IGN) (void)::sigaction(kHeeded[i], &action, nullptr);
    }
}

LongWork::~LongWork() {
    clear();
    for (std::size_t i = 0; i < kHeeded.size(); ++i)
        (void)::sigaction(kHeeded[i], &before_[i], nullptr);
}

bool LongWork::interrupted() { return signal_came != 0; }

Status LongWork::go_on() {
    if (!interrupted()) return {};
    return make_error(ECANCELED, "go on after a signal");
}

void LongWork::show(std::uint64_t objects, std::uint64_t bytes, std::string_view path) {
    const auto now = Clock::now();
    if (now < next_) return;
    next_ = now + (on_terminal_ ? Clock::duration{kRedrawEvery} : kLineEvery);
    const std::string head = fmt::format("{}: {} objects, {} B ", doing_, objects, bytes);
    const std::string name = printable(path);
    if (!on_terminal_) {
        (void)std::fprintf(stderr, "twinspool: %s%s\n", head.c_str(), name.c_str());
        return;
    }
    const std::size_t width = columns();
    const std::size_t room = width > head.size() + 1 ? width - head.size() - 1 : 0;
    const std::string line = head + std::string{last_part(name, room)};
    (void)std::fprintf(stderr, "\r\033[K%s", line.c_str());
    shown_ = true;
}

void LongWork::clear() {
    if (shown_) (void)std::fprintf(stderr, "\r\033[K");
    shown_ = false;
}

}  // namespace twinspool
