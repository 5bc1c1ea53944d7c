// SPDX-License-Identifier: Apache-2.0
// Durable work as mail servers and databases do it, on several directories in turn; `raw` is the
// one without an overlay.
//
//   delivery: create in tmp, write 2 KiB, fsync, rename to new; a Maildir for each deliverer
//   log:      8 KiB pwrite + fdatasync on a preallocated file; a file for each writer
//
// bench_durable NAME=DIRECTORY... [Google Benchmark's flags]
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/mailbox.h"
#include "journal/base/fd.h"

namespace {

using twinspool::Fd;

using twinspool::bench::fresh_folder;
using twinspool::bench::give_up;
using twinspool::bench::kPageBytes;
using twinspool::bench::Maildir;
using twinspool::bench::message_text;
using twinspool::bench::next_serial;
using twinspool::bench::page_text;

constexpr off_t kLogBytes = off_t{32} << 20;

void deliver(benchmark::State& state, const std::string& directory) {
    Maildir maildir{directory};
    const std::string text = message_text(next_serial());
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
    const std::string page = page_text();
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
