// SPDX-License-Identifier: Apache-2.0
// Any bytes as a frame. The checksum would keep almost all inputs out, so the decoder behind it is
// also given a header that claims what it likes.
#include <cstdint>

#include "journal/format/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace twinspool;
    const Bytes bytes = std::as_bytes(std::span{data, size});
    (void)check_frame(bytes, 7, {SegmentNumber{1}, 1});
    if (size < sizeof(FrameHeader)) return 0;
    const FrameHeader header = header_of(bytes);
    if (header.raw_bytes > kMaxFramePayload) return 0;
    if (const auto frame = decode_frame(bytes); frame.ok())
        (void)frame->for_each([](const Record&) -> Status { return {}; });
    return 0;
}
