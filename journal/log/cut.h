// SPDX-License-Identifier: Apache-2.0
// Cut: takes the end of a journal away, for a standby that has records which its primary has lost.
// Nobody may read or write the folder meanwhile, and who had it open opens it anew.
#pragma once

#include <string>

#include "journal/base/result.h"
#include "journal/base/units.h"

namespace twinspool {

// The journal ends with `end` when this returns, durably. EBADMSG: no frame ends there, or its
// chain is another; nothing is done then. Killed in between, the journal ends there or anywhere
// behind it, and is whole: it can be done again.
Status cut_back(const std::string& directory, std::uint64_t volume, Position end);

}  // namespace twinspool
