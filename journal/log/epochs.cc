// SPDX-License-Identifier: Apache-2.0
#include "journal/log/epochs.h"

#include <algorithm>
#include <cstring>

#include "journal/base/durable_file.h"

namespace twinspool {
namespace {

constexpr std::uint32_t kMagic = 0x48504554;  // "TEPH"

struct StoredEpoch {
    std::uint32_t number;     // 0
    std::uint32_t reserved;   // 4
    std::uint64_t id;         // 8
    std::uint64_t first_lsn;  // 16
    std::uint64_t chain;      // 24
};
static_assert(sizeof(StoredEpoch) == 32);

DurableFile file_in(const std::string& directory) { return {directory, "epochs", kMagic}; }

}  // namespace

Result<std::vector<Epoch>> read_epochs(const std::string& directory) {
    TS_ASSIGN(const auto body, read_durable(file_in(directory)));
    std::vector<Epoch> epochs;
    if (!body) return epochs;
    if (body->size() % sizeof(StoredEpoch) != 0)
        return make_error(EBADMSG, "read {}: it is damaged", file_in(directory).path());
    for (std::size_t at = 0; at < body->size(); at += sizeof(StoredEpoch)) {
        StoredEpoch stored;
        std::memcpy(&stored, body->data() + at, sizeof stored);
        epochs.push_back({stored.number, stored.id, Lsn{stored.first_lsn}, Chain{stored.chain}});
    }
    return epochs;
}

Status write_epochs(const std::string& directory, const std::vector<Epoch>& epochs) {
    std::vector<StoredEpoch> stored;
    stored.reserve(epochs.size());
    for (const Epoch& each : epochs)
        stored.push_back({.number = each.number,
                          .reserved = 0,
                          .id = each.id,
                          .first_lsn = each.first_lsn.value,
                          .chain = raw(each.chain)});
    return write_durable(file_in(directory), std::as_bytes(std::span{stored}));
}

std::optional<Lsn> kept_of(const std::vector<Epoch>& epochs, std::uint64_t id, Lsn appended) {
    Lsn kept = appended;
    for (auto each = epochs.rbegin(); each != epochs.rend(); ++each) {
        if (each->id == id) return kept;
        kept = std::min(kept, each->first_lsn - 1);
    }
    return std::nullopt;
}

Epoch epoch_of(const std::vector<Epoch>& epochs, Lsn lsn) {
    for (auto each = epochs.rbegin(); each != epochs.rend(); ++each)
        if (each->first_lsn <= lsn) return *each;
    return {};
}

}  // namespace twinspool
