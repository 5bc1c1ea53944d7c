// SPDX-License-Identifier: Apache-2.0
#include "replicator/progress.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>

namespace twinspool {
namespace {

constexpr std::size_t kBytes = 4096;

}  // namespace

Result<Progress> Progress::open(const std::string& store, Role role) {
    const std::string path = store + "/progress";
    const bool owner = role == Role::kOwner;
    const int flags = owner ? O_RDWR | O_CREAT : O_RDONLY;
    const Fd fd{::open(path.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, 0600)};
    if (!fd.valid() || (owner && ::ftruncate(fd.get(), kBytes) != 0))
        return last_error("open {}", path);
    void* const memory = ::mmap(nullptr, kBytes, owner ? PROT_READ | PROT_WRITE : PROT_READ,
                                MAP_SHARED, fd.get(), 0);
    if (memory == MAP_FAILED) return last_error("map {}", path);
    return Progress{static_cast<std::atomic<std::uint64_t>*>(memory)};
}

Progress::Progress(Progress&& other) noexcept : counter_(std::exchange(other.counter_, nullptr)) {}

Progress::~Progress() {
    if (counter_ != nullptr) (void)::munmap(counter_, kBytes);
}

}  // namespace twinspool
