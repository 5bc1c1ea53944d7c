// SPDX-License-Identifier: Apache-2.0
// A plain directory as an Image, for tests of what reads images: an object's id is its inode
// number, the one root is the directory itself, under the path that the test gives it.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "journal/base/fd.h"
#include "journal/delta/image.h"

namespace twinspool::test {

class PlainImage : public Image {
   public:
    PlainImage(std::string directory, std::string path) {
        const ObjectId root = know(std::move(directory));
        roots_.push_back({.path = std::move(path), .object = root});
    }

    [[nodiscard]] const std::vector<ImageRoot>& roots() const override { return roots_; }

    Result<ImageAttributes> attributes(ObjectId object) override {
        struct stat status {};
        if (::lstat(path(object).c_str(), &status) != 0) return last_error("look at an object");
        return ImageAttributes{
            .mode = status.st_mode,
            .uid = status.st_uid,
            .gid = status.st_gid,
            .mtime = {status.st_mtim.tv_sec, static_cast<std::uint32_t>(status.st_mtim.tv_nsec)},
            .size = static_cast<std::uint64_t>(status.st_size),
            .links = static_cast<std::uint32_t>(status.st_nlink),
            .device = status.st_rdev};
    }
    Result<ObjectId> find(ObjectId directory, std::string_view name) override {
        const std::string child = path(directory) + "/" + std::string{name};
        struct stat status {};
        if (::lstat(child.c_str(), &status) != 0) return kNoObject;
        return know(child);
    }
    Result<std::vector<ImageEntry>> list(ObjectId directory) override {
        std::vector<ImageEntry> entries;
        for (const auto& each : std::filesystem::directory_iterator{path(directory)})
            entries.push_back({.name = each.path().filename(), .object = know(each.path())});
        std::sort(entries.begin(), entries.end(),
                  [](const auto& a, const auto& b) { return a.name < b.name; });
        return entries;
    }
    Result<std::size_t> read(ObjectId file, std::uint64_t offset,
                             std::span<std::byte> into) override {
        const Fd fd{::open(path(file).c_str(), O_RDONLY | O_CLOEXEC)};
        const ssize_t got = ::pread(fd.get(), into.data(), into.size(), static_cast<off_t>(offset));
        if (got < 0) return last_error("read a file");
        return static_cast<std::size_t>(got);
    }
    Result<std::optional<ImageRange>> next_data(ObjectId file, std::uint64_t offset) override {
        const Fd fd{::open(path(file).c_str(), O_RDONLY | O_CLOEXEC)};
        const off_t data = ::lseek(fd.get(), static_cast<off_t>(offset), SEEK_DATA);
        if (data < 0) return std::optional<ImageRange>{};
        const off_t hole = ::lseek(fd.get(), data, SEEK_HOLE);
        return std::optional{ImageRange{.offset = static_cast<std::uint64_t>(data),
                                        .length = static_cast<std::uint64_t>(hole - data)}};
    }
    Result<std::string> target(ObjectId symlink) override {
        return std::filesystem::read_symlink(path(symlink)).string();
    }
    Result<std::map<std::string, std::string>> xattrs(ObjectId object) override {
        std::map<std::string, std::string> found;
        char names[4096];
        const std::string where = path(object);
        const ssize_t size = ::llistxattr(where.c_str(), names, sizeof names);
        for (ssize_t at = 0; at < size;) {
            const std::string name{names + at};
            at += static_cast<ssize_t>(name.size()) + 1;
            char value[4096];
            const ssize_t length = ::lgetxattr(where.c_str(), name.c_str(), value, sizeof value);
            if (length >= 0) found[name] = std::string(value, static_cast<std::size_t>(length));
        }
        return found;
    }
    Result<std::uint64_t> version(ObjectId object) override {
        struct stat status {};
        if (::lstat(path(object).c_str(), &status) != 0) return last_error("look at an object");
        return static_cast<std::uint64_t>(status.st_ctim.tv_sec) * 1'000'000'000 +
               static_cast<std::uint64_t>(status.st_ctim.tv_nsec);
    }

   private:
    ObjectId know(std::string where) {
        struct stat status {};
        TS_ASSERT(::lstat(where.c_str(), &status) == 0);
        const std::lock_guard lock{mutex_};
        paths_.emplace(ObjectId{status.st_ino}, std::move(where));
        return ObjectId{status.st_ino};
    }
    std::string path(ObjectId object) {
        const std::lock_guard lock{mutex_};
        return paths_.at(object);
    }

    std::vector<ImageRoot> roots_;
    std::mutex mutex_;  // protects paths_
    std::map<ObjectId, std::string> paths_;
};

}  // namespace twinspool::test
