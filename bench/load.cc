// SPDX-License-Identifier: Apache-2.0
// One round of one work in one directory, with the time that each operation took, which Google
// Benchmark does not keep. Prints one JSON object; bench/measure.py decides what is run when.
//
// clang-format off
//   bench_load WORK DIRECTORY AT_ONCE AMOUNT
//                                                                                    AMOUNT
//     delivery    create in tmp, write 2 KiB, fsync, rename to new; a Maildir each   seconds
//     shared      the same, all into one Maildir                                     seconds
//     log         8 KiB pwrite + fdatasync on a preallocated file each               seconds
//     read        open, read, close of the files in DIRECTORY, after one pass unmeasured
//                                                                                    seconds
//     scan        readdir + stat of DIRECTORY, after one pass unmeasured             seconds
//     first       the same, once, without such a pass                                none
//     empty       create, stat, unlink of empty files                                files
//     sequential  write one file by 1 MiB, fsync                                     MiB
// clang-format on
// "operations" are messages, pages, files read, entries, files and MiB.
#include <dirent.h>
#include <sys/resource.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/mailbox.h"

namespace {

using namespace twinspool::bench;
using twinspool::Fd;
using Clock = std::chrono::steady_clock;

// As large as a segment of PostgreSQL's log.
constexpr off_t kLogBytes = off_t{16} << 20;
constexpr std::size_t kMiB = std::size_t{1} << 20;
// Buckets of a histogram grow by this: percentiles are that exact.
constexpr double kBucketGrowth = 1.02;

struct Order {
    std::string work;
    std::string directory;
    int at_once;
    double amount;
};

struct Taken {
    std::vector<std::int64_t> nanoseconds;  // of each operation; empty where none is timed
    std::int64_t operations = 0;
};

// What a thread does: made before the clock starts, then called until it does not want more.
using Operation = std::function<void()>;

std::string descend(const Order& order, const char* name, int index) {
    return fmt::format("{}/{}{}", order.directory, name, index);
}

// Written out once and used by every round, so that no round measures how a file grows.
Operation log_writer(const Order& order, int index) {
    const std::string path = descend(order, "log", index);
    auto fd = std::make_shared<Fd>(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd->valid()) give_up("open", path);
    struct stat found {};
    if (::fstat(fd->get(), &found) != 0) give_up("stat", path);
    const std::vector<char> zeros(kMiB);
    for (off_t at = found.st_size; at < kLogBytes; at += static_cast<off_t>(kMiB))
        if (::pwrite(fd->get(), zeros.data(), zeros.size(), at) < 0) give_up("fill", path);
    if (::fsync(fd->get()) != 0) give_up("fsync", path);
    return [fd, path, page = page_text(), at = off_t{0}]() mutable {
        if (::pwrite(fd->get(), page.data(), kPageBytes, at) != static_cast<ssize_t>(kPageBytes) ||
            ::fdatasync(fd->get()) != 0)
            give_up("write", path);
        at = (at + static_cast<off_t>(kPageBytes)) % kLogBytes;
    };
}

std::vector<std::string> names_in(const std::string& directory) {
    std::vector<std::string> names;
    DIR* const stream = ::opendir(directory.c_str());
    if (stream == nullptr) give_up("open", directory);
    while (const dirent* entry = ::readdir(stream))
        if (entry->d_name[0] != '.') names.push_back(directory + "/" + entry->d_name);
    ::closedir(stream);
    return names;
}

void read_whole(const std::string& path) {
    char buffer[16384];
    const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!fd.valid()) give_up("open", path);
    ssize_t got;
    while ((got = ::read(fd.get(), buffer, sizeof buffer)) > 0) {
    }
    if (got < 0) give_up("read", path);
}

Operation reader(const Order& order, int index) {
    auto names = names_in(order.directory);
    if (names.empty()) give_up("find files in", order.directory);
    for (const std::string& name : names) read_whole(name);
    const std::size_t step = names.size() / static_cast<std::size_t>(order.at_once);
    return [names = std::move(names), at = step * static_cast<std::size_t>(index)]() mutable {
        read_whole(names[at++ % names.size()]);
    };
}

std::int64_t scan(const std::string& directory) {
    const Fd fd{::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    DIR* const stream = ::fdopendir(::dup(fd.get()));
    if (stream == nullptr) give_up("open", directory);
    std::int64_t seen = 0;
    struct stat found {};
    while (const dirent* entry = ::readdir(stream)) {
        if (entry->d_name[0] == '.') continue;
        if (::fstatat(fd.get(), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) != 0)
            give_up("stat", directory + "/" + entry->d_name);
        ++seen;
    }
    ::closedir(stream);
    return seen;
}

Operation prepare(const Order& order, int index, const std::shared_ptr<Maildir>& shared) {
    if (order.work == "log") return log_writer(order, index);
    if (order.work == "read") return reader(order, index);
    auto maildir = shared ? shared : std::make_shared<Maildir>(order.directory);
    return [maildir, text = message_text(next_serial())] { maildir->deliver(text); };
}

// All threads begin together and each goes on until the time is over.
Taken run_for_a_time(const Order& order, std::chrono::nanoseconds& elapsed) {
    const auto shared =
        order.work == "shared" ? std::make_shared<Maildir>(order.directory) : nullptr;
    std::vector<Taken> parts(static_cast<std::size_t>(order.at_once));
    std::barrier together{order.at_once + 1};
    std::vector<std::thread> threads;
    for (int index = 0; index < order.at_once; ++index)
        threads.emplace_back([&, index] {
            const Operation operation = prepare(order, index, shared);
            Taken& taken = parts[static_cast<std::size_t>(index)];
            together.arrive_and_wait();
            const auto end = Clock::now() + std::chrono::duration<double>{order.amount};
            for (auto before = Clock::now(); before < end;) {
                operation();
                const auto after = Clock::now();
                taken.nanoseconds.push_back((after - before).count());
                before = after;
            }
        });
    together.arrive_and_wait();
    const auto begin = Clock::now();
    for (std::thread& thread : threads) thread.join();
    elapsed = Clock::now() - begin;
    Taken all;
    for (const Taken& part : parts)
        all.nanoseconds.insert(all.nanoseconds.end(), part.nanoseconds.begin(),
                               part.nanoseconds.end());
    all.operations = static_cast<std::int64_t>(all.nanoseconds.size());
    return all;
}

std::int64_t scan_for_a_time(const Order& order) {
    const auto end = Clock::now() + std::chrono::duration<double>{order.amount};
    std::int64_t seen = 0;
    do seen += scan(order.directory);
    while (Clock::now() < end);
    return seen;
}

std::int64_t empty_files(const std::string& folder, int count) {
    const auto path = [&](int number) { return fmt::format("{}/{}", folder, number); };
    for (int number = 0; number < count; ++number)
        if (!Fd{::open(path(number).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)}
                 .valid())
            give_up("create", path(number));
    struct stat found {};
    for (int number = 0; number < count; ++number)
        if (::stat(path(number).c_str(), &found) != 0) give_up("stat", path(number));
    for (int number = 0; number < count; ++number)
        if (::unlink(path(number).c_str()) != 0) give_up("unlink", path(number));
    return count;
}

std::int64_t write_sequentially(const Fd& fd, const std::string& text, int mebibytes) {
    for (int number = 0; number < mebibytes; ++number)
        if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
            give_up("write", "the large file");
    if (::fsync(fd.get()) != 0) give_up("fsync", "the large file");
    return mebibytes;
}

Taken run_once(const Order& order, std::chrono::nanoseconds& elapsed) {
    std::function<std::int64_t()> work;
    const int amount = static_cast<int>(order.amount);
    const std::string path = descend(order, "large", 0);
    Fd large;
    std::string text;
    if (order.work == "sequential") {
        while (text.size() < kMiB) text += message_text(next_serial());
        large = Fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
        if (!large.valid()) give_up("create", path);
        work = [&] { return write_sequentially(large, text, amount); };
    } else if (order.work == "empty") {
        work = [folder = fresh_folder(order.directory), amount] {
            return empty_files(folder, amount);
        };
    } else if (order.work == "first") {
        work = [&order] { return scan(order.directory); };
    } else {
        scan(order.directory);
        work = [&order] { return scan_for_a_time(order); };
    }
    const auto begin = Clock::now();
    const std::int64_t operations = work();
    elapsed = Clock::now() - begin;
    return {.nanoseconds = {}, .operations = operations};
}

double processor_seconds() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// Bucket B holds what took up to kBucketGrowth^B nanoseconds.
std::string histogram(const std::vector<std::int64_t>& nanoseconds) {
    std::map<int, int> buckets;
    for (const std::int64_t taken : nanoseconds)
        ++buckets[static_cast<int>(
            std::ceil(std::log(static_cast<double>(std::max<std::int64_t>(taken, 1))) /
                      std::log(kBucketGrowth)))];
    std::string text;
    for (const auto& [bucket, count] : buckets)
        text += fmt::format("{}\"{}\": {}", text.empty() ? "" : ", ", bucket, count);
    return text;
}

}  // namespace

int main(int argc, char** argv) {
    const std::span arguments{argv, static_cast<std::size_t>(argc)};
    constexpr std::string_view kTimed[] = {"delivery", "shared", "log", "read"};
    constexpr std::string_view kOnce[] = {"scan", "first", "empty", "sequential"};
    const auto among = [&](std::span<const std::string_view> works) {
        return std::find(works.begin(), works.end(), arguments[1]) != works.end();
    };
    if (argc != 5 || (!among(kTimed) && !among(kOnce))) {
        fmt::print(stderr, "usage: bench_load WORK DIRECTORY AT_ONCE AMOUNT (see bench/load.cc)\n");
        return 2;
    }
    const Order order{.work = arguments[1],
                      .directory = arguments[2],
                      .at_once = std::max(std::atoi(arguments[3]), 1),
                      .amount = std::atof(arguments[4])};
    std::chrono::nanoseconds elapsed{};
    const Taken taken = among(kTimed) ? run_for_a_time(order, elapsed) : run_once(order, elapsed);
    fmt::print(
        "{{\"operations\": {}, \"seconds\": {:.6f}, \"processor_seconds\": {:.3f}, "
        "\"histogram\": {{{}}}}}\n",
        taken.operations, static_cast<double>(elapsed.count()) / 1e9, processor_seconds(),
        histogram(taken.nanoseconds));
    return 0;
}
