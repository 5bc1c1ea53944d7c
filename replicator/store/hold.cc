// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/hold.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

namespace twinspool {

std::string hold_path(const std::string& store, Lsn number) {
    return fmt::format("{}/holds/{}", store, number.value);
}

// Whoever gets the lock of a file that was removed meanwhile holds nothing, and looks again.
Result<std::optional<Fd>> hold_snapshot(const std::string& store, Lsn number, HoldKind kind) {
    const std::string folder = store + "/holds";
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
        return last_error("make the folder {}", folder);
    const std::string path = hold_path(store, number);
    for (;;) {
        Fd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600)};
        if (!fd.valid()) return last_error("open {}", path);
        const int how = kind == HoldKind::kRead ? LOCK_SH : LOCK_EX;
        if (::flock(fd.get(), how | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK) return std::optional<Fd>{};
            return last_error("lock {}", path);
        }
        struct stat held {};
        struct stat standing {};
        if (::fstat(fd.get(), &held) != 0) return last_error("look at {}", path);
        if (::stat(path.c_str(), &standing) == 0 && standing.st_ino == held.st_ino)
            return std::optional{std::move(fd)};
    }
}

}  // namespace twinspool
