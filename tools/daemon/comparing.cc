// SPDX-License-Identifier: Apache-2.0
// The part of tools/daemon/reign about checks: what the links hear of them goes to the overlay, how
// a seed tells contents is remembered, and a verify is begun only when it can be answered.
#include <spdlog/spdlog.h>

#include "tools/daemon/reign.h"

namespace twinspool {
namespace {

constexpr std::string_view kWholeWord = "whole";
constexpr std::string_view kByHashWord = "by-hash";

}  // namespace

void Reign::hear_checks(SenderOptions& options) {
    const std::uint32_t index = options.index;
    options.start_over = [this, index] { return seed_again(Contents::kWhole, index); };
    options.resync = [this, index] { return seed_again(Contents::kByHash, index); };
    options.on_session = [this, index] { overlay_->session_began(index); };
    options.on_findings = [this, index](const std::vector<Finding>& findings) {
        overlay_->heard_findings(index, findings);
    };
    options.on_applied = [this, index](Lsn lsn) { overlay_->heard_applied(index, lsn); };
}

void Reign::hurry_standbys(Lsn lsn) const {
    for (const auto& sender : senders_) (void)sender->wait_applied(lsn, Nanoseconds{0});
}

// If that fails, the next start takes it for by hash, which is right for any standby.
void Reign::note_contents(std::uint32_t generation, Contents contents) const {
    const auto word = contents == Contents::kWhole ? kWholeWord : kByHashWord;
    const auto written =
        write_file_atomically(paths_.seed_contents(), fmt::format("{} {}\n", generation, word));
    if (!written.ok()) spdlog::warn("could not {}", written.error().text());
}

Contents Reign::noted_contents(std::uint32_t generation) const {
    const auto noted = read_file(paths_.seed_contents());
    const bool whole =
        noted.ok() && noted.value() == fmt::format("{} {}\n", generation, kWholeWord);
    return whole ? Contents::kWhole : Contents::kByHash;
}

std::string Reign::silent_standby() const {
    for (const auto& sender : senders_) {
        const auto status = sender->status();
        if (status.connected && !status.cannot_apply) continue;
        return fmt::format("the standby {} {}: {}", status.target,
                           status.connected ? "cannot apply what it gets" : "is away",
                           status.trouble.empty() ? "no reason known" : status.trouble);
    }
    return "";
}

std::string Reign::standby_target(std::uint32_t standby) const {
    return config_.standbys[standby].target();
}

Verdict Reign::begin_verify(const VerifyOptions& options) {
    const auto refused = [&](const std::string& why) {
        return Complaint{ExitCode::kDegraded,
                         fmt::format("could not verify {}: {}", paths_.name, why)};
    };
    if (const auto silent = silent_standby(); !silent.empty()) return refused(silent);
    if (const auto state = look(); state != VolumeState::kInSync)
        return refused(
            fmt::format("its state is {}, and only what is in-sync can be compared; "
                        "see `twinspool status {}`",
                        spell(state), paths_.name));
    const std::lock_guard no_end{marking_mutex_};
    if (ending_) return refused("it is going down");
    const auto begun = overlay_->begin_verify(options);
    if (begun.ok()) return {};
    switch (begun.error().code) {
        case EBUSY:
            return refused("a verify is running already");
        case EAGAIN:
            return refused("not everything has been told to the standbys yet");
        case ENOENT:
            return bad_input("could not verify {}: the volume {} has no such path", options.path,
                             paths_.name);
        default:
            return Complaint{begun.error()};
    }
}

void Reign::cancel_verify(const std::string& why) { overlay_->cancel_verify(why); }

VerifyReport Reign::verify_report() const { return overlay_->verify_report(); }

}  // namespace twinspool
