// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon/verifying.h"

#include <spdlog/spdlog.h>

#include <cstring>
#include <utility>

#include "replicator/past/printable.h"
#include "tools/ground/path_json.h"
#include "tools/ground/quantity.h"
#include "tools/ground/time_text.h"

namespace twinspool {
namespace {

constexpr std::size_t kMostLogged = 20;
constexpr std::size_t kMostToldFirst = 5;  // in the status
constexpr std::size_t kMostToldAtOnce = 500;

Json difference_json(const Difference& difference, const Reign& reign) {
    Json json{{"kind", word_of(difference.kind)}};
    put_path(json, "path", difference.path);
    json["offset"] = difference.offset;
    json["length"] = difference.length;
    json["detail"] = detail_of(difference);
    json["standby"] = reign.standby_target(difference.standby);
    json["repaired"] = difference.repaired;
    return json;
}

}  // namespace

std::string_view word_of(FindingKind kind) {
    switch (kind) {
        case FindingKind::kMissing:
        case FindingKind::kEntryMissing:
            return "missing";
        case FindingKind::kContent:
            return "content";
        case FindingKind::kSize:
            return "size";
        case FindingKind::kAttributes:
            return "attributes";
        case FindingKind::kXattrs:
            return "xattr";
        case FindingKind::kEntryExtra:
            return "extra";
        case FindingKind::kEntryOther:
            return "other-object";
        case FindingKind::kUnreadable:
            return "unreadable";
        case FindingKind::kChangedMeanwhile:
            break;
    }
    return "changing";
}

std::string detail_of(const Difference& difference) {
    switch (difference.kind) {
        case FindingKind::kContent:
            return fmt::format("bytes {}..{}", difference.offset,
                               difference.offset + difference.length - 1);
        case FindingKind::kSize:
            return fmt::format("{} bytes, {} on the standby", difference.offset, difference.length);
        case FindingKind::kXattrs:
            return printable(difference.xattr);
        case FindingKind::kUnreadable:
            return std::strerror(static_cast<int>(difference.offset));  // NOLINT
        default:
            return "";
    }
}

Verifying::Verifying(Reign& reign, const VolumePaths& paths, Nanoseconds every, WallTime now)
    : reign_(reign), paths_(paths), every_(every) {
    if (every != Nanoseconds{0}) due_.emplace(every, now);
    const auto last = read_file(paths_.last_verify());
    if (last.ok()) last_ = Json::parse(last.value(), nullptr, false);
    if (last_.is_discarded()) last_ = nullptr;
}

void Verifying::look(WallTime now, VolumeState state) {
    const VerifyReport report = reign_.verify_report();
    if (report.running) {
        if (const auto silent = reign_.silent_standby(); !silent.empty())
            reign_.cancel_verify(silent);
    } else if (const std::lock_guard lock{mutex_}; report.number > handled_) {
        handled_ = report.number;
        ended(report);
    }
    look_due(now, state);
}

void Verifying::look_due(WallTime now, VolumeState state) {
    {
        const std::lock_guard lock{mutex_};
        if (!due_) return;
        if (due_->come(now)) owed_ = true;
        if (!owed_ || state != VolumeState::kInSync) return;
        owed_ = false;
    }
    const auto begun = reign_.begin_verify({});
    const std::lock_guard lock{mutex_};
    if (begun.ok())
        scheduled_ = reign_.verify_report().number;
    else
        spdlog::warn("the verify that is due is left out: {}", begun.error().sentence);
}

// mutex_ held.
void Verifying::ended(const VerifyReport& report) {
    Json first = Json::array();
    for (std::size_t i = 0; i < report.listed.size(); ++i) {
        const Difference& each = report.listed[i];
        const auto line =
            fmt::format("{} {} {}", word_of(each.kind), printable(each.path), detail_of(each));
        if (i < kMostLogged) spdlog::error("verify: {}{}", line, each.repaired ? "; repaired" : "");
        if (i < kMostToldFirst) first.push_back(difference_json(each, reign_));
    }
    if (report.listed.size() > kMostLogged)
        spdlog::error("verify: {} differences in all", report.differences);
    const auto sum =
        fmt::format("verify of {} objects, {} bytes up to record {}: {} differences{}",
                    report.objects, report.bytes, report.position.value, report.differences,
                    report.repair ? fmt::format(", {} repaired", report.repaired) : "");
    if (report.failure.empty() && report.failed == 0)
        spdlog::info(sum);
    else
        spdlog::error("{}; {}", sum,
                      report.failure.empty()
                          ? fmt::format("{} objects could not be compared", report.failed)
                          : report.failure);
    last_ = {{"time", spell_time(report.began)},
             {"seconds", report.seconds},
             {"lsn", report.position.value},
             {"path", report.path},
             {"objects", report.objects},
             {"bytes", report.bytes},
             {"differences", report.differences},
             {"repair", report.repair},
             {"repaired", report.repaired},
             {"failed", report.failed},
             {"failure", report.failure},
             {"scheduled", scheduled_ == report.number},
             {"first", first}};
    const auto written = write_file_atomically(paths_.last_verify(), last_.dump());
    if (!written.ok()) spdlog::error("could not {}", written.error().text());
}

Json Verifying::begin(const Json& request) {
    VerifyOptions options;
    options.path = request.value("path", std::string{});
    options.repair = request.value("repair", false);
    options.rate = request.value("rate", std::uint64_t{0});
    const auto begun = reign_.begin_verify(options);
    if (!begun.ok())
        return {{"error", begun.error().sentence}, {"code", static_cast<int>(begun.error().code)}};
    return {{"number", reign_.verify_report().number}};
}

Json Verifying::progress(const Json& request) const {
    const VerifyReport report = reign_.verify_report();
    const auto number = request.value("number", std::uint64_t{0});
    if (report.number != number)
        return {{"error", "another verify has begun meanwhile"},
                {"code", static_cast<int>(ExitCode::kFailed)}};
    Json listed = Json::array();
    const auto from = request.value("from", std::uint64_t{0});
    if (!report.running)
        for (std::size_t i = from; i < report.listed.size() && i < from + kMostToldAtOnce; ++i)
            listed.push_back(difference_json(report.listed[i], reign_));
    return {{"running", report.running},   {"objects", report.objects},
            {"bytes", report.bytes},       {"lsn", report.position.value},
            {"seconds", report.seconds},   {"differences", report.differences},
            {"repaired", report.repaired}, {"failed", report.failed},
            {"failure", report.failure},   {"of", report.listed.size()},
            {"listed", std::move(listed)}};
}

Json Verifying::cancel(const Json& request) {
    if (reign_.verify_report().number == request.value("number", std::uint64_t{0}))
        reign_.cancel_verify("it was cancelled");
    return Json::object();
}

Json Verifying::status() const {
    const VerifyReport report = reign_.verify_report();
    const std::lock_guard lock{mutex_};
    Json json;
    json["every"] = due_ ? Json(spell_duration(every_)) : Json();
    json["next"] = due_ ? Json(spell_time(due_->next())) : Json();
    json["running"] = nullptr;
    if (report.running)
        json["running"] = {{"seconds", report.seconds},
                           {"objects", report.objects},
                           {"bytes", report.bytes},
                           {"differences", report.differences}};
    json["last"] = last_;
    return json;
}

}  // namespace twinspool
