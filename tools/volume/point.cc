// SPDX-License-Identifier: Apache-2.0
#include "tools/volume/point.h"

#include <algorithm>

#include "tools/ground/paths.h"

namespace twinspool {
namespace {

constexpr std::size_t kMaxNameBytes = 64;
constexpr std::string_view kLatest = "latest";
constexpr std::string_view kLsnPrefix = "lsn:";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool may_stand_in_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '.' ||
           c == '_' || c == '-';
}

// "2026-11-22T09:14:03", "-10m": kept for them, so that no snapshot is ever mistaken for one.
bool is_like_a_time(std::string_view name) {
    return !name.empty() && (is_digit(name.front()) || name.front() == '-');
}

// What was written for a snapshot that is there.
Verdict check_reference(std::string_view text) {
    if (text == kLatest) return {};
    if (is_like_a_time(text))
        return bad_input(
            "\"{}\" stands for a time, and this version can go back to snapshots only: give the "
            "name of one, \"latest\" or \"lsn:N\"",
            text);
    if (!text.starts_with(kLsnPrefix)) return check_snapshot_name(text);
    const auto digits = text.substr(kLsnPrefix.size());
    if (digits.empty() || digits.size() > 19 ||
        !std::all_of(digits.begin(), digits.end(), is_digit))
        return bad_input("\"{}\" is no position: \"lsn:\" and a number, as `twinspool list` shows",
                         text);
    return {};
}

// Without slashes at the end; what stands for no directory, or for one above, is refused.
Outcome<std::string> tidy_path(std::string_view path, std::string_view text) {
    if (!path.starts_with('/'))
        return bad_input("the path in \"{}\" must begin with \"/\": as programs see it", text);
    std::string tidy;
    while (!path.empty()) {
        path.remove_prefix(1);
        const auto part = path.substr(0, path.find('/'));
        path.remove_prefix(part.size());
        if (part == "." || part == "..")
            return bad_input("the path in \"{}\" must be without \".\" and \"..\"", text);
        if (!part.empty()) tidy.append("/").append(part);
    }
    return tidy;
}

}  // namespace

Verdict check_snapshot_name(std::string_view name) {
    if (name.empty())
        return bad_input("the name of the snapshot is missing: VOLUME@NAME, like mail@monday");
    if (name.starts_with(kLsnPrefix) || name == kLatest || is_like_a_time(name))
        return bad_input(
            "\"{}\" cannot be the name of a snapshot: what begins with a digit or \"-\" is kept "
            "for times, \"lsn:\" for positions, and \"latest\" is the newest snapshot",
            name);
    if (name.size() > kMaxNameBytes || !std::all_of(name.begin(), name.end(), may_stand_in_name))
        return bad_input(
            "\"{}\" cannot be the name of a snapshot: use letters, digits, \".\", \"_\" and \"-\", "
            "at most {} characters",
            name, kMaxNameBytes);
    return {};
}

Outcome<Point> parse_point(std::string_view text, PathPart path) {
    const auto at = text.find('@');
    if (at == std::string_view::npos)
        return bad_input("\"{}\" names no snapshot: VOLUME@NAME, like mail@monday", text);
    Point point{.volume = std::string{text.substr(0, at)}, .snapshot = {}, .path = {}};
    TS_TRY(check_name(point.volume));
    std::string_view rest = text.substr(at + 1);
    // No name has a colon, but for that in "lsn:N".
    const std::size_t from = rest.starts_with(kLsnPrefix) ? kLsnPrefix.size() : 0;
    if (const auto colon = rest.find(':', from); colon != std::string_view::npos) {
        if (path == PathPart::kNone && rest.substr(colon).starts_with(":/"))
            return bad_input("\"{}\": a whole snapshot is meant here; leave out the path", text);
        if (path == PathPart::kNone || is_like_a_time(rest))
            TS_TRY(check_reference(rest));  // which it cannot pass
        TS_ASSIGN(point.path, tidy_path(rest.substr(colon + 1), text));
        rest = rest.substr(0, colon);
    }
    if (rest.empty()) TS_TRY(check_snapshot_name(rest));
    TS_TRY(check_reference(rest));
    point.snapshot = rest;
    return point;
}

Outcome<Point> parse_path_of_volume(std::string_view text) {
    const auto colon = text.find(':');
    if (colon == std::string_view::npos)
        return bad_input("\"{}\" has no path: VOLUME:/path, like mail:/var/spool/mail/anna", text);
    Point point{.volume = std::string{text.substr(0, colon)}, .snapshot = {}, .path = {}};
    if (const auto at = text.find('@'); at < colon)
        return bad_input("\"{}\": all snapshots are meant here; leave out \"{}\"", text,
                         text.substr(at, colon - at));
    TS_TRY(check_name(point.volume));
    TS_ASSIGN(point.path, tidy_path(text.substr(colon + 1), text));
    return point;
}

}  // namespace twinspool
