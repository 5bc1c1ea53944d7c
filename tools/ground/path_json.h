// SPDX-License-Identifier: Apache-2.0
// Paths in JSON: a string if it is UTF-8. One that is not is escaped as printable() does, and a
// second key, "<key>_hex", has its bytes. Free functions; any thread.
#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>

#include "replicator/past/printable.h"
#include "tools/ground/control.h"

namespace twinspool {

inline void put_path(Json& object, const std::string& key, std::string_view path) {
    if (is_utf8(path)) {
        object[key] = path;
        return;
    }
    object[key] = printable(path);
    std::string hex;
    for (const char byte : path) hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    object[key + "_hex"] = hex;
}

inline std::string_view word_for_type(std::uint32_t mode) {
    switch (mode & S_IFMT) {
        case S_IFREG:
            return "file";
        case S_IFDIR:
            return "directory";
        case S_IFLNK:
            return "symlink";
        case S_IFCHR:
        case S_IFBLK:
            return "device";
        case S_IFIFO:
            return "fifo";
        default:
            return "socket";
    }
}

}  // namespace twinspool
