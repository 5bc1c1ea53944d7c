// SPDX-License-Identifier: Apache-2.0
// What the benchmark programs deliver, and where to. An error ends the program: a measurement with
// a failed operation in it is none.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "journal/base/fd.h"

namespace twinspool::bench {

constexpr std::size_t kMessageBytes = 2048;
constexpr std::size_t kPageBytes = 8192;

[[noreturn]] inline void give_up(const char* doing, const std::string& path) {
    fmt::print(stderr, "bench: {} {}: {}\n", doing, path, std::strerror(errno));
    std::exit(1);
}

inline std::uint64_t next_serial() {
    static std::atomic<std::uint64_t> serial{0};
    return serial.fetch_add(1);
}

// Text compresses, as mail does; a counter makes each message different.
inline std::string message_text(std::uint64_t serial) {
    std::string text = fmt::format("Message-Id: <{:016x}@bench>\nSubject: {}\n\n", serial, serial);
    std::uint64_t state = serial * 0x9E3779B97F4A7C15 + 1;
    while (text.size() < kMessageBytes) {
        state = state * 6364136223846793005 + 1442695040888963407;
        text += fmt::format("{} ", state >> 44);
    }
    text.resize(kMessageBytes);
    return text;
}

inline std::string page_text() {
    std::string page;
    while (page.size() < kPageBytes) page += message_text(next_serial());
    page.resize(kPageBytes);
    return page;
}

// A folder that nobody has used before, in this run of the program or another: creating files where
// many have just been deleted is slow on some file systems, and would be measured instead.
inline std::string fresh_folder(const std::string& below) {
    static const auto begin = std::chrono::system_clock::now().time_since_epoch().count();
    std::string path = fmt::format("{}/{:x}-{:x}", below, begin, next_serial());
    if (::mkdir(path.c_str(), 0700) != 0) give_up("make", path);
    return path;
}

class Maildir {
   public:
    explicit Maildir(const std::string& below) : path_(fresh_folder(below)) {
        for (const char* part : {"/tmp", "/new", "/cur"})
            if (::mkdir((path_ + part).c_str(), 0700) != 0) give_up("make", path_ + part);
    }
    // Create in tmp, write, fsync, rename to new. Any number of threads at a time.
    void deliver(const std::string& text) {
        const std::string name = fmt::format("{}.M{}.host", count_.fetch_add(1), ::getpid());
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
    std::atomic<std::uint64_t> count_{0};
};

}  // namespace twinspool::bench
