// SPDX-License-Identifier: Apache-2.0
// What the journal's tests share: a fresh folder, options for a small journal, and the vocabulary
// of damage.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "journal/format/frame.h"
#include "journal/log/cursor.h"
#include "journal/log/journal.h"
#include "journal/log/recovery.h"
#include "journal/log/segment.h"

namespace twinspool::test {

class FreshFolder {
   public:
    FreshFolder() {
        std::string pattern = "/var/tmp/twinspool-test-XXXXXX";
        path_ = ::mkdtemp(pattern.data());
    }
    ~FreshFolder() {
        std::error_code code;
        std::filesystem::remove_all(path_, code);
    }
    FreshFolder(const FreshFolder&) = delete;
    FreshFolder& operator=(const FreshFolder&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }

   private:
    std::string path_;
};

inline constexpr std::uint64_t kVolume = 0x1122334455667788;

class JournalTest : public testing::Test {
   protected:
    void SetUp() override {
        options.directory = folder.path() + "/journal";
        options.tail_path =
            "/dev/shm/twinspool-test-" + folder.path().substr(folder.path().rfind('-') + 1);
        options.volume = kVolume;
        options.segment_bytes = std::uint64_t{4} << 20;
        options.standby_count = 0;
    }
    void TearDown() override { ::unlink(options.tail_path.c_str()); }

    std::unique_ptr<Journal> open() {
        auto journal = Journal::open(options);
        EXPECT_TRUE(journal.ok()) << journal.error().text();
        return journal.ok() ? std::move(journal).value() : nullptr;
    }
    template <typename T>
    static Lsn append(Journal& journal, const T& op) {
        EXPECT_TRUE(journal.take_credit(encoded_size(op)));
        return journal.append(op);
    }
    std::vector<std::string> described(Lsn from, Lsn upto) {
        std::vector<std::string> lines;
        auto cursor = Cursor::open(options.directory, kVolume, from);
        EXPECT_TRUE(cursor.ok()) << cursor.error().text();
        for (;;) {
            auto frame = cursor->next(upto);
            EXPECT_TRUE(frame.ok()) << frame.error().text();
            if (!frame.ok() || !frame.value()) return lines;
            EXPECT_TRUE(frame.value()
                            ->for_each([&](const Record& record) -> Status {
                                if (record.lsn >= from) lines.push_back(describe(record));
                                return {};
                            })
                            .ok());
        }
    }
    std::string newest_segment() { return list_segments(options.directory).value().back().path; }

    FreshFolder folder;
    JournalOptions options;
};

inline void flip(const std::string& path, std::uint64_t offset) {
    std::fstream file{path, std::ios::in | std::ios::out | std::ios::binary};
    file.seekg(static_cast<std::streamoff>(offset));
    const auto byte = static_cast<char>(file.get() ^ 0x40);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
}

inline void truncate(const std::string& path, std::uint64_t size) {
    ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(size)), 0);
}

}  // namespace twinspool::test
