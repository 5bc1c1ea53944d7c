// SPDX-License-Identifier: Apache-2.0
// The part of fuse/tell/verifier that hears what the standbys found.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "fuse/tell/verifier.h"

namespace twinspool {
namespace {

constexpr std::chrono::milliseconds kPatience{100};

bool is_entry(FindingKind kind) {
    return kind == FindingKind::kEntryMissing || kind == FindingKind::kEntryExtra ||
           kind == FindingKind::kEntryOther;
}

// What is one difference for a person: an object that is missing has lost its entry, too.
std::string word_of(FindingKind kind) {
    if (kind == FindingKind::kEntryMissing) kind = FindingKind::kMissing;
    return std::to_string(static_cast<int>(kind));
}

}  // namespace

void Verifier::wait_for_room() {
    answer_some({});
    while (!ended() && (book_.open_checks() >= kMostOpen || book_.open_bytes() >= kMostOpenBytes)) {
        volume_.journal.push();
        if (setup_.hurry) setup_.hurry(book_.last());
        answer_some(kPatience);
        work_done(0);
    }
}

void Verifier::settle() {
    while (!ended() && !book_.empty()) {
        volume_.journal.push();
        if (setup_.hurry) setup_.hurry(book_.last());
        answer_some(kPatience);
        work_done(0);
    }
}

void Verifier::answer_some(std::chrono::milliseconds patience) {
    for (const CheckAnswer& answer : book_.take(patience)) {
        if (ended()) return;
        handle(answer);
    }
}

void Verifier::handle(const CheckAnswer& answer) {
    if (answer.lost) return fail("a standby was lost");
    const std::uint64_t number = answer.asked.item;
    const auto at = items_.find(number);
    if (at == items_.end()) return;
    --at->second.open;
    if (!answer.findings.empty()) {
        const bool changed =
            std::any_of(answer.findings.begin(), answer.findings.end(), [](const Heard& heard) {
                return heard.finding.kind == FindingKind::kChangedMeanwhile;
            });
        const bool unconfirmed = answer.asked.attempt == 0 && confirmed_ < kMostConfirmed;
        if (changed || unconfirmed) {
            if (!changed) ++confirmed_;
            Asked again = answer.asked;
            const Status asked = ++again.attempt > kMostAttempts
                                     ? Status{make_error(EBUSY, "compare")}
                                     : ask_again(number, std::move(again));
            if (!asked.ok()) note_failure(at->second.subject.path, asked.error().code);
        } else {
            differs(number, at->second, answer);
        }
    }
    if (at->second.all_asked && at->second.open == 0) items_.erase(at);
}

// Takes no answers.
Status Verifier::ask_again(std::uint64_t number, Asked asked) {
    Item& item = items_.at(number);
    switch (asked.aspect) {
        case Aspect::kObject:
            return ask_object(number, asked);
        case Aspect::kEntries:
            return ask_entries(number, {}, asked);
        case Aspect::kContent:
            break;
    }
    TS_ASSIGN(const Fd fd, open_content(volume_, *item.subject.object));
    const Lsn before = book_.last();
    TS_ASSIGN(const ContentStep step,
              check_content(volume_, book_, *item.subject.object, fd.get(), std::move(asked)));
    if (book_.last() != before) ++item.open;
    work_done(step.logged);
    return {};
}

void Verifier::differs(std::uint64_t number, Item& item, const CheckAnswer& answer) {
    const auto [at, fresh] = damages_.try_emplace(number);
    if (fresh) at->second.subject = item.subject.share();
    for (const Heard& heard : answer.findings) {
        note_damage(at->second, answer, heard.finding);
        const std::string path = is_entry(heard.finding.kind)
                                     ? item.subject.path + "/" + heard.finding.name
                                     : item.subject.path;
        report_difference(path, heard);
    }
}

void Verifier::note_damage(Damage& damage, const CheckAnswer& answer, const Finding& finding) {
    if (answer.asked.aspect == Aspect::kEntries)
        damage.entries.insert({.after = answer.asked.after, .upto = answer.asked.upto});
    switch (finding.kind) {
        case FindingKind::kMissing:
            damage.missing = damage.all_names = true;
            break;
        case FindingKind::kContent:
            damage.content.emplace_back(finding.offset, finding.offset + finding.length);
            break;
        case FindingKind::kSize: {
            damage.size = true;
            const std::uint64_t there = finding.length;
            damage.content.emplace_back(there - there % kCheckBlockBytes, UINT64_MAX);
            break;
        }
        case FindingKind::kEntryMissing:
        case FindingKind::kEntryOther:
            damage.names.insert(finding.name);
            break;
        case FindingKind::kEntryExtra:
            break;
        case FindingKind::kUnreadable:
            damage.content.emplace_back(answer.asked.offset,
                                        answer.asked.offset + answer.asked.length);
            [[fallthrough]];
        default:
            damage.attributes = true;
    }
}

void Verifier::report_difference(const std::string& path, const Heard& heard) {
    const Finding& finding = heard.finding;
    if (mended_) {
        in_vain_.insert(path);
        return;
    }
    const std::lock_guard lock{mutex_};
    const bool content = finding.kind == FindingKind::kContent;
    if (content && !report_.listed.empty()) {
        Difference& last = report_.listed.back();
        if (last.kind == finding.kind && last.path == path &&
            last.offset + last.length == finding.offset) {
            last.length += finding.length;
            return;
        }
    }
    const std::string word =
        word_of(finding.kind) + (content ? std::to_string(finding.offset) : finding.name);
    if (!known_differences_.emplace(word_of(finding.kind), content ? path + word : path).second)
        return;
    ++report_.differences;
    if (report_.listed.size() >= kMostListed) {
        report_.failure = "too much differs";
        cancelled_ = true;
        return;
    }
    report_.listed.push_back({.kind = finding.kind,
                              .path = path,
                              .offset = finding.offset,
                              .length = finding.length,
                              .xattr = finding.kind == FindingKind::kXattrs ? finding.name : "",
                              .standby = heard.standby});
}

}  // namespace twinspool
