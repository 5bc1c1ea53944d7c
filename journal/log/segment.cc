// SPDX-License-Identifier: Apache-2.0
#include "journal/log/segment.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

namespace twinspool {
namespace {

constexpr std::size_t kZeroBytes = std::size_t{1} << 20;
constexpr std::size_t kSparesKept = 2;
constexpr std::string_view kSuffix = ".seg";
constexpr std::string_view kSparePrefix = "spare.";

std::uint64_t checksum_of(const SegmentHeader& header) {
    return XXH3_64bits(&header, offsetof(SegmentHeader, checksum));
}

Status sync_directory(const std::string& directory) {
    const Fd fd{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd.valid() || ::fsync(fd.get()) != 0) return last_error("sync the folder {}", directory);
    return {};
}

Result<std::vector<std::string>> names_in(const std::string& directory) {
    std::vector<std::string> names;
    std::error_code code;
    std::filesystem::directory_iterator each{directory, code};
    if (code) return make_error(code.value(), "read the folder {}", directory);
    for (; each != std::filesystem::directory_iterator{}; each.increment(code)) {
        if (code) return make_error(code.value(), "read the folder {}", directory);
        names.push_back(each->path().filename().string());
    }
    return names;
}

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t bytes)
    : data_(static_cast<std::byte*>(
          std::aligned_alloc(kBlockBytes, blocks_for(bytes) * kBlockBytes))),
      size_(blocks_for(bytes) * kBlockBytes) {
    TS_ASSERT(data_ != nullptr);
    std::memset(data_, 0, size_);
}
AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}
AlignedBuffer::~AlignedBuffer() { std::free(data_); }  // NOLINT: from aligned_alloc

std::string segment_path(const std::string& directory, SegmentNumber number) {
    return fmt::format("{}/{:016x}{}", directory, raw(number), kSuffix);
}

Result<std::vector<SegmentName>> list_segments(const std::string& directory) {
    std::vector<SegmentName> segments;
    TS_ASSIGN(const auto names, names_in(directory));
    for (const std::string& name : names) {
        if (name.size() != 16 + kSuffix.size() || !name.ends_with(kSuffix)) continue;
        std::uint64_t number = 0;
        const auto [end, error] = std::from_chars(name.data(), name.data() + 16, number, 16);
        if (error != std::errc{} || end != name.data() + 16) continue;
        segments.push_back({SegmentNumber{number}, directory + '/' + name});
    }
    std::sort(segments.begin(), segments.end(),
              [](const auto& a, const auto& b) { return raw(a.number) < raw(b.number); });
    return segments;
}

Result<Segment> open_segment(const std::string& path, std::uint64_t volume, int flags) {
    Segment segment;
    segment.path = path;
    segment.fd.reset(::open(path.c_str(), flags | O_DIRECT | O_CLOEXEC));
    if (!segment.fd.valid()) return last_error("open segment {}", path);
    const AlignedBuffer block{kBlockBytes};
    const ssize_t size = ::pread(segment.fd.get(), block.data(), kBlockBytes, 0);
    if (size < 0) return last_error("read segment {}", path);
    if (static_cast<std::size_t>(size) < kBlockBytes)
        return make_error(EBADMSG, "read segment {} at offset 0: cut off", path);
    std::memcpy(&segment.header, block.data(), sizeof segment.header);
    const SegmentHeader& header = segment.header;
    if (header.magic != kSegmentMagic || header.checksum != checksum_of(header))
        return make_error(EBADMSG, "read segment {} at offset 0: its header is damaged", path);
    if (header.version != kFormatVersion)
        return make_error(EBADMSG, "read segment {} at offset 0: version {} is not {}", path,
                          header.version, kFormatVersion);
    if (volume != 0 && header.volume != volume)
        return make_error(EBADMSG,
                          "read segment {} at offset 0: it is of volume {:016x}, not {:016x}", path,
                          header.volume, volume);
    struct stat st {};
    if (::fstat(segment.fd.get(), &st) != 0) return last_error("examine segment {}", path);
    if (static_cast<std::uint64_t>(st.st_size) < header.bytes)
        return make_error(EBADMSG, "read segment {} at offset {}: cut off, {} bytes are missing",
                          path, st.st_size, header.bytes - static_cast<std::uint64_t>(st.st_size));
    return segment;
}

bool is_segment_size(std::uint64_t bytes) {
    constexpr std::uint64_t kMost = std::uint64_t{1} << 40;
    return bytes % kBlockBytes == 0 && bytes >= 2 * kMaxFrameBytes && bytes <= kMost;
}

SegmentFolder::SegmentFolder(std::string directory, std::uint64_t segment_bytes)
    : directory_(std::move(directory)), segment_bytes_(segment_bytes) {
    TS_ASSERT(is_segment_size(segment_bytes_));
}

SegmentFolder::~SegmentFolder() {
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
    }
    changed_.notify_all();
    if (preparer_.joinable()) preparer_.join();
}

Status SegmentFolder::start() {
    std::error_code code;
    std::filesystem::create_directories(directory_, code);
    if (code) return make_error(code.value(), "make the folder {}", directory_);
    TS_ASSIGN(const auto names, names_in(directory_));
    // A spare may be half made: only this process knows which are whole, so start afresh.
    for (const std::string& name : names)
        if (name.starts_with(kSparePrefix) && ::unlink((directory_ + '/' + name).c_str()) != 0)
            return last_error("remove the spare segment {}/{}", directory_, name);
    preparer_ = std::thread{[this] { prepare(); }};
    return {};
}

Result<std::string> SegmentFolder::make_spare(std::uint64_t serial) {
    const std::string path = fmt::format("{}/{}{}", directory_, kSparePrefix, serial);
    const Fd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600)};
    if (!fd.valid()) return last_error("make the segment {}", path);
    const AlignedBuffer zeros{kZeroBytes};
    for (std::uint64_t at = 0; at < segment_bytes_;) {
        const std::size_t size = std::min<std::uint64_t>(kZeroBytes, segment_bytes_ - at);
        const ssize_t written = ::pwrite(fd.get(), zeros.data(), size, static_cast<off_t>(at));
        if (written <= 0) {
            const Error error = written < 0 ? last_error("fill the segment {}", path)
                                            : make_error(ENOSPC, "fill the segment {}", path);
            ::unlink(path.c_str());
            return error;
        }
        at += static_cast<std::uint64_t>(written);
    }
    if (::fsync(fd.get()) != 0) {
        const Error error = last_error("sync the segment {}", path);
        ::unlink(path.c_str());
        return error;
    }
    return path;
}

void SegmentFolder::prepare() {
    std::unique_lock lock{mutex_};
    for (;;) {
        // One in hand is enough; after an error only who waits for one is a reason to try again.
        changed_.wait(lock, [this] {
            return stopping_ || (spares_.empty() && (error_ == 0 || wanted_ > 0));
        });
        if (stopping_) return;
        const std::uint64_t serial = serial_++;
        lock.unlock();
        auto path = make_spare(serial);
        lock.lock();
        error_ = path.ok() ? 0 : path.error().code;
        if (path.ok())
            spares_.push_back(std::move(path).value());
        else
            wanted_ = 0;
        changed_.notify_all();
    }
}

Result<std::string> SegmentFolder::take_spare() {
    std::unique_lock lock{mutex_};
    if (spares_.empty()) {
        ++wanted_;
        error_ = 0;
        changed_.notify_all();
        changed_.wait(lock, [this] { return !spares_.empty() || error_ != 0 || stopping_; });
        wanted_ = 0;
    }
    if (spares_.empty())
        return make_error(error_ != 0 ? error_ : ESHUTDOWN, "make a segment in {}", directory_);
    std::string path = std::move(spares_.back());
    spares_.pop_back();
    changed_.notify_all();
    return path;
}

Result<Segment> SegmentFolder::begin(const SegmentStart& start) {
    TS_ASSIGN(const std::string spare, take_spare());
    Segment segment;
    segment.path = segment_path(directory_, start.number);
    segment.fd.reset(::open(spare.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
    if (!segment.fd.valid()) return last_error("open the segment {}", spare);
    segment.header = SegmentHeader{.magic = kSegmentMagic,
                                   .version = kFormatVersion,
                                   .reserved = 0,
                                   .volume = start.volume,
                                   .number = raw(start.number),
                                   .bytes = segment_bytes_,
                                   .first_lsn = start.first.value,
                                   .previous = raw(start.previous),
                                   .epoch_number = start.epoch.number,
                                   .reserved2 = 0,
                                   .epoch_id = start.epoch.id,
                                   .epoch_first = start.epoch.first_lsn.value,
                                   .epoch_chain = raw(start.epoch.chain),
                                   .checksum = 0};
    segment.header.checksum = checksum_of(segment.header);
    const AlignedBuffer block{kBlockBytes};
    std::memcpy(block.data(), &segment.header, sizeof segment.header);
    // The header first, then the name: a file called *.seg always has a whole header.
    if (::pwrite(segment.fd.get(), block.data(), kBlockBytes, 0) !=
            static_cast<ssize_t>(kBlockBytes) ||
        ::fdatasync(segment.fd.get()) != 0)
        return last_error("write the header of segment {}", segment.path);
    if (::rename(spare.c_str(), segment.path.c_str()) != 0)
        return last_error("name the segment {}", segment.path);
    TS_TRY(sync_directory(directory_));
    return segment;
}

Status SegmentFolder::retire(SegmentNumber number) {
    const std::string path = segment_path(directory_, number);
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) return last_error("examine the segment {}", path);
    const bool other_size = static_cast<std::uint64_t>(st.st_size) != segment_bytes_;
    std::unique_lock lock{mutex_};
    if (other_size || spares_.size() >= kSparesKept || error_ == ENOSPC) {
        lock.unlock();
        if (::unlink(path.c_str()) != 0) return last_error("remove the segment {}", path);
        return {};
    }
    const std::string spare = fmt::format("{}/{}{}", directory_, kSparePrefix, serial_++);
    if (::rename(path.c_str(), spare.c_str()) != 0)
        return last_error("recycle the segment {}", path);
    spares_.push_back(spare);
    changed_.notify_all();
    return {};
}

void SegmentFolder::give_back() {
    const std::lock_guard lock{mutex_};
    for (const std::string& spare : spares_) (void)::unlink(spare.c_str());
    spares_.clear();
    error_ = ENOSPC;
}

std::uint64_t SegmentFolder::bytes() const {
    std::uint64_t total = 0;
    const auto names = names_in(directory_);
    if (!names.ok()) return 0;
    for (const std::string& name : names.value()) {
        struct stat st {};
        if (::stat((directory_ + '/' + name).c_str(), &st) == 0)
            total += static_cast<std::uint64_t>(st.st_size);
    }
    return total;
}

}  // namespace twinspool
