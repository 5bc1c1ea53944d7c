// SPDX-License-Identifier: Apache-2.0
// ImageDiff: what happened to a volume between two of its images. Objects are followed by their
// ids, so a rename is seen as one, also of a directory, whose content is then compared where it is
// now. Content is only read where Image::version says that something differs.
// Memory: the changes, and the directories on the path. Errors name the path. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/result.h"
#include "journal/delta/image.h"
#include "replicator/store/content.h"

namespace twinspool {

struct ImageChange {
    enum class Kind : std::uint8_t { kCreated, kDeleted, kRenamed, kChanged };
    Kind kind{};
    std::string path;
    std::string from;         // of a renamed one: the path before
    std::uint32_t mode = 0;   // type and permissions: afterwards, or before it was deleted
    std::uint64_t bytes = 0;  // the size; of a changed or renamed one: how many bytes differ
    bool attributes = false;  // owner, mode, mtime, xattrs or target differ
    friend bool operator==(const ImageChange&, const ImageChange&) = default;
};

// How one object differs from another, or from itself in another image.
struct ObjectDifference {
    std::uint64_t bytes = 0;
    bool attributes = false;  // but for the mtime
    bool mtime = false;
    [[nodiscard]] bool any() const { return bytes != 0 || attributes || mtime; }
};

// Of two objects of one type.
Result<ObjectDifference> difference_of(Image& before, ObjectId a, Image& after, ObjectId b,
                                       const ChunkDone& done);

class ImageDiff {
   public:
    // `go_on` is called now and then with the path; an error ends it.
    using GoOn = std::function<Status(std::string_view path)>;
    ImageDiff(Image& before, Image& after, GoOn go_on);
    // Sorted by path, bytewise.
    Result<std::vector<ImageChange>> run();

   private:
    struct Sighting {
        std::string path;
        ObjectId object{};
    };
    // How the object came to be at its path: a directory that moved takes what is in it along.
    enum class Arrival : std::uint8_t { kNone, kRenamed };
    Status directories(ObjectId object, const std::string& before, const std::string& after);
    Status same_object(ObjectId object, const std::string& before, const std::string& after,
                       Arrival arrival);
    Status changed_object(ObjectId object, const std::string& before, const std::string& after,
                          Arrival arrival, const ImageAttributes& now);
    Status sort_out_gone();
    Status sort_out_come();
    Status expand(Image& image, const Sighting& directory, std::vector<Sighting>& into);
    Status pair_moved();
    Status add_created();
    Status add_deleted();

    Image& before_;
    Image& after_;
    GoOn go_on_;
    std::size_t depth_ = 0;
    std::vector<ImageChange> changes_;
    std::vector<Sighting> gone_;                               // names of `before` to look into
    std::vector<Sighting> come_;                               // and of `after`
    std::map<std::string, ObjectId> deleted_;                  // in no place of `after`
    std::map<std::string, ObjectId> created_;                  // in no place of `before`
    std::map<ObjectId, std::vector<std::string>> moved_from_;  // names that are gone
    std::map<ObjectId, std::vector<std::string>> moved_to_;    // names that have come
};

}  // namespace twinspool
