// SPDX-License-Identifier: Apache-2.0
// DurableFile: a small file that is replaced as a whole. After a kill or a power cut it is the old
// one or the new one; damage is named. A head of 32 bytes (magic, version, size, XXH3-64 of the
// body), then the body. No state; any thread, one writer a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "journal/base/bytes.h"
#include "journal/base/result.h"

namespace twinspool {

struct DurableFile {
    std::string directory;
    std::string name;
    std::uint32_t magic = 0;
    [[nodiscard]] std::string path() const { return directory + '/' + name; }
};

// Nothing: there is no such file. EBADMSG: it is damaged, with its name.
Result<std::optional<std::vector<std::byte>>> read_durable(const DurableFile& file);
// Durable when it returns.
Status write_durable(const DurableFile& file, Bytes body);
Status remove_durable(const DurableFile& file);

}  // namespace twinspool
