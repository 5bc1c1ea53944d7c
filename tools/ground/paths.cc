// SPDX-License-Identifier: Apache-2.0
#include "tools/ground/paths.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "journal/base/fd.h"

namespace twinspool {
namespace {

constexpr std::size_t kMaxNameBytes = 64;
constexpr std::string_view kConfigSuffix = ".toml";

std::string without_trailing_slashes(std::string text) {
    while (text.size() > 1 && text.back() == '/') text.pop_back();
    return text;
}

// TWINSPOOL_ROOT as programs that change their working directory need it.
std::string absolute(const char* path) {
    std::unique_ptr<char, decltype(&std::free)> real{::realpath(path, nullptr), &std::free};
    if (real) return real.get();
    if (path[0] == '/') return without_trailing_slashes(path);
    std::unique_ptr<char, decltype(&std::free)> here{::getcwd(nullptr, 0), &std::free};
    return without_trailing_slashes(fmt::format("{}/{}", here ? here.get() : "", path));
}

Status sync_directory_of(const std::string& path) {
    const std::string parent = path.substr(0, std::max<std::size_t>(path.rfind('/'), 1));
    const Fd fd{::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd.valid() || ::fsync(fd.get()) != 0) return last_error("sync the directory {}", parent);
    return {};
}

Status write_all(int fd, std::string_view content) {
    while (!content.empty()) {
        const ssize_t done = ::write(fd, content.data(), content.size());
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return last_error("write");
        content.remove_prefix(static_cast<std::size_t>(done));
    }
    return {};
}

// A whole file, synced, for its place to be taken by one step.
Status write_beside(const std::string& beside, std::string_view content) {
    const Fd fd{
        ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (!fd.valid()) return last_error("create {}", beside);
    TS_TRY(write_all(fd.get(), content));
    if (::fsync(fd.get()) != 0) return last_error("sync {}", beside);
    return {};
}

}  // namespace

BasePaths BasePaths::from_environment() {
    const char* root = std::getenv("TWINSPOOL_ROOT");  // NOLINT(concurrency-mt-unsafe)
    if (root == nullptr || *root == '\0')
        return {"/etc/twinspool", "/var/lib/twinspool", "/run/twinspool"};
    const std::string base = absolute(root);
    return {base + "/etc", base + "/lib", base + "/run"};
}

VolumePaths VolumePaths::of(std::string_view name) {
    return {std::string{name}, BasePaths::from_environment()};
}

std::string tail_path(std::uint64_t volume) {
    return fmt::format("{}/{:016x}.tail", kTailDirectory, volume);
}

Verdict check_name(std::string_view name) {
    const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '.' || c == '_' || c == '-';
    };
    if (name.empty() || name.size() > kMaxNameBytes || name.front() == '.' || name.front() == '-' ||
        !std::all_of(name.begin(), name.end(), allowed))
        return bad_input(
            "\"{}\" cannot be the name of a volume: use letters, digits, \".\", \"_\" and \"-\", "
            "not "
            "beginning with \".\" or \"-\", at most {} characters",
            name, kMaxNameBytes);
    return {};
}

std::vector<std::string> volume_names(const BasePaths& base) {
    std::vector<std::string> names;
    const auto files = entries_of(base.etc);
    if (!files.ok()) return names;
    for (const std::string_view file : files.value()) {
        if (!file.ends_with(kConfigSuffix)) continue;
        const auto name = file.substr(0, file.size() - kConfigSuffix.size());
        if (check_name(name).ok()) names.emplace_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
}

bool is_within(std::string_view path, std::string_view directory) {
    if (directory == "/") return path.starts_with('/');
    return path.starts_with(directory) &&
           (path.size() == directory.size() || path[directory.size()] == '/');
}

Verdict make_private_directory(const std::string& path) {
    for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
        const std::string part = path.substr(0, end);
        if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST)
            return Complaint{last_error("make the directory {}", part)};
        if (end == std::string::npos) break;
    }
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) return Complaint{last_error("look at {}", path)};
    if (!S_ISDIR(status.st_mode)) return failure("{} is in the way: it is not a directory", path);
    if (status.st_uid != ::geteuid())
        return failure(
            "{} belongs to user {}: what is private to Twinspool must belong to root; "
            "look who made it, and remove it",
            path, status.st_uid);
    if ((status.st_mode & 07777) != 0700 && ::chmod(path.c_str(), 0700) != 0)
        return Complaint{last_error("make {} private", path)};
    return {};
}

Result<std::vector<std::string>> entries_of(const std::string& directory) {
    const auto close = [](DIR* open) { (void)::closedir(open); };
    const std::unique_ptr<DIR, decltype(close)> open{::opendir(directory.c_str()), close};
    if (!open) return last_error("open the directory {}", directory);
    std::vector<std::string> names;
    while (const dirent* entry = ::readdir(open.get())) {  // NOLINT(concurrency-mt-unsafe)
        const std::string_view name{entry->d_name};
        if (name != "." && name != "..") names.emplace_back(name);
    }
    return names;
}

Result<std::string> read_file(const std::string& path) {
    const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!fd.valid()) return last_error("open {}", path);
    std::string text;
    char buffer[16384];
    for (;;) {
        const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return last_error("read {}", path);
        if (got == 0) return text;
        text.append(buffer, static_cast<std::size_t>(got));
    }
}

Status write_file_atomically(const std::string& path, std::string_view content) {
    const std::string beside = path + ".new";
    TS_TRY(write_beside(beside, content));
    if (::rename(beside.c_str(), path.c_str()) != 0) return last_error("put {} in place", path);
    return sync_directory_of(path);
}

Status write_new_file(const std::string& path, std::string_view content) {
    const std::string beside = fmt::format("{}.{}.new", path, ::getpid());
    TS_TRY(write_beside(beside, content));
    Status placed;
    if (::link(beside.c_str(), path.c_str()) != 0) placed = last_error("put {} in place", path);
    (void)::unlink(beside.c_str());
    if (!placed.ok()) return placed.error();
    return sync_directory_of(path);
}

Result<std::string> real_path(const std::string& path) {
    std::unique_ptr<char, decltype(&std::free)> real{::realpath(path.c_str(), nullptr), &std::free};
    if (!real) return last_error("find {}", path);
    return std::string{real.get()};
}

}  // namespace twinspool
