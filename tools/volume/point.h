// SPDX-License-Identifier: Apache-2.0
// Point: VOLUME@NAME[:/path], as people write a snapshot and what is in it. Pure functions; any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tools/ground/complaint.h"

namespace twinspool {

struct Point {
    std::string volume;
    std::string snapshot;  // a name, "latest", or "lsn:N"
    std::string path;      // absolute, without a slash at its end; empty: all directories
};

enum class PathPart : std::uint8_t { kNone, kOptional };

// Complaints are bad input: they say what is wrong with the text.
Outcome<Point> parse_point(std::string_view text, PathPart path);
// VOLUME:/path
Outcome<Point> parse_path_of_volume(std::string_view text);
// What a new snapshot may be called: letters, digits, ".", "_" and "-", not beginning with a digit,
// "-", or "lsn:"; at most 64 characters; not "latest".
Verdict check_snapshot_name(std::string_view name);

}  // namespace twinspool
