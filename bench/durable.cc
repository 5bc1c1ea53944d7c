// SPDX-License-Identifier: Apache-2.0
// Durable work as mail servers and databases do it, on several directories in turn; `raw` is the
// one without an overlay.
//
//   delivery: create in tmp, write 2 KiB, fsync, rename to new; a Maildir for each deliverer
//   log:      8 KiB pwrite + fdatasync on a preallocated file; a file for each writer
//
// bench_durable NAME=DIRECTORY... [Google Benchmark's flags]
// Each run of a benchmark works in folders that nobody has used before: creating files where many
// have just been deleted is slow on some file systems, and would be measured instead.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "journal/fd.h"

namespace {

using twinspool::Fd;

constexpr std::size_t kMessageBytes = 2048;
constexpr std::size_t kPageBytes = 8192;
constexpr off_t kLogBytes = off_t{32} << 20;

[[noreturn]] void give_up(const char* doing, const std::string& path) {
    fmt::print(stderr, "bench_durable: {} {}: {}\n", doing, path, std::strerror(errno));
    std::exit(1);
}

// Text compresses, as mail does; a counter makes each message different.
std::string message_text(std::uint64_t serial) {
    std::string text = fmt::format("Message-Id: <{:016x}@bench>\nSubject: {}\n\n", serial, serial);
    std::uint64_t state = serial * 0x9E3779B97F4A7C15 + 1;
    while (text.size() < kMessageBytes) {
        state = state * 6364136223846793005 + 1442695040888963407;
        text += fmt::format("{} ", state >> 44);
    }
    text.resize(kMessageBytes);
    return text;
}

std::atomic<std::uint64_t> serial{0};

std::string fresh_folder(const std::string& below) {
    const std::string path = fmt::format("{}/{:x}", below, serial.fetch_add(1));
    if (::mkdir(path.c_str(), 0700) != 0) give_up("make", path);
    return path;
}

class Maildir {
   public:
    explicit Maildir(const std::string& below) : path_(fresh_folder(below)) {
        for (const char* part : {"/tmp", "/new", "/cur"})
            if (::mkdir((path_ + part).c_str(), 0700) != 0) give_up("make", path_ + part);
    }
    void deliver(const std::string& text) {
        const std::string name = fmt::format("{}.M{}.host", count_++, ::getpid());
        const std::string temporary = path_ + "/tmp/" + name;
        const Fd fd{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
        if (!fd.valid()) give_up("create", temporary);
        if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
            give_up("write", temporary);
        if (::fsync(fd.get()) != 0) give_up("fsync", temporary);
        if (::rename(temporary.c_str(), (path_ + "/new/" + name).c_str()) != 0)
            give_up("rename", temporary);
    }

   private:
    std::string path_;
    std::uint64_t count_ = 0;
};

void deliver(benchmark::State& state, const std::string& directory) {
    Maildir maildir{directory};
    const std::string text = message_text(serial.fetch_add(1));
    for (auto _ : state) maildir.deliver(text);
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

void write_log(benchmark::State& state, const std::string& directory) {
    const std::string path = fresh_folder(directory) + "/log";
    const Fd fd{::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
    if (!fd.valid()) give_up("create", path);
    const std::vector<char> zeros(std::size_t{1} << 20);
    for (off_t at = 0; at < kLogBytes; at += static_cast<off_t>(zeros.size()))
        if (::pwrite(fd.get(), zeros.data(), zeros.size(), at) < 0) give_up("fill", path);
    if (::fsync(fd.get()) != 0) give_up("fsync", path);
    std::string page;
    for (int i = 0; i < 4; ++i) page += message_text(serial.fetch_add(1));
    off_t at = 0;
    for (auto _ : state) {
        if (::pwrite(fd.get(), page.data(), kPageBytes, at) != static_cast<ssize_t>(kPageBytes) ||
            ::fdatasync(fd.get()) != 0)
            give_up("write", path);
        at = (at + static_cast<off_t>(kPageBytes)) % kLogBytes;
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

void register_place(const char* name, const std::string& place) {
    for (const int threads : {1, 4, 16})
        benchmark::RegisterBenchmark(fmt::format("delivery/{}", name).c_str(),
                                     [place](benchmark::State& state) { deliver(state, place); })
            ->Threads(threads)
            ->UseRealTime();
    for (const int threads : {1, 8})
        benchmark::RegisterBenchmark(fmt::format("log/{}", name).c_str(),
                                     [place](benchmark::State& state) { write_log(state, place); })
            ->Threads(threads)
            ->UseRealTime();
}

}  // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);  // takes away its own flags
    if (argc < 2) {
        fmt::print(stderr, "usage: bench_durable NAME=DIRECTORY... [flags]\n");
        return 2;
    }
    for (const std::string_view place :
         std::span{argv, static_cast<std::size_t>(argc)}.subspan(1)) {
        const auto equals = place.find('=');
        if (equals == std::string_view::npos) {
            fmt::print(stderr, "bench_durable: {} is not NAME=DIRECTORY\n", place);
            return 2;
        }
        register_place(std::string{place.substr(0, equals)}.c_str(),
                       std::string{place.substr(equals + 1)});
    }
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
