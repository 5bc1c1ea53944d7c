// SPDX-License-Identifier: Apache-2.0
// Note: what a worker is about to do, written before it acts into the tail (journal/log/tail.h),
// cleared after the outcome is logged. After a kill the next start looks at everything that the
// notes of the dead process name, and logs how it stands now. So a note need not say what was to be
// done, only whom it touches: up to two entries, up to three objects, one range of one object's
// content. One slot belongs to one thread at a time; nobody else reads it before the process is
// dead.
#pragma once

#include <atomic>
#include <cstring>
#include <string_view>

#include "journal/base/handle.h"
#include "journal/base/units.h"

namespace twinspool {

struct NotedObject {
    ObjectId object{};
    FileHandle handle;            // empty: not known before acting (a new object)
    std::uint32_t directory = 0;  // which of the volume's directories it is in
    std::uint32_t reserved = 0;
};

struct NotedEntry {
    NotedObject parent;
    ObjectId object{};  // what is to stand there, if that is a new object (kNoObject otherwise)
    std::uint32_t name_size = 0;
    char name_bytes[260] = {};
    void set_name(std::string_view name) {
        name_size = static_cast<std::uint32_t>(name.size());
        std::memcpy(name_bytes, name.data(), name.size());
    }
    [[nodiscard]] std::string_view name() const { return {name_bytes, name_size}; }
};

inline constexpr int kMaxNotedEntries = 2;
inline constexpr int kMaxNotedObjects = 3;

struct Note {
    Note() = default;
    // A copy is taken of a dead process's note: plain bytes.
    Note(const Note& other) { *this = other; }
    Note& operator=(const Note& other) {
        if (this != &other)
            std::memcpy(static_cast<void*>(this), static_cast<const void*>(&other), sizeof *this);
        return *this;
    }
    std::atomic<std::uint32_t> active{0};
    std::uint32_t entry_count = 0;
    std::uint32_t object_count = 0;
    std::uint32_t has_range = 0;  // of objects[0]
    std::uint64_t range_offset = 0;
    std::uint64_t range_length = 0;  // UINT64_MAX: to the end of the file
    NotedEntry entries[kMaxNotedEntries];
    NotedObject objects[kMaxNotedObjects];
};
static_assert(sizeof(Note) <= 1024);

}  // namespace twinspool
