// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/begun.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstring>

#include "journal/base/durable_file.h"
#include "journal/log/segment.h"

namespace twinspool {
namespace {

constexpr std::uint32_t kMagic = 0x4E474254;  // "TBGN"

struct Stored {
    std::uint64_t before_lsn;    // 0
    std::uint64_t before_chain;  // 8
    std::uint64_t segment;       // 16
    std::uint64_t told_from;     // 24
    std::uint64_t epoch_id;      // 32
    std::uint32_t epoch_number;  // 40
    std::uint32_t reserved;      // 44
};
static_assert(sizeof(Stored) == 48);

DurableFile file_in(const std::string& directory) { return {directory, "begun", kMagic}; }

}  // namespace

Result<std::optional<Begun>> read_begun(const std::string& directory) {
    TS_ASSIGN(const auto body, read_durable(file_in(directory)));
    if (!body) return std::optional<Begun>{};
    Stored stored;
    if (body->size() != sizeof stored)
        return make_error(EBADMSG, "read {}: it is damaged", file_in(directory).path());
    std::memcpy(&stored, body->data(), sizeof stored);
    return std::optional{
        Begun{.before = {Lsn{stored.before_lsn}, Chain{stored.before_chain}},
              .segment = SegmentNumber{stored.segment},
              .told_from = Lsn{stored.told_from},
              .epoch = {.number = stored.epoch_number, .id = stored.epoch_id, .first_lsn = {}}}};
}

Status write_begun(const std::string& directory, const Begun& begun) {
    const Stored stored{.before_lsn = begun.before.lsn.value,
                        .before_chain = raw(begun.before.chain),
                        .segment = raw(begun.segment),
                        .told_from = begun.told_from.value,
                        .epoch_id = begun.epoch.id,
                        .epoch_number = begun.epoch.number,
                        .reserved = 0};
    return write_durable(file_in(directory), std::as_bytes(std::span{&stored, 1}));
}

Status forget_begun(const std::string& directory) { return remove_durable(file_in(directory)); }

namespace {

// Whether the journal that was begun has a segment. A segment of its number may be an older one's:
// its primary may have lost that, and given the number again. Those behind it go with it.
Result<bool> remove_stale(const std::string& directory, std::uint64_t volume, const Begun& begun) {
    TS_ASSIGN(const auto segments, list_segments(directory));
    bool any = false;
    for (const SegmentName& each : segments) {
        if (each.number != begun.segment) continue;
        TS_ASSIGN(const Segment segment, open_segment(each.path, volume, O_RDONLY));
        any = Lsn{segment.header.first_lsn} == begun.before.lsn + 1 &&
              Chain{segment.header.previous} == begun.before.chain;
    }
    bool removed = false;
    for (auto each = segments.rbegin(); each != segments.rend(); ++each) {
        if (any && raw(each->number) >= raw(begun.segment)) continue;
        if (::unlink(each->path.c_str()) != 0)
            return last_error("remove the stale segment {}", each->path);
        removed = true;
    }
    // Before a segment of the same number is made.
    const Fd folder{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (removed && (!folder.valid() || ::fsync(folder.get()) != 0))
        return last_error("sync the folder {}", directory);
    return any;
}

}  // namespace

Result<JournalEnd> standby_end(const std::string& directory, std::uint64_t volume, Lsn applied) {
    TS_ASSIGN(const auto begun, read_begun(directory));
    if (begun && applied + 1 < begun->told_from) {
        spdlog::info("{}: an attempt to begin anew at record {} was interrupted", directory,
                     begun->told_from.value);
        TS_TRY(remove_durable(file_in(directory)));
        return find_end(directory, volume);
    }
    if (!begun) return find_end(directory, volume);
    TS_ASSIGN(const bool any, remove_stale(directory, volume, *begun));
    if (any) {
        TS_TRY(forget_begun(directory));
        return find_end(directory, volume);
    }
    JournalEnd end;
    end.end = begun->before;
    end.oldest = begun->before.lsn + 1;
    end.next = FramePlace{SegmentNumber{raw(begun->segment) - 1}, 0};
    end.epoch = begun->epoch;
    return end;
}

}  // namespace twinspool
