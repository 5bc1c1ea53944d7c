// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/xattrs.h"

#include <sys/xattr.h>

#include "journal/base/handle.h"

namespace twinspool {
namespace {

bool means_none(int error) { return error == ENODATA || error == EOPNOTSUPP; }

}  // namespace

bool is_private_xattr(std::string_view name) { return name.starts_with(kPrivateXattrPrefix); }

bool is_acl(std::string_view name) { return name == kAccessAcl || name == kDefaultAcl; }

Result<std::optional<Xattr>> read_xattr(int fd, const char* name) {
    const ProcPath path{fd};
    Xattr xattr{.name = name, .value = std::vector<std::byte>(256)};
    for (;;) {
        ssize_t size = ::getxattr(path.c_str(), name, xattr.value.data(), xattr.value.size());
        if (size >= 0) {
            xattr.value.resize(static_cast<std::size_t>(size));
            return std::optional{std::move(xattr)};
        }
        if (means_none(errno)) return std::optional<Xattr>{};
        if (errno != ERANGE) return plain(errno);
        size = ::getxattr(path.c_str(), name, nullptr, 0);
        if (size > 0) xattr.value.resize(static_cast<std::size_t>(size));
    }
}

Result<std::vector<Xattr>> read_xattrs(int fd) {
    const ProcPath path{fd};
    std::vector<char> names(1024);
    ssize_t size = 0;
    for (;;) {
        size = ::listxattr(path.c_str(), names.data(), names.size());
        if (size >= 0) break;
        if (means_none(errno)) return std::vector<Xattr>{};
        if (errno != ERANGE) return plain(errno);
        size = ::listxattr(path.c_str(), nullptr, 0);
        if (size > 0) names.resize(static_cast<std::size_t>(size));
    }
    std::vector<Xattr> xattrs;
    std::string_view rest{names.data(), static_cast<std::size_t>(size)};
    while (!rest.empty()) {
        const std::string_view name = rest.substr(0, rest.find('\0'));
        rest.remove_prefix(name.size() + 1);
        if (is_private_xattr(name)) continue;
        TS_ASSIGN(auto xattr, read_xattr(fd, name.data()));
        if (xattr) xattrs.push_back(std::move(*xattr));
    }
    return xattrs;
}

}  // namespace twinspool
