// SPDX-License-Identifier: Apache-2.0
// Terminal: what a command says to who called it. Any thread; the program's own two streams.
#pragma once

#include <string_view>

#include "tools/ground/complaint.h"

namespace twinspool {

// Standard output, as it is, at once; and one line on standard error.
void print(std::string_view text);
void print_error(std::string_view sentence);
void print_warning(std::string_view sentence);

Verdict require_root();

}  // namespace twinspool
