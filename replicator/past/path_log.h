// SPDX-License-Identifier: Apache-2.0
// PathLog: what stood at one path in one snapshot after the other. Given the images, the oldest
// first, it says of each whether, and how, that differs from the one before. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "journal/base/result.h"
#include "journal/delta/image.h"
#include "replicator/store/content.h"

namespace twinspool {

struct PathEvent {
    enum class Kind : std::uint8_t { kCreated, kChanged, kRemoved, kRenamed };
    Kind kind{};
    ImageAttributes attributes;  // as it is then; of what is gone: as it was
    std::string to;              // renamed: its name now, in the same directory
    std::uint64_t bytes = 0;     // changed: how many differ
};

class PathLog {
   public:
    explicit PathLog(std::string path, ChunkDone done)
        : path_(std::move(path)), done_(std::move(done)) {}
    // Nothing: it is as in the image before (or was not there then either). The image is kept until
    // the next one.
    Result<std::optional<PathEvent>> next(std::unique_ptr<Image> image);

   private:
    Result<std::optional<PathEvent>> event(Image& image, ObjectId object);
    Result<std::string> new_name(Image& image, ObjectId object) const;

    std::string path_;
    ChunkDone done_;
    std::unique_ptr<Image> before_;
    ObjectId object_ = kNoObject;
};

}  // namespace twinspool
