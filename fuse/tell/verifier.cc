// SPDX-License-Identifier: Apache-2.0
#include "fuse/tell/verifier.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "fuse/kernel/process.h"
#include "fuse/objects/directory_stream.h"
#include "fuse/objects/orphans.h"
#include "journal/base/clock.h"
#include "journal/format/check_list.h"

namespace twinspool {
namespace {

constexpr std::chrono::milliseconds kPatience{100};
constexpr std::uint64_t kObjectBytes = 512;  // what looking at one counts, for the rate

// Nothing stands between this and the name: what a range begins behind, to hold just that name.
std::string just_before(const std::string& name) {
    std::string before = name.substr(0, name.size() - 1);
    const auto last = static_cast<unsigned char>(name.back());
    if (last == 1) return before;
    before += static_cast<char>(last - 1);
    before.resize(NAME_MAX, '\xff');
    return before;
}

double seconds_since(std::chrono::steady_clock::time_point began) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

}  // namespace

Status Verifier::begin(const VerifyOptions& options) {
    TS_ASSIGN(Start start, find_start(options.path));
    std::thread before;
    std::unique_lock lock{mutex_};
    if (stopped_) return make_error(ESHUTDOWN, "verify a volume that goes down");
    if (report_.running) return make_error(EBUSY, "verify: a verify is running already");
    before.swap(thread_);
    report_ = {.number = report_.number + 1,
               .running = true,
               .repair = options.repair,
               .path = options.path,
               .began = wall_time()};
    began_ = std::chrono::steady_clock::now();
    cancelled_ = false;
    lock.unlock();
    if (before.joinable()) before.join();
    lock.lock();
    if (stopped_) {
        report_.running = false;
        return make_error(ESHUTDOWN, "verify a volume that goes down");
    }
    thread_ = std::thread{
        [this, options, start = std::move(start)]() mutable { run(options, std::move(start)); }};
    return {};
}

void Verifier::cancel(const std::string& why) {
    const std::lock_guard lock{mutex_};
    if (!report_.running) return;
    if (report_.failure.empty()) report_.failure = why;
    cancelled_ = true;
    wake_.notify_all();
}

void Verifier::stop(const std::string& why) {
    std::thread running;
    {
        const std::lock_guard lock{mutex_};
        stopped_ = true;
        running.swap(thread_);
    }
    cancel(why);
    if (running.joinable()) running.join();
}

VerifyReport Verifier::report() const {
    const std::lock_guard lock{mutex_};
    VerifyReport report = report_;
    if (report.running) report.seconds = seconds_since(began_);
    return report;
}

bool Verifier::ended() const { return cancelled_; }

void Verifier::fail(const std::string& why) { cancel(why); }

void Verifier::pause(Nanoseconds time) {
    std::unique_lock lock{mutex_};
    wake_.wait_for(lock, time, [this] { return ended(); });
}

// Also where it is looked whether going on has a sense.
void Verifier::work_done(std::uint64_t bytes) {
    if (volume_.generation != generation_ || volume_.in_round)
        fail("a standby is being told everything anew");
    if (volume_.journal.failure() != 0) fail("the journal cannot be written");
    const Nanoseconds wait = rate_.take(bytes, std::chrono::steady_clock::now());
    if (wait > Nanoseconds{0}) pause(wait);
}

// Unknown paths are found out here, before anything is begun.
Result<Verifier::Start> Verifier::find_start(const std::string& path) {
    if (path.empty()) return Start{};
    const auto missing = [&] { return make_error(ENOENT, "find {} in the volume", path); };
    for (const Directory& directory : volume_.directories) {
        if (!path.starts_with(directory.path)) continue;
        std::string_view rest = std::string_view{path}.substr(directory.path.size());
        if (!rest.empty() && rest.front() != '/') continue;
        Start start{.subject = {.object = directory.root.share(), .path = directory.path}};
        while (!rest.empty()) {
            rest.remove_prefix(1);
            const std::string name{rest.substr(0, rest.find('/'))};
            rest.remove_prefix(name.size());
            if (name.empty()) continue;
            if (start.subject.object->type != S_IFDIR || name == "." || name == ".." ||
                is_hidden(volume_, *start.subject.object, name.c_str()))
                return missing();
            const Turn turn{volume_.journal, Turn::Waiting::kAllowed};
            auto found = identify_entry(volume_, turn, *start.subject.object, name.c_str());
            if (!found.ok()) return missing();
            Subject next{.object = std::move(found->inode),
                         .parent = std::move(start.subject.object),
                         .name = name,
                         .path = start.subject.path + "/" + name};
            start = {.subject = std::move(next), .parent_path = start.subject.path};
        }
        return start;
    }
    return missing();
}

void Verifier::run(const VerifyOptions& options, Start start) {
    name_thread("verifier");
    become_background_thread();
    rate_ = RateLimit{options.rate != 0 ? options.rate : setup_.rate_limit};
    generation_ = volume_.generation;
    confirmed_ = 0;
    mended_ = false;
    book_.begin(setup_.standbys);
    visit_all(options, std::move(start));
    settle();
    if (options.repair && !damages_.empty() && !ended()) repair_all();
    conclude();
}

void Verifier::conclude() {
    items_.clear();
    seen_.clear();
    damages_.clear();
    known_differences_.clear();
    book_.begin(0);
    const std::lock_guard lock{mutex_};
    for (Difference& difference : report_.listed) {
        difference.repaired =
            mended_ && report_.failure.empty() && !in_vain_.contains(difference.path);
        if (difference.repaired) ++report_.repaired;
    }
    in_vain_.clear();
    report_.position = book_.last();
    report_.seconds = seconds_since(began_);
    report_.running = false;
}

// --- the walk

void Verifier::visit_all(const VerifyOptions& options, Start start) {
    std::vector<Subject> directories;
    if (options.path.empty()) {
        for (const Directory& directory : volume_.directories)
            directories.push_back({.object = directory.root.share(), .path = directory.path});
        std::reverse(directories.begin(), directories.end());
    } else {
        if (start.subject.parent) {
            const std::string& name = start.subject.name;
            const std::uint64_t above =
                add({.object = start.subject.parent.share(), .path = start.parent_path});
            const Status asked = ask_entries(above, {},
                                             {.item = above,
                                              .aspect = Aspect::kEntries,
                                              .after = just_before(name),
                                              .upto = name});
            if (!asked.ok()) note_failure(start.parent_path, asked.error().code);
            asked_all(above);
        }
        if (start.subject.object->type == S_IFDIR)
            directories.push_back(std::move(start.subject));
        else
            (void)visit(std::move(start.subject));
    }
    while (!directories.empty() && !ended()) {
        Subject next = std::move(directories.back());
        directories.pop_back();
        visit_directory(std::move(next), directories);
    }
}

std::uint64_t Verifier::add(Subject subject) {
    items_[++last_number_].subject = std::move(subject);
    return last_number_;
}

void Verifier::asked_all(std::uint64_t number) {
    const auto at = items_.find(number);
    at->second.all_asked = true;
    if (at->second.open == 0) items_.erase(at);
}

// Everything but a directory's entries, which are asked about when those in it have been.
std::uint64_t Verifier::visit(Subject subject) {
    wait_for_room();
    const bool is_file = subject.object->type == S_IFREG;
    const bool is_directory = subject.object->type == S_IFDIR;
    const std::uint64_t number = add(std::move(subject));
    Status asked = ask_object(number, {.item = number, .aspect = Aspect::kObject});
    if (asked.ok() && is_file) asked = ask_content(number);
    if (!asked.ok()) note_failure(items_.at(number).subject.path, asked.error().code);
    {
        const std::lock_guard lock{mutex_};
        ++report_.objects;
        report_.position = book_.last();
    }
    work_done(kObjectBytes);
    if (!is_directory) asked_all(number);
    return number;
}

void Verifier::visit_directory(Subject directory, std::vector<Subject>& inner) {
    auto fd = open_handle(volume_.backing_fd(*directory.object), directory.object->handle,
                          O_RDONLY | O_DIRECTORY | O_NOATIME);
    if (!fd.ok()) return note_failure(directory.path, fd.error().code);
    const Subject kept = directory.share();
    const std::uint64_t number = visit(std::move(directory));
    DirectoryStream stream{std::move(*fd)};
    KnownIds known;
    while (!ended()) {
        const auto entry = stream.peek();
        if (!entry.ok()) note_failure(kept.path, entry.error().code);
        if (!entry.ok() || !*entry) break;
        const char* const name = (*entry)->name;
        if (!is_dots(name) && !is_hidden(volume_, *kept.object, name)) {
            const auto visited = visit_entry(kept, name, known, inner);
            if (!visited.ok()) note_failure(kept.path + "/" + name, visited.error().code);
        }
        stream.skip();
    }
    if (!ended()) {
        const Status asked =
            ask_entries(number, known, {.item = number, .aspect = Aspect::kEntries});
        if (!asked.ok()) note_failure(kept.path, asked.error().code);
    }
    asked_all(number);
}

Result<std::uint64_t> Verifier::visit_entry(const Subject& directory, const char* name,
                                            KnownIds& known, std::vector<Subject>& inner) {
    const Turn turn{volume_.journal, Turn::Waiting::kAllowed};
    TS_ASSIGN(Found found, identify_entry(volume_, turn, *directory.object, name));
    known[name] = {.number = found.attributes.stx_ino, .object = found.inode->id};
    Subject subject{.object = std::move(found.inode),
                    .parent = directory.object.share(),
                    .name = name,
                    .path = directory.path + "/" + name};
    if (subject.object->type == S_IFDIR) {
        inner.push_back(std::move(subject));
        return std::uint64_t{0};
    }
    if (found.attributes.stx_nlink > 1 && !seen_.insert(raw(subject.object->id)).second)
        return std::uint64_t{0};
    return visit(std::move(subject));
}

Status Verifier::ask_object(std::uint64_t number, const Asked& asked) {
    Item& item = items_.at(number);
    TS_TRY(check_object(volume_, book_, *item.subject.object, asked));
    ++item.open;
    return {};
}

Status Verifier::ask_content(std::uint64_t number) {
    TS_ASSIGN(const Fd fd, open_content(volume_, *items_.at(number).subject.object));
    ContentStep step;
    while (!step.at_end && !ended()) {
        TS_TRY(ask_chunk(number, fd.get(),
                         {.item = number, .aspect = Aspect::kContent, .offset = step.next}, step));
        const std::lock_guard lock{mutex_};
        report_.bytes += step.logged;
    }
    return {};
}

Status Verifier::ask_chunk(std::uint64_t number, int fd, Asked asked, ContentStep& step) {
    wait_for_room();
    Item& item = items_.at(number);
    const Lsn before = book_.last();
    TS_ASSIGN(step, check_content(volume_, book_, *item.subject.object, fd, std::move(asked)));
    if (book_.last() != before) ++item.open;
    work_done(step.logged);
    return {};
}

// Listed without the lock first; that counts if nothing has changed the directory since. In a
// second attempt nothing is believed that was known before.
Status Verifier::ask_entries(std::uint64_t number, const KnownIds& known, const Asked& asked) {
    Item& item = items_.at(number);
    Inode& directory = *item.subject.object;
    TS_ASSIGN(const Fd fd, open_handle(volume_.backing_fd(directory), directory.handle,
                                       O_RDONLY | O_DIRECTORY | O_NOATIME));
    std::uint32_t changes = 0;
    {
        const std::lock_guard lock{directory.mutex};
        changes = directory.changes;
    }
    const EntryRange range{.after = asked.after, .upto = asked.upto};
    TS_ASSIGN(auto entries, entries_with_ids(volume_, directory, fd.get(), known, range));
    Turn turn{volume_.journal, Turn::Waiting::kAllowed};
    const GatePass pass{volume_.gate};
    ObjectLocks locks;
    (void)locks.lock({&directory}, turn);
    if (!volume_.told(directory) || directory.unlinked) return plain(ESTALE);
    if (directory.changes != changes) {
        TS_ASSIGN(entries, entries_with_ids(volume_, directory, fd.get(), known, range));
    }
    return log_entries(turn, item, entries, asked);
}

Status Verifier::log_entries(Turn& turn, Item& item, const std::vector<NamedId>& entries,
                             const Asked& asked) {
    constexpr std::size_t kChunkBytes = std::size_t{64} * 1024;
    Asked part = asked;
    std::vector<std::byte> chunk;
    for (std::size_t i = 0; i <= entries.size(); ++i) {
        const bool last = i == entries.size();
        if (!last) add_checked_entry(chunk, {.name = entries[i].name, .object = entries[i].object});
        if (!last && (chunk.size() < kChunkBytes || i + 1 == entries.size())) continue;
        part.upto = last ? asked.upto : entries[i].name;
        if (!turn.wait_for_credit(
                max_encoded_size(part.after.size() + part.upto.size() + chunk.size())))
            return plain(EROFS);
        book_.log(turn,
                  CheckEntriesOp{.parent = item.subject.object->id,
                                 .after = part.after,
                                 .upto = part.upto,
                                 .exact = asked.exact(),
                                 .entries = chunk},
                  part);
        ++item.open;
        part.after = part.upto;
        chunk.clear();
    }
    return {};
}

void Verifier::note_failure(const std::string& path, int error) {
    if (is_gone(error) || ended()) return;
    spdlog::error("verify: could not look at {}: {}", path, std::strerror(error));  // NOLINT
    const std::lock_guard lock{mutex_};
    ++report_.failed;
}

// --- mending

// Never runs far ahead of a standby, and stops within a file when it is told to.
Status Verifier::mended_some(std::uint64_t bytes) {
    constexpr std::uint64_t kStep = std::uint64_t{16} << 20;
    work_done(bytes);
    unsynced_bytes_ += bytes;
    if (unsynced_bytes_ >= kStep) {
        unsynced_bytes_ = 0;
        const Lsn lsn = volume_.journal.appended();
        TS_TRY(volume_.journal.make_durable(lsn));
        while (!ended() && is_behind(lsn)) pause(kPatience);
    }
    return ended() ? Status{plain(ECANCELED)} : Status{};
}

bool Verifier::is_behind(Lsn lsn) const {
    for (std::uint32_t standby = 0; (setup_.standbys >> standby) != 0; ++standby)
        if (volume_.journal.commit().standby(standby) < lsn) return true;
    return false;
}

void Verifier::repair_all() {
    for (auto& [number, damage] : damages_) {
        if (ended()) return;
        const Status mended =
            mend(volume_, damage, [this](std::uint64_t bytes) { return mended_some(bytes); });
        if (!mended.ok()) note_failure(damage.subject.path, mended.error().code);
        work_done(kObjectBytes);
    }
    check_repaired();
}

// What was mended is looked at once more; what differs now was mended in vain.
void Verifier::check_repaired() {
    std::map<std::uint64_t, Damage> damages;
    damages.swap(damages_);
    mended_ = true;
    for (const auto& [old, damage] : damages) {
        if (ended()) return;
        wait_for_room();
        const std::uint64_t number = add(damage.subject.share());
        Status asked = ask_object(number, {.item = number, .aspect = Aspect::kObject});
        if (asked.ok() && damage.subject.object->type == S_IFREG) asked = ask_content(number);
        for (const EntryRange& range : damage.entries)
            if (asked.ok())
                asked = ask_entries(number, {},
                                    {.item = number,
                                     .aspect = Aspect::kEntries,
                                     .after = range.after,
                                     .upto = range.upto});
        if (!asked.ok()) note_failure(damage.subject.path, asked.error().code);
        asked_all(number);
    }
    settle();
}

}  // namespace twinspool
