// SPDX-License-Identifier: Apache-2.0
// Xattrs: the extended attributes of an object, ACLs included, ours (trusted.twinspool.*) never.
// Free functions over descriptors of any kind (O_PATH too); any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fuse/objects/turn.h"
#include "journal/base/result.h"

namespace twinspool {

inline constexpr const char* kAccessAcl = "system.posix_acl_access";
inline constexpr const char* kDefaultAcl = "system.posix_acl_default";
inline constexpr const char* kCapabilityXattr = "security.capability";

[[nodiscard]] bool is_private_xattr(std::string_view name);
[[nodiscard]] bool is_acl(std::string_view name);

struct Xattr {
    std::string name;
    std::vector<std::byte> value;
    [[nodiscard]] SetXattrOp op(ObjectId object) const {
        return {.object = object, .name = name, .value = value};
    }
    [[nodiscard]] std::size_t credit() const {
        return max_encoded_size(name.size() + value.size());
    }
};

// All of them. Objects and file systems without any give none.
Result<std::vector<Xattr>> read_xattrs(int fd);
// One; no value if it is not there.
Result<std::optional<Xattr>> read_xattr(int fd, const char* name);

}  // namespace twinspool
