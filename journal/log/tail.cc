// SPDX-License-Identifier: Apache-2.0
#include "journal/log/tail.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <array>
#include <cstring>
#include <new>
#include <utility>

namespace twinspool {
namespace {

constexpr std::uint64_t kTailMagic = 0x4C49415450535754;  // "TWSPTAIL"
constexpr std::uint32_t kTailVersion = 2;

Result<std::array<char, 40>> boot_id() {
    std::array<char, 40> text{};
    const Fd fd{::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)};
    if (!fd.valid() || ::read(fd.get(), text.data(), 36) != 36)
        return last_error("read the boot id");
    return text;
}

Result<Fd> open_on_tmpfs(const std::string& path) {
    Fd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    if (!fd.valid()) return last_error("open the journal's tail {}", path);
    struct statfs fs {};
    if (::fstatfs(fd.get(), &fs) != 0) return last_error("examine the journal's tail {}", path);
    if (fs.f_type != TMPFS_MAGIC)
        return make_error(EINVAL, "use {} for the journal's tail: it is not on a tmpfs", path);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
        return make_error(EBUSY, "lock the journal's tail {}: another process serves the volume",
                          path);
    return fd;
}

}  // namespace

Result<Tail> Tail::open(const std::string& path, std::uint64_t volume) {
    TS_ASSIGN(Fd fd, open_on_tmpfs(path));
    TS_ASSIGN(const auto boot, boot_id());
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return last_error("examine the journal's tail {}", path);
    const bool whole = st.st_size == static_cast<off_t>(sizeof(TailLayout));
    if (!whole && ::ftruncate(fd.get(), 0) != 0) return last_error("empty {}", path);
    if (::fallocate(fd.get(), 0, 0, sizeof(TailLayout)) != 0)
        return last_error("allocate {} bytes for the journal's tail {}", sizeof(TailLayout), path);
    void* memory = ::mmap(nullptr, sizeof(TailLayout), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_POPULATE, fd.get(), 0);
    if (memory == MAP_FAILED) return last_error("map the journal's tail {}", path);
    if (::mlock(memory, sizeof(TailLayout)) != 0) {
        const Error error = last_error("lock the journal's tail {} in memory", path);
        ::munmap(memory, sizeof(TailLayout));
        return error;
    }
    auto* layout = std::launder(reinterpret_cast<TailLayout*>(memory));
    const TailHeader& header = layout->header;
    const bool left_behind = whole && header.magic == kTailMagic &&
                             header.version == kTailVersion && header.in_use != 0 &&
                             header.volume == volume &&
                             std::memcmp(header.boot_id, boot.data(), boot.size()) == 0;
    if (!left_behind) {
        layout->header.in_use = 0;
        layout->header.magic = kTailMagic;
        layout->header.version = kTailVersion;
        layout->header.volume = volume;
        layout->header.inherited_count = 0;
        std::memcpy(layout->header.boot_id, boot.data(), boot.size());
    }
    return Tail{std::move(fd), layout, left_behind};
}

Tail::Tail(Fd fd, TailLayout* layout, bool left_behind)
    : fd_(std::move(fd)), layout_(layout), left_behind_(left_behind) {}

Tail::Tail(Tail&& other) noexcept
    : fd_(std::move(other.fd_)),
      layout_(std::exchange(other.layout_, nullptr)),
      left_behind_(other.left_behind_) {}

Tail::~Tail() {
    if (layout_ != nullptr) ::munmap(layout_, sizeof(TailLayout));
}

void Tail::reset() {
    for (Note& note : layout_->notes) note.active = 0;
    for (FillingFrame& frame : layout_->filling) {
        frame.first_lsn = 0;
        for (auto& each : frame.complete) each = 0;
    }
    for (SealedSlot& slot : layout_->sealed) slot.size = 0;
    left_behind_ = false;
    layout_->header.in_use = 1;
}

void Tail::mark_clean() { layout_->header.in_use = 0; }

}  // namespace twinspool
