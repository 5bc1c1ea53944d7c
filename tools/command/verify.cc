// SPDX-License-Identifier: Apache-2.0
// `twinspool verify`: asks the daemon to compare both sides, shows how far it is, prints what
// differs.
#include <chrono>
#include <thread>

#include "replicator/past/printable.h"
#include "tools/command/commands.h"
#include "tools/ground/control.h"
#include "tools/ground/long_work.h"
#include "tools/ground/paths.h"
#include "tools/ground/quantity.h"
#include "tools/ground/terminal.h"
#include "tools/machine/role.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;
constexpr auto kAskEvery = 200ms;

Outcome<Json> ask(const VolumePaths& paths, const Json& request) {
    auto answer = ask_daemon(paths.run(), request);
    if (!answer.ok()) {
        if (is_nobody(answer.error()))
            return Complaint{ExitCode::kDegraded,
                             fmt::format("could not verify {}: it is not up; `twinspool up {}`",
                                         paths.name, paths.name)};
        return answer.error();
    }
    if (answer->contains("error"))
        return Complaint{static_cast<ExitCode>(answer->value("code", 1)),
                         answer->at("error").get<std::string>()};
    return std::move(*answer);
}

Outcome<Json> follow(const VolumePaths& paths, const Json& number) {
    LongWork work{fmt::format("verifying {}", paths.name)};
    bool cancelled = false;
    for (;;) {
        TS_ASSIGN(auto now, ask(paths, {{"command", "verify-progress"}, {"number", number}}));
        if (!now.at("running").get<bool>()) return now;
        work.show(now.at("objects"), now.at("bytes"),
                  fmt::format("{} differences", now.at("differences").get<std::uint64_t>()));
        if (LongWork::interrupted() && !cancelled) {
            TS_ASSIGN(const auto done,
                      ask(paths, {{"command", "verify-cancel"}, {"number", number}}));
            cancelled = true;
        }
        std::this_thread::sleep_for(kAskEvery);
    }
}

void print_difference(const Json& each, bool repair) {
    const auto detail = each.at("detail").get<std::string>();
    std::string line = fmt::format("{:<12}  {}", each.at("kind").get<std::string>(),
                                   printable(each.at("path").get<std::string>()));
    if (!detail.empty()) line += "  " + detail;
    if (repair) line += each.at("repaired").get<bool>() ? "  repaired" : "  not repaired";
    print(line + "\n");
}

// What is told at once is bounded.
Outcome<Json> all_listed(const VolumePaths& paths, const Json& number, Json& end) {
    Json all = std::move(end.at("listed"));
    while (all.size() < end.at("of").get<std::size_t>()) {
        TS_ASSIGN(
            const auto more,
            ask(paths, {{"command", "verify-progress"}, {"number", number}, {"from", all.size()}}));
        if (more.at("listed").empty()) break;
        for (const auto& each : more.at("listed")) all.push_back(each);
    }
    return all;
}

std::string summary(const std::string& volume, const Json& end, bool repair) {
    const auto differences = end.at("differences").get<std::uint64_t>();
    std::string text =
        fmt::format("{}: compared {} objects, {} bytes at record {}: ", volume,
                    end.at("objects").get<std::uint64_t>(), end.at("bytes").get<std::uint64_t>(),
                    end.at("lsn").get<std::uint64_t>());
    if (differences == 0) return text + "no differences";
    text += fmt::format("{} {}", differences, differences == 1 ? "difference" : "differences");
    if (repair) text += fmt::format(", {} repaired", end.at("repaired").get<std::uint64_t>());
    return text;
}

}  // namespace

Outcome<ExitCode> run_verify(const VerifyArguments& arguments) {
    TS_TRY(require_root());
    TS_TRY(check_name(arguments.volume));
    std::uint64_t rate = 0;
    if (!arguments.rate.empty()) {
        const auto parsed = parse_size(arguments.rate);
        if (!parsed || *parsed == 0)
            return bad_input("--rate is {}, and must be bytes a second like {}", arguments.rate,
                             kSizeExample);
        rate = *parsed;
    }
    if (!arguments.path.empty() && (arguments.path.front() != '/' || !is_utf8(arguments.path)))
        return bad_input("--path is {}, and must be an absolute path in UTF-8",
                         printable(arguments.path));
    const auto paths = VolumePaths::of(arguments.volume);
    TS_TRY(check_not_standby(paths, "a verify"));
    TS_ASSIGN(const auto begun, ask(paths, {{"command", "verify-begin"},
                                            {"path", arguments.path},
                                            {"repair", arguments.repair},
                                            {"rate", rate}}));
    const Json number = begun.at("number");
    TS_ASSIGN(auto end, follow(paths, number));
    TS_ASSIGN(auto listed, all_listed(paths, number, end));
    const auto differences = end.at("differences").get<std::uint64_t>();
    const bool open = differences > end.at("repaired").get<std::uint64_t>();
    if (arguments.json) {
        end["listed"] = std::move(listed);
        end.erase("running"), end.erase("of");
        print(end.dump(2) + "\n");
    } else {
        for (const auto& each : listed) print_difference(each, arguments.repair);
        print(summary(arguments.volume, end, arguments.repair) + "\n");
    }
    if (const auto why = end.at("failure").get<std::string>(); !why.empty())
        return failure("the verify of {} did not come to its end: {}", arguments.volume, why);
    if (const auto failed = end.at("failed").get<std::uint64_t>(); failed != 0)
        return failure("{} objects of {} could not be compared; {} has the reasons", failed,
                       arguments.volume, paths.log());
    return open ? ExitCode::kDegraded : ExitCode::kDone;
}

}  // namespace twinspool
