// SPDX-License-Identifier: Apache-2.0
#include "journal/base/durable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cstring>

#include "journal/base/fd.h"

namespace twinspool {
namespace {

constexpr std::uint32_t kVersion = 1;

struct Head {
    std::uint32_t magic;     // 0
    std::uint32_t version;   // 4
    std::uint64_t size;      // 8   of the body
    std::uint64_t checksum;  // 16  XXH3-64 of the body
    std::uint64_t reserved;  // 24
};
static_assert(sizeof(Head) == 32);

Status sync_folder(const std::string& directory) {
    const Fd fd{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd.valid() || ::fsync(fd.get()) != 0) return last_error("sync the folder {}", directory);
    return {};
}

Status write_all(int fd, Bytes bytes, const std::string& path) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(fd, bytes.data(), bytes.size());
        if (written < 0) return last_error("write {}", path);
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
    return {};
}

}  // namespace

Result<std::optional<std::vector<std::byte>>> read_durable(const DurableFile& file) {
    const std::string path = file.path();
    const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!fd.valid() && errno == ENOENT) return std::optional<std::vector<std::byte>>{};
    if (!fd.valid()) return last_error("open {}", path);
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return last_error("examine {}", path);
    const auto size = static_cast<std::size_t>(st.st_size);
    Head head{};
    if (size < sizeof head) return make_error(EBADMSG, "read {}: it is damaged (cut off)", path);
    std::vector<std::byte> body(size - sizeof head);
    if (::pread(fd.get(), &head, sizeof head, 0) != static_cast<ssize_t>(sizeof head) ||
        ::pread(fd.get(), body.data(), body.size(), sizeof head) !=
            static_cast<ssize_t>(body.size()))
        return last_error("read {}", path);
    if (head.magic != file.magic || head.size != body.size() ||
        head.checksum != XXH3_64bits(body.data(), body.size()))
        return make_error(EBADMSG, "read {}: it is damaged", path);
    if (head.version != kVersion)
        return make_error(EBADMSG, "read {}: version {} is not {}", path, head.version, kVersion);
    return std::optional{std::move(body)};
}

Status write_durable(const DurableFile& file, Bytes body) {
    const Head head{.magic = file.magic,
                    .version = kVersion,
                    .size = body.size(),
                    .checksum = XXH3_64bits(body.data(), body.size()),
                    .reserved = 0};
    const std::string path = file.path() + ".new";
    const Fd fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    if (!fd.valid()) return last_error("make {}", path);
    TS_TRY(write_all(fd.get(), std::as_bytes(std::span{&head, 1}), path));
    TS_TRY(write_all(fd.get(), body, path));
    if (::fsync(fd.get()) != 0) return last_error("sync {}", path);
    if (::rename(path.c_str(), file.path().c_str()) != 0) return last_error("name {}", file.path());
    return sync_folder(file.directory);
}

Status remove_durable(const DurableFile& file) {
    if (::unlink(file.path().c_str()) != 0 && errno != ENOENT)
        return last_error("remove {}", file.path());
    return sync_folder(file.directory);
}

}  // namespace twinspool
