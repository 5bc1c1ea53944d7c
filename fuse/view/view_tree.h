// SPDX-License-Identifier: Apache-2.0
// ViewTree: what a view shows: the objects of an image under their own ids, and above them the
// directories that lead to the volume's by their full paths, which are in no image. Nothing of it
// ever changes, so whatever was answered once stays true.
//
// Threads: any number. Errors are those of the image; ESTALE: there is no such object.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "journal/delta/image.h"

namespace twinspool {

class ViewTree {
   public:
    using Listing = std::shared_ptr<const std::vector<ImageEntry>>;

    // The image must outlive it. EINVAL: one directory of the volume is within another.
    static Result<std::unique_ptr<ViewTree>> make(Image& image);

    // kNoObject: there is no such name.
    Result<ObjectId> find(ObjectId directory, std::string_view name);
    Result<struct stat> attributes(ObjectId object);
    // As in the image, which is asked once for those who read it piece by piece: it is kept until
    // finish_listing(), or until many others were asked for.
    Result<Listing> list(ObjectId directory);
    void finish_listing(ObjectId directory);

    Result<std::size_t> read(ObjectId file, std::uint64_t offset, std::span<std::byte> into);
    enum class Seek : std::uint8_t { kData, kHole };
    // As lseek(2): ENXIO at the end, or where nothing but a hole follows.
    Result<std::uint64_t> seek(ObjectId file, std::uint64_t offset, Seek what);
    Result<std::string> target(ObjectId symlink);
    Result<std::map<std::string, std::string>> xattrs(ObjectId object);

    // Whether it is a directory above the volume's.
    [[nodiscard]] bool is_above(ObjectId object) const;

   private:
    struct Above {
        ObjectId id{};
        std::vector<ImageEntry> entries;  // sorted by name
        FileTime mtime;                   // the newest of what it leads to
    };

    explicit ViewTree(Image& image) : image_(image) {}
    Status add_root(const ImageRoot& root);
    Result<std::size_t> enter(std::size_t above, std::string_view name);
    Status add_entry(Above& above, ImageEntry entry);
    [[nodiscard]] const Above& above(ObjectId object) const;
    Result<std::uint64_t> data_bytes(ObjectId file, std::uint64_t size);

    static constexpr std::size_t kListings = 16;

    Image& image_;
    std::vector<Above> above_;                           // the first is the root of the view
    std::mutex mutex_;                                   // protects listings_
    std::deque<std::pair<ObjectId, Listing>> listings_;  // oldest first
};

}  // namespace twinspool
