// SPDX-License-Identifier: Apache-2.0
// Comparison: an image against the picture that the model made of itself at that moment.
#pragma once

#include <map>
#include <string>

#include "journal/delta/image.h"
#include "replicator_model.h"

namespace twinspool::test {

// What of an image differs from the picture of its moment; empty: nothing.
class Comparison {
   public:
    Comparison(Image& image, const Model::Picture& picture) : image_(image), picture_(picture) {}

    std::string run() {
        std::map<std::string, ObjectId> roots;
        for (const ImageRoot& root : image_.roots()) roots[root.path] = root.object;
        if (roots != picture_.roots) return "other roots\n";
        for (const auto& [path, id] : roots) compare(path, id);
        return difference_;
    }

   private:
    template <typename T>
    bool got(const Result<T>& result, const std::string& path, const char* what) {
        if (!result.ok())
            difference_ += fmt::format("{}: {}: {}\n", path, what, result.error().text());
        return result.ok();
    }

    void compare(const std::string& path, ObjectId id) {
        const Node& want = picture_.nodes.at(id);
        const auto its = image_.attributes(id);
        if (!got(its, path, "attributes")) return;
        const auto& wanted = want.attributes;
        if (its->mode != wanted.mode || its->uid != wanted.uid || its->gid != wanted.gid ||
            its->mtime != wanted.mtime || its->device != want.device)
            difference_ +=
                fmt::format("{}: attributes, mode {:o} not {:o}, mtime {} not {}\n", path,
                            its->mode, wanted.mode, its->mtime.seconds, wanted.mtime.seconds);
        if (!want.is(S_IFDIR) && its->links != want.names)
            difference_ += fmt::format("{}: {} names, not {}\n", path, its->links, want.names);
        const auto xattrs = image_.xattrs(id);
        if (got(xattrs, path, "xattrs") && *xattrs != want.xattrs)
            difference_ += path + ": xattrs\n";
        if (want.is(S_IFLNK)) {
            const auto target = image_.target(id);
            if (got(target, path, "target") && *target != want.target)
                difference_ += path + ": target\n";
        }
        if (want.is(S_IFREG)) compare_content(path, id, want, its->size);
        if (want.is(S_IFDIR)) compare_entries(path, id, want);
    }

    void compare_content(const std::string& path, ObjectId id, const Node& want,
                         std::uint64_t size) {
        if (size != want.content.size()) {
            difference_ += fmt::format("{}: size {} not {}\n", path, size, want.content.size());
            return;
        }
        std::string content(size + 10, 'x');
        const auto read = image_.read(id, 0, std::as_writable_bytes(std::span{content}));
        if (!got(read, path, "read")) return;
        content.resize(*read);
        if (content != want.content) difference_ += path + ": content\n";
        // Only zeros are outside of what is said to be data.
        std::string data(size, '\0');
        for (std::uint64_t at = 0;;) {
            const auto range = image_.next_data(id, at);
            if (!got(range, path, "data") || !*range) break;
            const auto [offset, length] = **range;
            if (offset < at || offset + length > size || length == 0) {
                difference_ += path + ": a range beyond the file\n";
                break;
            }
            data.replace(offset, length, content.substr(offset, length));
            at = offset + length;
        }
        if (data != content) difference_ += path + ": data in a hole\n";
    }

    void compare_entries(const std::string& path, ObjectId id, const Node& want) {
        const auto list = image_.list(id);
        if (!got(list, path, "list")) return;
        std::map<std::string, ObjectId> entries;
        for (const ImageEntry& each : *list) entries[each.name] = each.object;
        for (const auto& [name, object] : entries)
            if (!want.entries.contains(name)) difference_ += path + "/" + name + ": extra\n";
        for (const auto& [name, object] : want.entries) {
            const std::string child = path + "/" + name;
            if (!entries.contains(name) || entries[name] != object)
                difference_ += child + ": missing, or another object\n";
            else
                compare(child, object);
            const auto found = image_.find(id, name);
            if (got(found, child, "find") && *found != object) difference_ += child + ": find\n";
        }
    }

    Image& image_;
    const Model::Picture& picture_;
    std::string difference_;
};

}  // namespace twinspool::test
