// SPDX-License-Identifier: Apache-2.0
// journal dump: a segment's records, one line each, for people and tests. Damage is named with file
// and offset, and ends the file.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "journal/format/frame.h"
#include "journal/format/record.h"
#include "journal/log/segment.h"
#include "tools/command/commands.h"
#include "tools/ground/terminal.h"

namespace twinspool {
namespace {

struct Expected {
    Lsn first;
    Chain previous{};
};

class SegmentDump {
   public:
    static Result<SegmentDump> open(const std::string& file) {
        TS_ASSIGN(auto segment, open_segment(file, 0, O_RDONLY));
        AlignedBuffer bytes(static_cast<std::size_t>(segment.header.bytes));
        for (std::size_t at = 0; at < bytes.size();) {
            const ssize_t got = ::pread(segment.fd.get(), bytes.data() + at, bytes.size() - at,
                                        static_cast<off_t>(at));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return last_error("read {} at offset {}", file, at);
            if (got == 0)
                return make_error(EBADMSG, "read {} beyond offset {}: it is cut short", file, at);
            at += static_cast<std::size_t>(got);
        }
        return SegmentDump(file, std::move(segment), std::move(bytes));
    }

    Status print_all() {
        const SegmentHeader& header = segment_.header;
        print(fmt::format("segment {} of volume 0x{:016x}, {} bytes, from record {}, epoch {}\n",
                          header.number, header.volume, header.bytes, header.first_lsn,
                          header.epoch_number));
        Expected expected{Lsn{header.first_lsn}, Chain{header.previous}};
        for (std::uint32_t block = 1; block < segment_.blocks();) {
            const auto found = check_frame(at(block), header.volume, {segment_.number(), block});
            if (!found.ok() || !continues(found.value(), expected))
                return end_at(block, expected, found);
            TS_TRY(print_frame(block, found.value()));
            expected = {Lsn{found.value().first_lsn + found.value().record_count},
                        Chain{found.value().checksum}};
            block += static_cast<std::uint32_t>(
                blocks_for(sizeof(FrameHeader) + found.value().stored_bytes));
        }
        return {};
    }

   private:
    SegmentDump(std::string file, Segment segment, AlignedBuffer bytes)
        : file_(std::move(file)), segment_(std::move(segment)), bytes_(std::move(bytes)) {}

    [[nodiscard]] Bytes at(std::uint32_t block) const {
        return Bytes{bytes_.data(), bytes_.size()}.subspan(block * kBlockBytes);
    }
    static bool continues(const FrameHeader& header, const Expected& expected) {
        return header.first_lsn == expected.first.value &&
               header.previous == raw(expected.previous);
    }
    [[nodiscard]] Error damaged(std::uint32_t block, std::string_view why) const {
        return make_error(EBADMSG, "read {}: it is damaged at offset {} ({})", file_,
                          std::uint64_t{block} * kBlockBytes, why);
    }

    Status print_frame(std::uint32_t block, const FrameHeader& header) const {
        print(fmt::format(
            "frame at {}: records {}..{}, {} bytes stored of {}, committed {}, "
            "checkpoint {}, epoch {}\n",
            std::uint64_t{block} * kBlockBytes, header.first_lsn,
            header.first_lsn + header.record_count - 1, header.stored_bytes, header.raw_bytes,
            header.committed, header.checkpoint, header.epoch_number));
        const auto frame = decode_frame(at(block).first(sizeof(FrameHeader) + header.stored_bytes));
        if (!frame.ok()) return damaged(block, frame.error().doing);
        const Status shown = frame.value().for_each([](const Record& record) -> Status {
            print(describe(record) + "\n");
            return {};
        });
        return shown.ok() ? shown : damaged(block, shown.error().doing);
    }

    // The end of the journal, or damage? Behind the last frame stands what was never used, or a
    // frame of an earlier life of the file; never one that belongs here or later.
    [[nodiscard]] Status end_at(std::uint32_t block, const Expected& expected,
                                const Result<FrameHeader>& found) const {
        const FrameHeader header = header_of(at(block));
        const bool claims = header.magic == kFrameMagic &&
                            header.segment == raw(segment_.number()) && header.block == block &&
                            header.first_lsn >= expected.first.value;
        if (claims || (found.ok() && found.value().first_lsn > expected.first.value))
            return damaged(block,
                           found.ok() ? "it does not continue the chain" : found.error().doing);
        for (std::uint32_t later = block + 1; later < segment_.blocks(); ++later) {
            const auto frame =
                check_frame(at(later), segment_.header.volume, {segment_.number(), later});
            if (frame.ok() && frame.value().first_lsn > expected.first.value)
                return damaged(block,
                               found.ok() ? "it does not continue the chain" : found.error().doing);
        }
        return {};
    }

    std::string file_;
    Segment segment_;
    AlignedBuffer bytes_;
};

}  // namespace

Outcome<ExitCode> run_journal_dump(const std::vector<std::string>& files) {
    ExitCode code = ExitCode::kDone;
    for (const auto& file : files) {
        auto dump = SegmentDump::open(file);
        const Status shown = dump.ok() ? dump.value().print_all() : Status{dump.error()};
        if (shown.ok()) continue;
        print_error(Complaint{shown.error()}.sentence);
        code = ExitCode::kFailed;
    }
    return code;
}

}  // namespace twinspool
