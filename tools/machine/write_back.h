// SPDX-License-Identifier: Apache-2.0
// Write-back: what programs have stored through mmap(2) into files of the overlay reaches the
// daemon, as if each of them had called msync(2). For commands only: a daemon that did this would
// wait for itself.
#pragma once

#include <string>
#include <vector>

#include "journal/base/result.h"

namespace twinspool {

// Returns when the stores made before the call have become changes of the volume. `directories`:
// those of the volume, as programs see them.
Status write_back_stores(const std::vector<std::string>& directories);

}  // namespace twinspool
