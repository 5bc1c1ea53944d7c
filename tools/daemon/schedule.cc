// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/schedule.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "tools/ground/quantity.h"
#include "tools/ground/time_text.h"
#include "tools/machine/launch.h"

namespace twinspool {
namespace {

// Of what the command printed.
constexpr std::size_t kMostSaid = 4096;

// Reasons differ in names, numbers and times each time, and are the same all the same.
bool same_reason(const std::string& one, const std::string& other) {
    const auto words = [](std::string text) {
        std::erase_if(text, [](char c) { return c >= '0' && c <= '9'; });
        return text;
    };
    return words(one) == words(other);
}

// On one line, without the name that the program puts before its complaints.
std::string joined_lines(const std::string& text) {
    constexpr std::string_view kPrefix = "twinspool: ";
    std::string joined;
    for (std::size_t at = 0; at < text.size();) {
        const auto end = std::min(text.find('\n', at), text.size());
        std::string_view line{text.data() + at, end - at};
        if (line.starts_with(kPrefix)) line.remove_prefix(kPrefix.size());
        if (!line.empty()) joined.append(joined.empty() ? "" : "; ").append(line);
        at = end + 1;
    }
    return joined;
}

std::string ending_of(int wait_status) {
    if (WIFSIGNALED(wait_status)) return fmt::format("ended by signal {}", WTERMSIG(wait_status));
    return fmt::format("exit code {}", WEXITSTATUS(wait_status));
}

}  // namespace

Schedule::Schedule(std::string volume, const SnapshotConfig& config, WallTime now)
    : volume_(std::move(volume)), config_(config) {
    if (config.every == Nanoseconds{0}) return;
    due_.emplace(config.every, now);
    next_ = due_->next();
}

void Schedule::look(WallTime now, VolumeState state) {
    if (!due_) return;
    reap();
    const auto due = due_->come(now);
    {
        const std::lock_guard lock{mutex_};
        next_ = due_->next();
    }
    if (!due || state == VolumeState::kDown) return;
    if (state == VolumeState::kSeeding)
        not_taken(scheduled_name(config_.every, *due), "the standby is still being filled");
    else if (pid_ != 0)
        not_taken(scheduled_name(config_.every, *due), "the one before is still being taken");
    else
        start(*due);
}

void Schedule::start(WallTime due) {
    name_ = scheduled_name(config_.every, due);
    said_.clear();
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return not_taken(name_, last_error("make a pipe").text());
    output_ = Fd{ends[0]};
    const Fd theirs{ends[1]};
    ::fcntl(theirs.get(), F_SETFL, 0);  // only reading must not wait
    const auto point = volume_ + "@" + name_;
    const char* arguments[] = {"twinspool", "snapshot", point.c_str(), "--scheduled", nullptr};
    const auto pid = start_command(arguments, theirs);
    if (!pid.ok()) return not_taken(name_, pid.error().text());
    pid_ = pid.value();
}

// What a command leaves running keeps the other end open: its end is not waited for.
void Schedule::reap() {
    if (pid_ == 0) return;
    read_output();
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return;
    read_output();
    output_.reset();
    pid_ = 0;
    ended(status);
}

void Schedule::read_output() {
    char buffer[kMostSaid];
    for (;;) {
        const ssize_t got = ::read(output_.get(), buffer, sizeof buffer);
        if (got <= 0) return;
        said_.append(buffer, static_cast<std::size_t>(got));
        if (said_.size() > kMostSaid) said_.erase(0, said_.size() - kMostSaid);
    }
}

void Schedule::ended(int wait_status) {
    const auto said = joined_lines(said_);
    if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != 0)
        return not_taken(name_, said.empty() ? ending_of(wait_status) : said);
    spdlog::info("scheduled snapshot {}: {}", name_, said);
    const std::lock_guard lock{mutex_};
    if (!trouble_.empty()) spdlog::info("scheduled snapshots succeed again");
    trouble_.clear();
}

void Schedule::not_taken(const std::string& name, const std::string& why) {
    const std::lock_guard lock{mutex_};
    if (!same_reason(trouble_, why)) spdlog::error("scheduled snapshot {}: {}", name, why);
    trouble_ = why;
}

Json Schedule::status() const {
    if (!due_) return nullptr;
    const std::lock_guard lock{mutex_};
    return {{"every", spell_duration(config_.every)},
            {"keep", config_.keep ? Json(spell_retention(*config_.keep)) : Json()},
            {"next", spell_time(next_)},
            {"trouble", trouble_}};
}

}  // namespace twinspool
