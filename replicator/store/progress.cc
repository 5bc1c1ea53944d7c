// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/progress.h"

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
    if (!fd.valid()) return last_error("open {}", path);
    if (const int error = owner ? ::posix_fallocate(fd.get(), 0, kBytes) : 0)
        return make_error(error, "make {}", path);
    void* const memory = ::mmap(nullptr, kBytes, owner ? PROT_READ | PROT_WRITE : PROT_READ,
                                MAP_SHARED, fd.get(), 0);
    if (memory == MAP_FAILED) return last_error("map {}", path);
    return Progress{static_cast<Page*>(memory)};
}

Progress::Progress(Progress&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}

Progress::~Progress() {
    if (page_ != nullptr) (void)::munmap(page_, kBytes);
}

Status Progress::begin_history(std::uint64_t number) {
    page_->history.store(number, std::memory_order_seq_cst);
    if (::msync(page_, kBytes, MS_SYNC) != 0) return last_error("sync the store's progress");
    return {};
}

Status Progress::break_upto(Lsn number) {
    if (number > broken_upto()) page_->broken_upto.store(number.value, std::memory_order_seq_cst);
    if (::msync(page_, kBytes, MS_SYNC) != 0) return last_error("sync the store's progress");
    rise();
    return {};
}

}  // namespace twinspool
