// SPDX-License-Identifier: Apache-2.0
#include "fuse/directory_moment.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "fuse/turn.h"

namespace twinspool {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{128} * 1024;
constexpr std::size_t kWindowBytes = std::size_t{64} * 1024;

Status write_all(int fd, const char* bytes, std::size_t size) {
    while (size > 0) {
        const ssize_t written = ::write(fd, bytes, size);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return plain(errno);
        bytes += written;
        size -= static_cast<std::size_t>(written);
    }
    return {};
}

}  // namespace

bool MomentMemory::take(std::size_t bytes, std::size_t size) {
    if (size + bytes > most_each_) return false;
    if (used_.fetch_add(bytes) + bytes <= most_) return true;
    used_ -= bytes;
    return false;
}

DirectoryMoment::~DirectoryMoment() { memory_.give_back(taken_); }

Result<std::shared_ptr<const DirectoryMoment>> DirectoryMoment::read(int fd, std::int64_t place,
                                                                     std::uint32_t changes,
                                                                     MomentMemory& memory) {
    thread_local const std::unique_ptr<char[]> chunk{new char[kChunkBytes]};
    if (::lseek(fd, place, SEEK_SET) < 0) return plain(errno);
    const std::shared_ptr<DirectoryMoment> moment{new DirectoryMoment{place, changes, memory}};
    for (;;) {
        TS_ASSIGN(const std::size_t got, read_entries(fd, chunk.get(), kChunkBytes));
        if (got == 0) break;
        moment->mark(chunk.get(), got);
        TS_TRY(moment->append(fd, chunk.get(), got));
    }
    moment->bytes_.shrink_to_fit();
    moment->make_room_for_objects();
    return std::shared_ptr<const DirectoryMoment>{moment};
}

Status DirectoryMoment::append(int fd, const char* bytes, std::size_t size) {
    if (!file_.valid() && !memory_.take(size, taken_)) TS_TRY(move_to_file(fd));
    if (file_.valid()) {
        TS_TRY(write_all(file_.get(), bytes, size));
    } else {
        taken_ += size;
        bytes_.insert(bytes_.end(), bytes, bytes + size);
    }
    size_ += size;
    return {};
}

void DirectoryMoment::make_room_for_objects() {
    const std::size_t size = entries_ * sizeof(std::uint64_t);
    if (!in_memory() || !memory_.take(size, taken_)) return;
    taken_ += size;
    objects_ = std::vector<std::atomic<std::uint64_t>>(entries_);
}

Status DirectoryMoment::move_to_file(int fd) {
    file_.reset(::openat(fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!file_.valid()) return plain(ENOMEM);
    TS_TRY(write_all(file_.get(), bytes_.data(), bytes_.size()));
    memory_.give_back(std::exchange(taken_, 0));
    std::vector<char>{}.swap(bytes_);
    return {};
}

void DirectoryMoment::mark(const char* bytes, std::size_t size) {
    for (std::size_t at = 0; at < size;) {
        const DecodedEntry decoded = decode_entry(bytes + at);
        const std::int64_t here = entries_ == 0 ? place_ : end_place_;
        if (entries_ % kEntriesBetweenMarks == 0)
            marks_.push_back({.place = here, .offset = size_ + at});
        ascending_ = ascending_ && decoded.entry.next > here;
        end_place_ = decoded.entry.next;
        ++entries_;
        at += decoded.size;
    }
}

DirectoryMoment::Reader::Reader(std::shared_ptr<const DirectoryMoment> moment)
    : moment_(std::move(moment)), at_{.place = moment_->place_}, began_(at_) {}

void DirectoryMoment::Reader::At::pass(const DecodedEntry& decoded) {
    place = decoded.entry.next;
    offset += decoded.size;
    ++index;
}

ObjectId DirectoryMoment::Reader::object() const {
    if (at_.index >= moment_->objects_.size()) return kNoObject;
    return ObjectId{moment_->objects_[at_.index].load(std::memory_order_relaxed)};
}

void DirectoryMoment::Reader::set_object(ObjectId id) {
    if (at_.index < moment_->objects_.size())
        moment_->objects_[at_.index].store(raw(id), std::memory_order_relaxed);
}

// Of a whole entry at least.
Result<const char*> DirectoryMoment::Reader::bytes_at(std::uint64_t offset) {
    if (moment_->in_memory()) return moment_->bytes_.data() + offset;
    const std::uint64_t needed = std::min<std::uint64_t>(kMostEntryBytes, moment_->size_ - offset);
    if (offset < window_at_ || offset + needed > window_at_ + window_.size()) {
        window_.resize(kWindowBytes);
        const ssize_t got = ::pread(moment_->file_.get(), window_.data(), window_.size(),
                                    static_cast<off_t>(offset));
        const int error = got < 0 ? errno : EIO;
        window_.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
        window_at_ = offset;
        if (window_.size() < needed) {
            window_.clear();
            return plain(error);
        }
    }
    return window_.data() + (offset - window_at_);
}

Result<std::optional<DirectoryEntry>> DirectoryMoment::Reader::peek() {
    if (at_.offset == moment_->size_) return std::optional<DirectoryEntry>{};
    TS_ASSIGN(const char* const bytes, bytes_at(at_.offset));
    return std::optional{decode_entry(bytes).entry};
}

void DirectoryMoment::Reader::skip() {
    const auto bytes = bytes_at(at_.offset);
    TS_ASSERT(bytes.ok());  // peek() has had it
    at_.pass(decode_entry(*bytes));
}

Result<bool> DirectoryMoment::Reader::search(At from, std::uint64_t to, std::int64_t wanted) {
    while (from.place != wanted) {
        if (from.offset >= to) return false;
        TS_ASSIGN(const char* const bytes, bytes_at(from.offset));
        from.pass(decode_entry(bytes));
    }
    at_ = from;
    return true;
}

Result<bool> DirectoryMoment::Reader::seek(std::int64_t place) {
    bool found = place == at_.place;
    if (!found) {
        TS_ASSIGN(found, search(began_, at_.offset, place));
    }
    const auto& marks = moment_->marks_;
    if (!found && !marks.empty() && moment_->ascending_) {
        const auto after = std::upper_bound(
            marks.begin(), marks.end(), place,
            [](std::int64_t wanted, const Mark& mark) { return wanted < mark.place; });
        if (after == marks.begin()) return false;
        const auto before = after - 1;
        const At from{
            .place = before->place,
            .offset = before->offset,
            .index = static_cast<std::size_t>(before - marks.begin()) * kEntriesBetweenMarks};
        TS_ASSIGN(found,
                  search(from, after == marks.end() ? moment_->size_ : after->offset, place));
    } else if (!found) {
        TS_ASSIGN(found, search({.place = moment_->place_}, moment_->size_, place));
    }
    if (found) began_ = at_;
    return found;
}

}  // namespace twinspool
