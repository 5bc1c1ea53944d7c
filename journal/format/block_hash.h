// SPDX-License-Identifier: Apache-2.0
// Block hashes: a file's content as CheckContentOp carries it, the same on both sides. Free
// functions over descriptors; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "journal/base/result.h"
#include "journal/format/op.h"

namespace twinspool {

inline constexpr std::size_t kBlockHashBytes = 16;  // XXH3-128, canonical

// How many blocks [offset, offset + length) has of a file of this size.
constexpr std::uint64_t blocks_checked(std::uint64_t offset, std::uint64_t length,
                                       std::uint64_t size) {
    if (offset >= size) return 0;
    const std::uint64_t bytes = length < size - offset ? length : size - offset;
    return (bytes + kCheckBlockBytes - 1) / kCheckBlockBytes;
}

// The hashes of these blocks, one behind the other, as if the file had this size: what it lacks,
// and holes, count as zeros. `fd` is open for reading; its file offset is moved. Holes are not
// read.
Result<std::vector<std::byte>> hash_blocks(int fd, std::uint64_t offset, std::uint64_t length,
                                           std::uint64_t size);

}  // namespace twinspool
