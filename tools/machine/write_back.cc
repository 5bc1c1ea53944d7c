// SPDX-License-Identifier: Apache-2.0
// syncfs(2) does not do it: on a FUSE file system it begins the writing of all dirty pages, but
// returns with requests still in flight (measured with Linux 6.18: of 48 MiB of stores up to a half
// had not come to the daemon). fsync(2) of the file waits for them. Dirty pages are only in files
// that somebody has mapped: with no write-back cache every other write is a request, and munmap(2),
// as the end of a process, writes a FUSE file back and waits. So each file that is mapped somewhere
// is synced.
#include "tools/machine/write_back.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>
#include <utility>

#include "journal/base/fd.h"
#include "tools/machine/inspection.h"

namespace twinspool {
namespace {

Status begin_writing(const std::string& directory, std::set<dev_t>& devices) {
    const Fd fd{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    struct stat status {};
    if (!fd.valid() || ::fstat(fd.get(), &status) != 0) return last_error("open {}", directory);
    if (::syncfs(fd.get()) != 0) return last_error("write back what is mapped of {}", directory);
    devices.insert(status.st_dev);
    return {};
}

}  // namespace

Status write_back_stores(const std::vector<std::string>& directories) {
    std::set<dev_t> devices;
    // So that the disks are busy while one file after the other is waited for.
    for (const auto& directory : directories) TS_TRY(begin_writing(directory, devices));
    std::set<std::pair<dev_t, ino_t>> done;
    for (const dev_t device : devices)
        for (const SharedMapping& mapping : shared_mappings_of_device(device)) {
            if (done.contains({device, mapping.inode})) continue;
            const Fd fd{::open(mapping.link.c_str(), O_RDONLY | O_CLOEXEC)};
            struct stat status {};
            // Unmapped meanwhile: written back by that. Something else is mapped there now: that
            // was mapped later.
            if (!fd.valid() || ::fstat(fd.get(), &status) != 0 || status.st_dev != device) continue;
            if (::fsync(fd.get()) != 0)
                return last_error("write back {}, which is mapped by process {}", mapping.path,
                                  mapping.pid);
            done.emplace(device, status.st_ino);
        }
    return {};
}

}  // namespace twinspool
