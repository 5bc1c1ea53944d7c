// SPDX-License-Identifier: Apache-2.0
// Request and Answer: what a verb gets from the kernel and gives back, without libfuse's types.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cstddef>
#include <cstdint>
#include <variant>

#include "fuse/kernel/process.h"
#include "fuse/objects/inodes.h"
#include "fuse/objects/turn.h"
#include "fuse/objects/volume.h"
#include "journal/base/units.h"

namespace twinspool {

struct Request {
    Caller caller;
    // Where a verb puts the bytes that it answers with.
    char* buffer = nullptr;
    std::size_t buffer_size = 0;
};

struct Answer {
    struct Nothing {};
    struct NoEntry {};  // and the kernel may remember that
    // Whether the kernel may keep the attributes. It takes those from an answer to a change without
    // asking whether something else has changed them since; a write-back may have.
    enum class Keep : std::uint8_t { kForever, kNot };
    struct Entry {
        InodeRef inode;
        struct statx attributes;
        Keep keep = Keep::kForever;
    };
    struct Object {
        ObjectId id{};
        struct statx attributes;
        bool orphaned = false;
        Keep keep = Keep::kForever;
    };
    struct Opened {
        std::uint64_t handle = 0;  // of a directory
    };
    struct Count {
        std::size_t count = 0;  // of bytes written
    };
    struct Data {
        const char* data = nullptr;
        std::size_t size = 0;
    };
    struct Size {
        std::size_t size = 0;  // of an xattr or a list of them
    };
    struct Offset {
        off_t offset = 0;
    };
    struct Space {
        struct statvfs space;
    };
    using Kind =
        std::variant<Nothing, NoEntry, Entry, Object, Count, Data, Size, Offset, Space, Opened>;
    template <typename T>
    Answer(T from) : kind(std::move(from)) {}
    Kind kind;
};

using Answered = Result<Answer>;

inline Answer nothing() { return Answer{Answer::Nothing{}}; }

}  // namespace twinspool
