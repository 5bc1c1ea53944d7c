// SPDX-License-Identifier: Apache-2.0
#include "replicator/past/path_log.h"

#include <sys/stat.h>

#include <utility>

#include "replicator/past/image_diff.h"
#include "replicator/past/image_path.h"

namespace twinspool {

// Where the object stands now in the directory of the path; empty: nowhere there.
Result<std::string> PathLog::new_name(Image& image, ObjectId object) const {
    const std::string none;
    TS_ASSIGN(const auto directory,
              find_part(image, std::string_view{path_}.substr(0, path_.rfind('/'))));
    if (!directory) return none;
    TS_ASSIGN(const auto attributes, image.attributes(directory->object));
    if (!S_ISDIR(attributes.mode)) return none;
    TS_ASSIGN(const auto entries, image.list(directory->object));
    const auto own = path_.substr(path_.rfind('/') + 1);
    for (const auto& entry : entries)
        if (entry.object == object && entry.name != own) return entry.name;
    return none;
}

Result<std::optional<PathEvent>> PathLog::event(Image& image, ObjectId object) {
    using Kind = PathEvent::Kind;
    if (object_ == kNoObject && object == kNoObject) return std::optional<PathEvent>{};
    PathEvent event;
    if (object == kNoObject) {
        TS_ASSIGN(event.to, new_name(image, object_));
        TS_ASSIGN(event.attributes, before_->attributes(object_));
        event.kind = event.to.empty() ? Kind::kRemoved : Kind::kRenamed;
        return std::optional{event};
    }
    TS_ASSIGN(event.attributes, image.attributes(object));
    event.kind = Kind::kCreated;
    if (object_ == kNoObject) return std::optional{event};
    TS_ASSIGN(const auto before, before_->attributes(object_));
    event.kind = Kind::kChanged;
    if ((before.mode & S_IFMT) != (event.attributes.mode & S_IFMT)) return std::optional{event};
    if (object == object_) {
        TS_ASSIGN(const auto old_version, before_->version(object));
        TS_ASSIGN(const auto new_version, image.version(object));
        if (old_version == new_version) return std::optional<PathEvent>{};
    }
    TS_ASSIGN(const auto difference, difference_of(*before_, object_, image, object, done_));
    event.bytes = difference.bytes;
    if (object != object_) {
        // Something else stands here; where is what stood here before?
        TS_ASSIGN(event.to, new_name(image, object_));
        if (!event.to.empty()) event.kind = Kind::kRenamed;
    }
    if (!difference.any() && event.to.empty()) return std::optional<PathEvent>{};
    return std::optional{event};
}

Result<std::optional<PathEvent>> PathLog::next(std::unique_ptr<Image> image) {
    TS_ASSIGN(const auto part, find_part(*image, path_));
    const ObjectId object = part ? part->object : kNoObject;
    TS_ASSIGN(auto found, event(*image, object));
    before_ = std::move(image);
    object_ = object;
    return found;
}

}  // namespace twinspool
