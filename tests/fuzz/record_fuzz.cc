// SPDX-License-Identifier: Apache-2.0
// Any bytes as a record: refused or decoded, and what decodes encodes to the same bytes again.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "journal/format/record.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace twinspool;
    const Bytes bytes = std::as_bytes(std::span{data, size});
    const auto record = decode_record(bytes);
    if (!record.ok()) return 0;
    (void)describe(*record);
    std::visit(
        [&]<typename T>(const T& op) {
            if constexpr (!std::is_same_v<T, std::monostate>) {
                std::vector<std::byte> again(encoded_size(op));
                encode(op, record->lsn, again);
                // Reserved header bytes are not carried over; everything behind them is.
                if (again.size() != record->encoded.size()) std::abort();
                if (std::memcmp(again.data() + sizeof(RecordHeader),
                                record->encoded.data() + sizeof(RecordHeader),
                                again.size() - sizeof(RecordHeader)) != 0)
                    std::abort();
            }
        },
        record->op);
    return 0;
}
