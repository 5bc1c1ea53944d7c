// SPDX-License-Identifier: Apache-2.0
// Content: the bytes of a regular file, in an image or on a disk; copied and compared 1 MiB at a
// time, so that memory does not depend on the file, with holes passed over. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "journal/base/result.h"
#include "journal/delta/image.h"

namespace twinspool {

inline constexpr std::size_t kContentChunk = std::size_t{1} << 20;

class Content {
   public:
    virtual ~Content() = default;
    [[nodiscard]] virtual std::uint64_t size() const = 0;
    // As pread(2): short at the end only.
    virtual Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> into) = 0;
    // As Image::next_data.
    virtual Result<std::optional<ImageRange>> next_data(std::uint64_t offset) = 0;
};

class ImageContent : public Content {
   public:
    ImageContent(Image& image, ObjectId file, std::uint64_t size)
        : image_(image), file_(file), size_(size) {}
    [[nodiscard]] std::uint64_t size() const override { return size_; }
    Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> into) override {
        return image_.read(file_, offset, into);
    }
    Result<std::optional<ImageRange>> next_data(std::uint64_t offset) override {
        return image_.next_data(file_, offset);
    }

   private:
    Image& image_;
    ObjectId file_;
    std::uint64_t size_;
};

// The descriptor is borrowed.
class FileContent : public Content {
   public:
    FileContent(int fd, std::uint64_t size) : fd_(fd), size_(size) {}
    [[nodiscard]] std::uint64_t size() const override { return size_; }
    Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> into) override;
    Result<std::optional<ImageRange>> next_data(std::uint64_t offset) override;

   private:
    int fd_;
    std::uint64_t size_;
};

// Called between two chunks with the bytes that are done since the last call; an error ends it.
using ChunkDone = std::function<Status(std::uint64_t bytes)>;

enum class CountWhat : std::uint8_t { kAll, kFirstOnly };

// How many bytes differ; what only one of them has counts too. kFirstOnly: 0 or more than 0.
Result<std::uint64_t> count_differing(Content& a, Content& b, CountWhat what,
                                      const ChunkDone& done);
// Into an empty file. Holes stay holes.
Status copy_content(Content& source, int target, const ChunkDone& done);

}  // namespace twinspool
