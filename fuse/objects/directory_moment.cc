// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/directory_moment.h"

#include <unistd.h>

#include <algorithm>

#include "fuse/objects/turn.h"

namespace twinspool {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{128} * 1024;

}  // namespace

DirectoryMoment::~DirectoryMoment() { used_ -= memory_bytes_; }

Result<std::shared_ptr<const DirectoryMoment>> DirectoryMoment::read(
    int fd, const Taken& taken, std::atomic<std::size_t>& used) {
    thread_local const std::unique_ptr<char[]> chunk{new char[kChunkBytes]};
    if (::lseek(fd, taken.place, SEEK_SET) < 0) return plain(errno);
    const std::shared_ptr<DirectoryMoment> moment{new DirectoryMoment{taken, used}};
    for (;;) {
        TS_ASSIGN(const std::size_t got, read_entries(fd, chunk.get(), kChunkBytes));
        if (got == 0) break;
        moment->append(chunk.get(), got);
        moment->cut_ = moment->bytes_.size() + kChunkBytes > taken.most_bytes;
        if (moment->cut_) break;
    }
    moment->finish();
    return std::shared_ptr<const DirectoryMoment>{moment};
}

void DirectoryMoment::append(const char* bytes, std::size_t size) {
    for (std::size_t at = 0; at < size;) {
        const DecodedEntry decoded = decode_entry(bytes + at);
        const std::int64_t here = entries_ == 0 ? place_ : end_place_;
        if (entries_ % kEntriesBetweenMarks == 0)
            marks_.push_back({.place = here, .offset = bytes_.size() + at});
        ascending_ = ascending_ && decoded.entry.next > here;
        end_place_ = decoded.entry.next;
        ++entries_;
        at += decoded.size;
    }
    bytes_.insert(bytes_.end(), bytes, bytes + size);
}

void DirectoryMoment::finish() {
    bytes_.shrink_to_fit();
    objects_ = std::vector<std::atomic<std::uint64_t>>(entries_);
    memory_bytes_ = bytes_.capacity() + objects_.size() * sizeof(std::uint64_t) +
                    marks_.capacity() * sizeof(Mark) + sizeof(DirectoryMoment);
    used_ += memory_bytes_;
}

DirectoryMoment::Reader::Reader(std::shared_ptr<const DirectoryMoment> moment)
    : moment_(std::move(moment)), at_{.place = moment_->place_}, began_(at_) {}

void DirectoryMoment::Reader::At::pass(const DecodedEntry& decoded) {
    place = decoded.entry.next;
    offset += decoded.size;
    ++index;
}

ObjectId DirectoryMoment::Reader::object() const {
    return ObjectId{moment_->objects_[at_.index].load(std::memory_order_relaxed)};
}

void DirectoryMoment::Reader::set_object(ObjectId id) {
    moment_->objects_[at_.index].store(raw(id), std::memory_order_relaxed);
}

std::optional<DirectoryEntry> DirectoryMoment::Reader::peek() const {
    if (at_.offset == moment_->bytes_.size()) return std::nullopt;
    return decode_entry(moment_->bytes_.data() + at_.offset).entry;
}

void DirectoryMoment::Reader::skip() {
    at_.pass(decode_entry(moment_->bytes_.data() + at_.offset));
}

bool DirectoryMoment::Reader::search(At from, std::size_t to, std::int64_t wanted) {
    while (from.place != wanted) {
        if (from.offset >= to) return false;
        from.pass(decode_entry(moment_->bytes_.data() + from.offset));
    }
    if (moment_->cut_ && from.offset == moment_->bytes_.size()) return false;
    at_ = began_ = from;
    return true;
}

bool DirectoryMoment::Reader::seek(std::int64_t place) {
    const std::size_t size = moment_->bytes_.size();
    if (search(at_, at_.offset, place) || search(began_, at_.offset, place)) return true;
    const auto& marks = moment_->marks_;
    if (marks.empty() || !moment_->ascending_)
        return search({.place = moment_->place_}, size, place);
    const auto after =
        std::upper_bound(marks.begin(), marks.end(), place,
                         [](std::int64_t wanted, const Mark& mark) { return wanted < mark.place; });
    if (after == marks.begin()) return false;
    const auto before = after - 1;
    const At from{.place = before->place,
                  .offset = before->offset,
                  .index = static_cast<std::size_t>(before - marks.begin()) * kEntriesBetweenMarks};
    return search(from, after == marks.end() ? size : after->offset, place);
}

}  // namespace twinspool
