// SPDX-License-Identifier: Apache-2.0
// VolumeConfig: what VOLUME.toml says. docs/CONFIGURATION.md has every key with its default.
// What the file may not say is refused with file, line and column. Pure values; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "journal/commit.h"
#include "journal/units.h"
#include "tools/complaint.h"

namespace twinspool {

enum class TransportChoice : std::uint8_t { kAuto, kIoUring, kDev };

struct DirectoryConfig {
    std::string path;  // absolute, without symbolic links
};

struct StandbyConfig {
    std::string path;  // absolute
};

// What the command does whose `before` has failed.
enum class FailedHook : std::uint8_t { kStop, kContinue };

// [snapshot]
struct SnapshotConfig {
    std::string before;  // commands for the shell; empty: none
    std::string after;
    Nanoseconds hook_timeout{30'000'000'000};
    FailedHook on_before_failure = FailedHook::kStop;
};

struct VolumeConfig {
    std::uint64_t id = 0;  // random; never 0
    CommitMode mode = CommitMode::kFsync;
    TransportChoice transport = TransportChoice::kAuto;
    Nanoseconds linger{2'000'000};
    Nanoseconds standby_timeout{10'000'000'000};
    Nanoseconds checkpoint_every{30'000'000'000};
    std::uint64_t journal_limit = std::uint64_t{8} << 30;
    std::uint64_t segment_size = std::uint64_t{64} << 20;
    std::vector<DirectoryConfig> directories;
    std::vector<StandbyConfig> standbys;
    SnapshotConfig snapshot;
};

[[nodiscard]] std::string_view spell(CommitMode mode);
[[nodiscard]] std::string_view spell(TransportChoice choice);
[[nodiscard]] std::string_view spell(FailedHook choice);
Outcome<CommitMode> parse_mode(std::string_view word);

// `file` is only for the complaints.
Outcome<VolumeConfig> parse_config(std::string_view text, const std::string& file);
Outcome<VolumeConfig> load_config(const std::string& file);

// The file that `create` writes: parse_config() of it gives `config` again.
std::string render_config(const std::string& name, const VolumeConfig& config);

}  // namespace twinspool
