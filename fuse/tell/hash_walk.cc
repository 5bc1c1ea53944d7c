// SPDX-License-Identifier: Apache-2.0
#include "fuse/tell/hash_walk.h"

#include "journal/base/fault.h"

namespace twinspool {
namespace {

constexpr std::chrono::milliseconds kPatience{100};

}  // namespace

void HashWalk::begin(std::uint64_t standbys) {
    book_.begin(standbys);
    items_.clear();
    numbers_.clear();
}

Status HashWalk::compare(InodeRef file) {
    wait_for_room();
    const std::uint32_t telling = file->tellings;
    const auto newest = numbers_.find(raw(file->id));
    if (newest != numbers_.end() && items_.at(newest->second).telling == telling) return {};
    auto opened = open_content(volume_, *file);
    if (!opened.ok()) return is_gone(opened.error().code) ? Status{} : Status{opened.error()};
    const int fd = opened->get();
    const std::uint64_t number = ++last_number_;
    numbers_[raw(file->id)] = number;
    Item& item = items_[number];
    item.file = std::move(file);
    item.telling = telling;
    Status done = log_size(volume_, *item.file, fd);
    ContentStep step;
    while (done.ok() && !step.at_end && !hooks_.interrupted()) {
        const auto hole = log_large_hole(volume_, *item.file, fd, step.next);
        if (!hole.ok()) {
            done = hole.error();
            break;
        }
        step = *hole;
        if (!step.at_end)
            done = ask(item, fd, {.item = number, .aspect = Aspect::kContent, .offset = step.next},
                       step);
        wait_for_room();
    }
    if (done.ok()) done = log_attributes(volume_, *item.file, fd);
    if (!done.ok()) fail(item, done.error().code);
    item.all_asked = step.at_end || item.failed;
    if (item.all_asked && item.open == 0) finish(items_.find(number));
    return {};
}

Status HashWalk::ask(Item& item, int fd, Asked asked, ContentStep& step) {
    const Lsn last = book_.last();
    TS_ASSIGN(step, check_content(volume_, book_, *item.file, fd, std::move(asked)));
    if (book_.last() != last) ++item.open;
    hooks_.compared(step.logged);
    hooks_.throttle(book_.last(), step.logged + 256);
    return {};
}

void HashWalk::wait_for_room() {
    answer_some({});
    while (!hooks_.interrupted() &&
           (book_.open_checks() >= kMostOpen || book_.open_bytes() >= kMostOpenBytes)) {
        hooks_.hurry(book_.last());
        answer_some(kPatience);
    }
}

void HashWalk::settle() {
    while (!items_.empty() && !hooks_.interrupted()) {
        hooks_.hurry(book_.last());
        answer_some(kPatience);
    }
}

void HashWalk::answer_some(std::chrono::milliseconds patience) {
    for (const CheckAnswer& answer : book_.take(patience)) {
        if (hooks_.interrupted()) return;
        handle(answer);
    }
}

void HashWalk::handle(const CheckAnswer& answer) {
    const auto at = items_.find(answer.asked.item);
    if (at == items_.end()) return;
    Item& item = at->second;
    --item.open;
    if (!item.failed && (answer.lost || !answer.findings.empty())) {
        const Status done = make_good(item, answer);
        if (!done.ok()) fail(item, done.error().code);
    }
    if (item.all_asked && item.open == 0) finish(at);
}

// What a standby does not have, as it is now. Only what could not be compared is asked about again.
Status HashWalk::make_good(Item& item, const CheckAnswer& answer) {
    TS_ASSIGN(const Fd fd, open_content(volume_, *item.file));
    const std::uint64_t offset = answer.asked.offset;
    const std::uint64_t end = offset + answer.asked.length;
    Asked again = answer.asked;
    if (answer.lost) {
        ContentStep step;
        return ask(item, fd.get(), std::move(again), step);
    }
    TS_FAULT(resync_answered);
    bool changed = false;
    for (const auto& [standby, finding] : answer.findings) {
        switch (finding.kind) {
            case FindingKind::kChangedMeanwhile:
                changed = true;
                break;
            case FindingKind::kContent:
                TS_TRY(log_range(item, fd.get(), finding.offset, finding.offset + finding.length));
                break;
            default:
                TS_TRY(log_size(volume_, *item.file, fd.get()));
                TS_TRY(log_range(item, fd.get(), offset, end));
        }
    }
    if (!changed) return {};
    if (++again.attempt > 2) return log_range(item, fd.get(), offset, end);
    ContentStep step;
    return ask(item, fd.get(), std::move(again), step);
}

Status HashWalk::log_range(Item& item, int fd, std::uint64_t offset, std::uint64_t end) {
    ContentStep step{.next = offset};
    while (!step.at_end && !hooks_.interrupted()) {
        TS_ASSIGN(step, log_content(volume_, *item.file, fd, step.next, end));
        hooks_.differed(step.logged);
        hooks_.throttle(volume_.journal.appended(), step.logged);
    }
    return {};
}

void HashWalk::fail(Item& item, int error) {
    item.failed = true;
    if (!is_gone(error) && error != EROFS) hooks_.failed(error);
}

void HashWalk::finish(Items::iterator at) {
    const Item item = std::move(at->second);
    const std::uint64_t number = at->first;
    items_.erase(at);
    const auto newest = numbers_.find(raw(item.file->id));
    if (newest != numbers_.end() && newest->second == number) numbers_.erase(newest);
    if (item.failed) return;
    auto fd = open_content(volume_, *item.file);
    if (!fd.ok()) return;
    const GatePass pass{volume_.gate};
    const std::lock_guard lock{item.file->mutex};
    if (!volume_.told(*item.file) || item.file->unlinked || item.file->tellings != item.telling)
        return;
    volume_.touch(*item.file);
    const Status kept = keep_identity(fd->get(), {.object = item.file->id,
                                                  .generation = volume_.generation,
                                                  .complete = true,
                                                  .handle = item.file->handle});
    if (!kept.ok()) return hooks_.failed(kept.error().code);
    item.file->complete = true;
}

}  // namespace twinspool
