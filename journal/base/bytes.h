// SPDX-License-Identifier: Apache-2.0
// Bytes: borrowed memory that is read.
#pragma once

#include <cstddef>
#include <span>

namespace twinspool {

using Bytes = std::span<const std::byte>;

}  // namespace twinspool
