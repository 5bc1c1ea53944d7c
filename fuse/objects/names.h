// SPDX-License-Identifier: Apache-2.0
// KnownNames: while a walk goes on, the names of objects with several that the standbys surely
// have. When one of them goes, it must be known whether the standbys keep the object by another, or
// lose it, and with it a content that will not be told again just because a further name is found.
//
// It need not be complete: an object whose last known name goes is told again, by another round if
// need be. Threads: any. Locks: leaves. Empty when no walk goes on.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "journal/base/units.h"

namespace twinspool {

class KnownNames {
   public:
    struct Name {
        ObjectId parent;
        std::string_view name;
    };
    void insert(ObjectId object, Name name);
    void erase(ObjectId object, Name name);
    [[nodiscard]] bool contains(ObjectId object, Name name) const;
    // One that is not `name`.
    [[nodiscard]] bool contains_other(ObjectId object, Name name) const;
    void clear();

   private:
    using Keys = std::vector<std::uint64_t>;
    struct Shard {
        mutable std::mutex mutex;
        std::unordered_map<std::uint64_t, Keys> keys;
    };
    static std::uint64_t key_of(Name name);
    static std::size_t shard_of(ObjectId object);
    static constexpr std::size_t kShards = 16;
    std::array<Shard, kShards> shards_;
};

}  // namespace twinspool
