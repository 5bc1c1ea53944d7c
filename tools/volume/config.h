// SPDX-License-Identifier: Apache-2.0
// VolumeConfig: what VOLUME.toml says. docs/CONFIGURATION.md has every key with its default.
// What the file may not say is refused with file, line and column. Pure values; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/units.h"
#include "journal/log/commit.h"
#include "replicator/link/tcp.h"
#include "replicator/store/retention.h"
#include "tools/ground/complaint.h"

namespace twinspool {

enum class TransportChoice : std::uint8_t { kAuto, kIoUring, kDev };

struct DirectoryConfig {
    std::string path;  // absolute, without symbolic links
};

struct StandbyConfig {
    std::string path;  // absolute; on `host` if there is one
    std::string host;  // a name or an address; empty: a directory of this machine
    std::uint16_t port = kDefaultPort;
    bool wait = true;  // commits wait for it
    [[nodiscard]] bool is_local() const { return host.empty(); }
    // As it was given to `create`: PATH or HOST[:PORT]:/PATH.
    [[nodiscard]] std::string target() const;
};

enum class StandbyLoss : std::uint8_t { kContinue, kFreeze };

// What the command does whose `before` has failed.
enum class FailedHook : std::uint8_t { kStop, kContinue };

// [snapshot]
struct SnapshotConfig {
    Nanoseconds every{0};               // 0: the daemon takes none by itself
    std::optional<RetentionRule> keep;  // nothing: all are kept
    std::string before;                 // commands for the shell; empty: none
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
    AckRule ack = AckRule::kAll;
    StandbyLoss on_standby_loss = StandbyLoss::kContinue;
    std::string fence_peer;  // command for the shell; empty: none
    Nanoseconds fence_timeout{30'000'000'000};
    std::uint64_t rate_limit = 0;  // bytes a second of seeding, resync and verify; 0: none
    Nanoseconds verify_every{0};   // 0: not by itself
    std::string metrics;           // ADDRESS:PORT of the Prometheus endpoint; empty: none
    Nanoseconds checkpoint_every{30'000'000'000};
    std::uint64_t journal_limit = std::uint64_t{8} << 30;
    std::uint64_t segment_size = std::uint64_t{64} << 20;
    std::vector<DirectoryConfig> directories;
    std::vector<StandbyConfig> standbys;
    SnapshotConfig snapshot;
};

[[nodiscard]] std::string_view spell(CommitMode mode);
[[nodiscard]] std::string_view spell(TransportChoice choice);
[[nodiscard]] std::string_view spell(AckRule rule);
[[nodiscard]] std::string_view spell(StandbyLoss choice);
[[nodiscard]] std::string_view spell(FailedHook choice);
Outcome<CommitMode> parse_mode(std::string_view word);

// `file` is only for the complaints.
Outcome<VolumeConfig> parse_config(std::string_view text, const std::string& file);
Outcome<VolumeConfig> load_config(const std::string& file);

// The file that `create` writes: parse_config() of it gives `config` again.
std::string render_config(const std::string& name, const VolumeConfig& config);

}  // namespace twinspool
