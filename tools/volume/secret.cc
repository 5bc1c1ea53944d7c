// SPDX-License-Identifier: Apache-2.0
#include "tools/volume/secret.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>

#include "journal/base/fd.h"

namespace twinspool {
namespace {

using Key = decltype(LinkSecret::key);
constexpr std::size_t kDigits = 2 * std::tuple_size_v<Key>;

std::string spell(const Key& key) {
    std::string text;
    for (const auto byte : key) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
    return text + '\n';
}

Verdict check_private(const VolumePaths& paths, const struct stat& status) {
    const auto path = paths.secret();
    if (!S_ISREG(status.st_mode)) return bad_input("the secret {} is not a plain file", path);
    if (status.st_uid != 0)
        return bad_input("the secret {} belongs to user {}, who can read it: run `chown root {}`",
                         path, status.st_uid, path);
    if ((status.st_mode & 0077) != 0)
        return bad_input(
            "the secret {} can be read by others (mode {:04o}): run `chmod 600 {}`; if somebody "
            "may "
            "have read it, write a new one and copy it to every host of the volume",
            path, status.st_mode & 07777, path);
    return {};
}

}  // namespace

Verdict write_secret(const VolumePaths& paths) {
    Key key{};
    if (::getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size()))
        return Complaint{last_error("get random numbers for the secret")};
    TS_TRY(write_file_atomically(paths.secret(), spell(key)));
    return {};
}

Outcome<LinkSecret> load_secret(const VolumePaths& paths, std::uint64_t volume) {
    const auto path = paths.secret();
    const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)};
    if (!fd.valid() && errno == ENOENT)
        return bad_input(
            "the volume {} has a standby on another host, and its secret {} is not there: copy it "
            "from the other host, or, for a volume that never had one, make it on one host with "
            "`(umask 077; openssl rand -hex 32 >{})` and copy it to the other",
            paths.name, path, path);
    if (!fd.valid() && errno == ELOOP)
        return bad_input("the secret {} is a symbolic link; put the file itself there", path);
    if (!fd.valid()) return last_error("open the secret {}", path);
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return last_error("look at the secret {}", path);
    TS_TRY(check_private(paths, status));
    char text[kDigits + 2] = {};
    const ssize_t got = ::read(fd.get(), text, sizeof text);
    if (got < 0) return last_error("read the secret {}", path);
    const auto size = static_cast<std::size_t>(got);
    LinkSecret secret{.volume = volume};
    bool is_good = size == kDigits || (size == kDigits + 1 && text[kDigits] == '\n');
    for (std::size_t i = 0; i < secret.key.size() && is_good; ++i) {
        unsigned byte = 0;
        const auto parsed = std::from_chars(text + 2 * i, text + 2 * i + 2, byte, 16);
        is_good = parsed.ec == std::errc{} && parsed.ptr == text + 2 * i + 2;
        secret.key[i] = static_cast<std::byte>(byte);
    }
    if (!is_good)
        return bad_input(
            "the secret {} is not {} hexadecimal digits: copy the one of the other host", path,
            kDigits);
    return secret;
}

}  // namespace twinspool
