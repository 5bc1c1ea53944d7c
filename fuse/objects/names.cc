// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/names.h"

#include <algorithm>
#include <functional>

namespace twinspool {

std::uint64_t KnownNames::key_of(Name name) {
    return std::hash<std::string_view>{}(name.name) ^ (raw(name.parent) * 0x9E3779B97F4A7C15ULL);
}

std::size_t KnownNames::shard_of(ObjectId object) {
    return (raw(object) * 0x9E3779B97F4A7C15ULL) >> 60;
}

void KnownNames::insert(ObjectId object, Name name) {
    Shard& shard = shards_[shard_of(object)];
    const std::lock_guard lock{shard.mutex};
    Keys& keys = shard.keys[raw(object)];
    const std::uint64_t key = key_of(name);
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
}

void KnownNames::erase(ObjectId object, Name name) {
    Shard& shard = shards_[shard_of(object)];
    const std::lock_guard lock{shard.mutex};
    const auto at = shard.keys.find(raw(object));
    if (at == shard.keys.end()) return;
    std::erase(at->second, key_of(name));
    if (at->second.empty()) shard.keys.erase(at);
}

bool KnownNames::contains(ObjectId object, Name name) const {
    const Shard& shard = shards_[shard_of(object)];
    const std::lock_guard lock{shard.mutex};
    const auto at = shard.keys.find(raw(object));
    if (at == shard.keys.end()) return false;
    return std::find(at->second.begin(), at->second.end(), key_of(name)) != at->second.end();
}

bool KnownNames::contains_other(ObjectId object, Name name) const {
    const Shard& shard = shards_[shard_of(object)];
    const std::lock_guard lock{shard.mutex};
    const auto at = shard.keys.find(raw(object));
    if (at == shard.keys.end()) return false;
    const std::uint64_t key = key_of(name);
    return std::any_of(at->second.begin(), at->second.end(),
                       [key](std::uint64_t each) { return each != key; });
}

void KnownNames::clear() {
    for (Shard& shard : shards_) {
        const std::lock_guard lock{shard.mutex};
        shard.keys.clear();
    }
}

}  // namespace twinspool
