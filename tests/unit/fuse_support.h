// SPDX-License-Identifier: Apache-2.0
// What the overlay's tests share: a volume over one real directory and a real journal, without a
// mount; its verbs are called as the handlers call them. Needs root (trusted xattrs, file handles);
// skipped otherwise.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "fuse/objects/orphans.h"
#include "fuse/objects/volume.h"
#include "fuse/serve/mutation.h"
#include "fuse/serve/reading.h"
#include "fuse/tell/finder.h"
#include "fuse/tell/reconcile.h"
#include "fuse/tell/walker.h"
#include "journal/base/clock.h"
#include "tests/unit/journal_support.h"

namespace twinspool::test {

using Words = std::vector<std::string>;

class FuseTest : public JournalTest {
   protected:
    static constexpr std::uint32_t kGeneration = 5000;

    void SetUp() override {
        if (::geteuid() != 0) GTEST_SKIP() << "needs root";
        JournalTest::SetUp();
        tree = folder.path() + "/tree";
        ASSERT_EQ(::mkdir(tree.c_str(), 0755), 0);
        start({});
    }
    void TearDown() override {
        stop();
        JournalTest::TearDown();
    }

    struct Start {
        std::uint32_t generation = kGeneration;
        Volume::Suspicion suspicion = Volume::Suspicion::kNone;
        Descriptors::Limits limits{};
    };
    void start(const Start& how) {
        journal = open();
        ASSERT_TRUE(journal);
        volume = std::make_unique<Volume>(*journal, how.limits);
        volume->generation = how.generation;
        volume->suspicion = how.suspicion;
        volume->unchanged_before = raw(journal->predecessor().unchanged_before);
        volume->reign_began = raw(file_clock());
        backing = Fd{::open(tree.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
        Directory& directory = volume->directories.emplace_back();
        directory.path = "/srv/tree";
        directory.backing_fd = backing.get();
        struct statx now {};
        ASSERT_EQ(stat_object(backing.get(), now), 0);
        directory.device_major = now.stx_dev_major;
        directory.device_minor = now.stx_dev_minor;
        directory.mount = now.stx_mnt_id;
        auto root = identify_object(*volume, 0, backing.get(), now);
        ASSERT_TRUE(root.ok());
        directory.root = std::move(*root);
        Turn turn{*journal, Turn::Waiting::kAllowed};
        ASSERT_TRUE(ensure_directory_told(*volume, turn, *directory.root).is_done());
        seen = journal->appended();
    }
    // A clean end. Nothing before it counts as changed underneath.
    void stop() {
        if (!volume) return;
        walker.reset();
        volume->directories.clear();
        volume.reset();
        EXPECT_TRUE(journal->close({.clean = true}).ok());
        journal.reset();
    }
    void restart(const Start& how) {
        stop();
        start(how);
    }

    [[nodiscard]] ObjectId root() const { return volume->directories.front().root->id; }
    [[nodiscard]] std::string path(const std::string& name) const { return tree + "/" + name; }
    void put(const std::string& name, const std::string& content) const {
        std::ofstream{path(name)} << content;
    }

    // The operations logged since the last call.
    Words logged() {
        Words words;
        for (const std::string& line : logged_lines()) {
            std::istringstream parts{line};
            std::string lsn;
            std::string word;
            parts >> lsn >> word;
            words.push_back(word);
        }
        return words;
    }
    std::vector<std::string> logged_lines() {
        const Lsn upto = journal->appended();
        EXPECT_TRUE(journal->make_durable(upto).ok());
        const Lsn from = seen + 1;
        seen = upto;
        return from > upto ? std::vector<std::string>{} : described(from, upto);
    }

    // Verbs, as somebody who may wait.
    template <typename Verb, typename... Args>
    Answered call(Verb verb, Args... args) {
        std::vector<char> buffer(1 << 20);
        Turn turn{*journal, Turn::Waiting::kAllowed};
        return verb(*volume, turn, Request{.buffer = buffer.data(), .buffer_size = buffer.size()},
                    args...);
    }
    ObjectId create(const std::string& name, ObjectId parent, mode_t mode = S_IFREG | 0644) {
        const Answered made = call(make_object, parent, name.c_str(), NewObject{.mode = mode});
        EXPECT_TRUE(made.ok()) << made.error().code;
        return keep(made);
    }
    ObjectId create(const std::string& name) { return create(name, root()); }
    ObjectId look(const std::string& name) {
        const Answered found = call(look_up, root(), name.c_str());
        EXPECT_TRUE(found.ok());
        return keep(found);
    }
    // The kernel knows it from here on.
    ObjectId keep(const Answered& answered) {
        const auto* entry =
            answered.ok() ? std::get_if<Answer::Entry>(&answered.value().kind) : nullptr;
        if (entry == nullptr) return kNoObject;
        volume->inodes.remember(*entry->inode);
        return entry->inode->id;
    }
    int error_of(const Answered& answered) { return answered.ok() ? 0 : answered.error().code; }
    Answered write(ObjectId object, const std::string& text, off_t offset = 0) {
        return call(write_data, object, Bytes{std::as_bytes(std::span{text})}, offset,
                    Privileges::kKeep, Written::kByCall);
    }
    Answered unlink(const std::string& name) {
        return call(remove_name, root(), name.c_str(), Removed::kName);
    }
    Answered rename(const std::string& from, const std::string& to, unsigned flags = 0) {
        return call(rename_entry, root(), from.c_str(), root(), to.c_str(), flags);
    }
    std::optional<Identity> identity(const std::string& name) {
        const Fd fd{::open(path(name).c_str(), O_PATH | O_NOFOLLOW)};
        const auto handle = handle_of(fd.get());
        if (!handle.ok()) return std::nullopt;
        const auto found = read_identity(fd.get(), handle.value());
        return found.ok() ? found.value() : std::nullopt;
    }

    void walk(Walker::Round round) {
        if (!walker) walker = std::make_unique<Walker>(*volume, Walker::Options{});
        volume->walk = walker.get();
        walker->begin(round);
        for (int i = 0; i < 2000 && walker->progress().running; ++i) ::usleep(5000);
        ASSERT_TRUE(walker->progress().complete);
    }

    std::string tree;
    Fd backing;
    std::unique_ptr<Journal> journal;
    std::unique_ptr<Volume> volume;
    std::unique_ptr<Walker> walker;
    Lsn seen;
};

}  // namespace twinspool::test
