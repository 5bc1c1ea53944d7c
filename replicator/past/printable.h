// SPDX-License-Identifier: Apache-2.0
// Printable: a name from a disk as text for people and programs: one line, valid UTF-8, and no two
// names alike. Control characters, backslashes and bytes that are no UTF-8 are written as in C.
// Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>

namespace twinspool {

std::string printable(std::string_view name);
[[nodiscard]] bool is_utf8(std::string_view name);

}  // namespace twinspool
