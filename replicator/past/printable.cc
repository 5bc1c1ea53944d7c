// SPDX-License-Identifier: Apache-2.0
#include "replicator/past/printable.h"

#include <fmt/format.h>

#include <cstdint>

namespace twinspool {
namespace {

constexpr std::uint32_t kLastControl = 0x9f;  // the second range of them ends here

struct Character {
    std::size_t length = 0;  // 0: no character of UTF-8 begins here
    std::uint32_t code = 0;
};

std::uint32_t least_code(std::size_t length) {
    return length == 2 ? 0x80U : length == 3 ? 0x800U : 0x10000U;
}

Character character_at(std::string_view text, std::size_t at) {
    const auto first = static_cast<unsigned char>(text[at]);
    if (first < 0x80) return {.length = 1, .code = first};
    const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || text.size() - at < length) return {};
    std::uint32_t code = first & (0xffU >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        const auto next = static_cast<unsigned char>(text[at + i]);
        if ((next & 0xc0) != 0x80) return {};
        code = code << 6 | (next & 0x3fU);
    }
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    if (code < least_code(length) || code > 0x10ffff || surrogate) return {};
    return {.length = length, .code = code};
}

bool is_control(std::uint32_t code) {
    return code < 0x20 || (code >= 0x7f && code <= kLastControl);
}

}  // namespace

std::string printable(std::string_view name) {
    std::string text;
    text.reserve(name.size());
    for (std::size_t at = 0; at < name.size();) {
        const Character next = character_at(name, at);
        const std::string_view bytes = name.substr(at, next.length == 0 ? 1 : next.length);
        at += bytes.size();
        if (bytes == "\n") {
            text += "\\n";
        } else if (bytes == "\\") {
            text += "\\\\";
        } else if (next.length == 0 || is_control(next.code)) {
            for (const char byte : bytes)
                text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
        } else {
            text += bytes;
        }
    }
    return text;
}

bool is_utf8(std::string_view name) {
    for (std::size_t at = 0; at < name.size();) {
        const Character next = character_at(name, at);
        if (next.length == 0) return false;
        at += next.length;
    }
    return true;
}

}  // namespace twinspool
