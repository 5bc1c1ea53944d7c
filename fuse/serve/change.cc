// SPDX-License-Identifier: Apache-2.0
#include "fuse/serve/change.h"

#include <array>

#include "journal/base/fault.h"

namespace twinspool {

Change::~Change() {
    note_.active.store(0, std::memory_order_release);
    std::array<ObjectId, ObjectLocks::kMost> changed{};
    std::size_t count = 0;
    if (acted_ && volume_.attribute_cache != nullptr)
        for (const Inode* each : locks_.objects()) changed[count++] = each->id;
    // The locks go before the gate: members are destroyed after this body, so by hand.
    locks_.unlock();
    if (inside_) volume_.gate.leave();
    for (const ObjectId each : std::span{changed.data(), count}) {
        if (outdates_ == Outdates::kWeNow) volume_.attribute_cache->outdate(each);
        if (outdates_ == Outdates::kWeLater) volume_.attribute_cache->outdate_later(each);
    }
}

Ending Change::begin(std::initializer_list<Inode*> objects) {
    if (volume_.journal.failure() != 0) return EROFS;
    volume_.gate.enter();
    inside_ = true;
    if (!locks_.lock(objects, turn_)) return Ending::busy();
    for (Inode* each : locks_.objects()) {
        volume_.touch(*each);
        each->changes.fetch_add(1, std::memory_order_relaxed);
        each->attributes_kept.store(false, std::memory_order_relaxed);
    }
    note_.entry_count = 0;
    note_.object_count = 0;
    note_.has_range = 0;
    note_.entries[0].name_size = 0;
    return Ending::done();
}

NotedObject Change::noted_object(const Inode& inode) {
    return {.object = inode.id, .handle = inode.handle, .directory = inode.directory};
}

Change& Change::note(const Inode& parent, std::string_view name, ObjectId fresh) {
    TS_ASSERT(note_.entry_count < kMaxNotedEntries &&
              name.size() <= sizeof(NotedEntry::name_bytes));
    NotedEntry& entry = note_.entries[note_.entry_count++];
    entry.parent = noted_object(parent);
    entry.object = fresh;
    entry.set_name(name);
    return *this;
}

Change& Change::note(const Inode& object) {
    TS_ASSERT(note_.object_count < kMaxNotedObjects);
    note_.objects[note_.object_count++] = noted_object(object);
    return *this;
}

Change& Change::note_xattr(std::string_view name) {
    TS_ASSERT(note_.entry_count == 0 && name.size() <= sizeof(NotedEntry::name_bytes));
    note_.entries[0].set_name(name);
    return *this;
}

Change& Change::note_range(std::uint64_t offset, std::uint64_t length) {
    note_.has_range = 1;
    note_.range_offset = offset;
    note_.range_length = length;
    return *this;
}

void Change::noted() {
    note_.active.store(1, std::memory_order_release);
    TS_FAULT(mutation_noted);
}

void Change::acted() {
    acted_ = true;
    TS_FAULT(mutation_acted);
}

void Change::logged() {
    TS_FAULT(mutation_logged);
    note_.active.store(0, std::memory_order_release);
}

}  // namespace twinspool
