// SPDX-License-Identifier: Apache-2.0
// export: an image as a tar on standard output.
#include "replicator/past/export.h"

#include <unistd.h>
#include <csignal>

#include "replicator/past/printable.h"
#include "tools/command/commands.h"
#include "tools/command/open_past.h"
#include "tools/ground/terminal.h"
#include "tools/volume/point.h"

namespace twinspool {

Outcome<ExitCode> run_export(const std::string& text) {
    TS_TRY(require_root());
    TS_ASSIGN(const auto point, parse_point(text, PathPart::kOptional));
    if (::isatty(STDOUT_FILENO) == 1)
        return bad_input("a tar is not written to a terminal: redirect it, like > {}.tar",
                         point.volume);
    // A reader that goes away is an error of the write, not the end of this process.
    (void)std::signal(SIGPIPE, SIG_IGN);
    TS_ASSIGN(auto past, OpenPast::of(point.volume));
    TS_ASSIGN(const auto snapshot, past.find(point.snapshot));
    TS_ASSIGN(const auto image, past.image(snapshot));
    std::optional<ImagePart> part;
    if (!point.path.empty()) {
        TS_ASSIGN(part, find_part(*image, point.path));
        if (!part)
            return bad_input("there is no {} in {}@{}", printable(point.path), point.volume,
                             snapshot.name);
    }
    const auto done =
        export_image(*image, part, STDOUT_FILENO, {.on_left_out = [](std::string_view path) {
            print_warning(
                fmt::format("{} is a socket and cannot be in a tar; left out", printable(path)));
        }});
    if (!done.ok() && done.error().code == EPIPE) return ExitCode::kFailed;
    if (!done.ok()) return done.error();
    return ExitCode::kDone;
}

}  // namespace twinspool
