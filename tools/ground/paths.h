// SPDX-License-Identifier: Apache-2.0
// VolumePaths: where a volume keeps what. TWINSPOOL_ROOT=DIR puts everything below DIR (etc, lib,
// run), but for the journal's tail, which is always on tmpfs. Also the few file operations that the
// commands need: private directories, whole-file read and atomic write.
// Values and free functions; no threads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tools/ground/complaint.h"

namespace twinspool {

// The three places of this machine, or of TWINSPOOL_ROOT.
struct BasePaths {
    std::string etc;
    std::string lib;
    std::string run;
    static BasePaths from_environment();
};

struct VolumePaths {
    std::string name;
    BasePaths base;

    static VolumePaths of(std::string_view name);

    [[nodiscard]] std::string config() const { return base.etc + "/" + name + ".toml"; }
    [[nodiscard]] std::string secret() const { return base.etc + "/" + name + ".secret"; }
    [[nodiscard]] std::string state() const { return base.lib + "/" + name; }
    [[nodiscard]] std::string journal() const { return state() + "/journal"; }
    [[nodiscard]] std::string log() const { return state() + "/twinspool.log"; }
    [[nodiscard]] std::string last_status() const { return state() + "/last-status.json"; }
    // How the seed in progress, or the last one, tells contents; and what the last verify found.
    [[nodiscard]] std::string seed_contents() const { return state() + "/seed-contents"; }
    [[nodiscard]] std::string last_verify() const { return state() + "/last-verify.json"; }
    // The configuration as the last `up` found it.
    [[nodiscard]] std::string last_config() const { return state() + "/last-up.toml"; }
    // The same as the last `standby` found it, with the one [[standby]] that this machine is.
    [[nodiscard]] std::string last_standby() const { return state() + "/last-standby.toml"; }
    [[nodiscard]] std::string run() const { return base.run + "/" + name; }
    [[nodiscard]] std::string mount() const { return run() + "/mnt"; }
    [[nodiscard]] std::string mounted(std::size_t index) const {
        return mount() + "/" + std::to_string(index);
    }
    [[nodiscard]] std::string backing(std::size_t index) const {
        return run() + "/backing/" + std::to_string(index);
    }
    [[nodiscard]] std::string backing_directory() const { return run() + "/backing"; }
    [[nodiscard]] std::string pid() const { return run() + "/daemon.pid"; }
    [[nodiscard]] std::string lock() const { return run() + "/lock"; }
};

// Where the tail of the volume with this id is; a directory on tmpfs of the machine's own.
inline constexpr const char* kTailDirectory = "/dev/shm/twinspool";
std::string tail_path(std::uint64_t volume);

// Letters, digits, ".", "_" and "-"; not beginning with "." or "-"; at most 64 bytes.
Verdict check_name(std::string_view name);
// Names of all volumes that have a configuration, sorted.
std::vector<std::string> volume_names(const BasePaths& base);

// Whether `path` is `directory` itself or below it. Both absolute, without "//", "." and "..".
[[nodiscard]] bool is_within(std::string_view path, std::string_view directory);

// Makes the directory and its parents, mode 0700; what exists must be a directory of our own user.
Verdict make_private_directory(const std::string& path);
// Names in a directory, without "." and "..", in no order.
Result<std::vector<std::string>> entries_of(const std::string& directory);
Result<std::string> read_file(const std::string& path);
// Written beside it, synced, renamed, and the directory synced: the old file or the new, never a
// mix.
Status write_file_atomically(const std::string& path, std::string_view content);
// The same for a file that must not be there yet: EEXIST if it is, and it stays as it was.
Status write_new_file(const std::string& path, std::string_view content);
// Absolute and without symbolic links.
Result<std::string> real_path(const std::string& path);

}  // namespace twinspool
