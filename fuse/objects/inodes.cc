// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/inodes.h"

namespace twinspool {

std::uint64_t Inodes::mix(std::uint64_t value) {
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdULL;
    value ^= value >> 33;
    value *= 0xc4ceb9fe1a85ec53ULL;
    return value ^ (value >> 33);
}

template <Inode* Inode::*Next, typename Hash>
void Inodes::grow(Shard& shard, Hash&& hash_of) {
    if (++shard.size <= shard.chains.size()) return;
    std::vector<Inode*> old(shard.chains.size() * 2);
    old.swap(shard.chains);
    for (Inode* each : old)
        while (each != nullptr) {
            Inode* const next = each->*Next;
            Inode*& head = chain(shard, hash_of(*each));
            each->*Next = head;
            head = each;
            each = next;
        }
}

Inodes::~Inodes() {
    for (Shard& shard : ids_)
        for (Inode* each : shard.chains)
            while (each != nullptr) {
                Inode* const next = each->next_by_id_;
                dropped_(*each);
                delete each;
                each = next;
            }
}

// One that is at zero is being taken apart and is not to be found any more.
bool Inodes::count_if_alive(Inode& inode) {
    std::uint64_t count = inode.count_.load(std::memory_order_relaxed);
    while (count != 0)
        if (inode.count_.compare_exchange_weak(count, count + 1)) return true;
    return false;
}

InodeRef Inodes::find(ObjectId id) {
    Shard& shard = this->shard(ids_, hash(id));
    const std::lock_guard lock{shard.mutex};
    for (Inode* each = chain(shard, hash(id)); each != nullptr; each = each->next_by_id_)
        if (each->id == id && count_if_alive(*each)) return {*this, each};
    return {};
}

InodeRef Inodes::find(std::uint32_t directory, std::uint64_t number) {
    const std::uint64_t hashed = hash(directory, number);
    Shard& shard = this->shard(numbers_, hashed);
    const std::lock_guard lock{shard.mutex};
    for (Inode* each = chain(shard, hashed); each != nullptr; each = each->next_by_number_)
        if (each->number == number && each->directory == directory && count_if_alive(*each))
            return {*this, each};
    return {};
}

InodeRef Inodes::insert(std::unique_ptr<Inode>& fresh) {
    const std::uint64_t by_id = hash(fresh->id);
    Inode* made = nullptr;
    {
        Shard& shard = this->shard(ids_, by_id);
        const std::lock_guard lock{shard.mutex};
        for (Inode* each = chain(shard, by_id); each != nullptr; each = each->next_by_id_)
            if (each->id == fresh->id && count_if_alive(*each)) return {*this, each};
        made = fresh.release();
        made->count_ = 1;
        grow<&Inode::next_by_id_>(shard, [](const Inode& each) { return hash(each.id); });
        Inode*& head = chain(shard, by_id);
        made->next_by_id_ = head;
        head = made;
    }
    const std::uint64_t by_number = hash(made->directory, made->number);
    Shard& shard = this->shard(numbers_, by_number);
    const std::lock_guard lock{shard.mutex};
    grow<&Inode::next_by_number_>(
        shard, [](const Inode& each) { return hash(each.directory, each.number); });
    Inode*& head = chain(shard, by_number);
    made->next_by_number_ = head;
    head = made;
    return {*this, made};
}

bool Inodes::remove_number(Inode& inode) {
    const std::uint64_t hashed = hash(inode.directory, inode.number);
    Shard& shard = this->shard(numbers_, hashed);
    const std::lock_guard lock{shard.mutex};
    for (Inode** at = &chain(shard, hashed); *at != nullptr; at = &(*at)->next_by_number_) {
        if (*at != &inode) continue;
        *at = inode.next_by_number_;
        --shard.size;
        return true;
    }
    return false;
}

void Inodes::unname(Inode& inode) {
    inode.unlinked = true;
    remove_number(inode);
}

void Inodes::forget(ObjectId id, std::uint64_t lookups) {
    const InodeRef known = find(id);
    if (known) release(*known, lookups);
}

void Inodes::release(Inode& inode, std::uint64_t count) {
    std::uint64_t now = inode.count_.load(std::memory_order_relaxed);
    while (now > count)
        if (inode.count_.compare_exchange_weak(now, now - count, std::memory_order_release)) return;
    {
        const std::uint64_t hashed = hash(inode.id);
        Shard& shard = this->shard(ids_, hashed);
        const std::lock_guard lock{shard.mutex};
        const std::uint64_t before = inode.count_.fetch_sub(count, std::memory_order_acq_rel);
        TS_ASSERT(before >= count);
        if (before != count) return;
        for (Inode** at = &chain(shard, hashed); *at != nullptr; at = &(*at)->next_by_id_) {
            if (*at != &inode) continue;
            *at = inode.next_by_id_;
            --shard.size;
            break;
        }
    }
    remove_number(inode);
    dropped_(inode);
    delete &inode;
}

std::size_t Inodes::size() const {
    std::size_t size = 0;
    for (const Shard& shard : ids_) {
        const std::lock_guard lock{shard.mutex};
        size += shard.size;
    }
    return size;
}

}  // namespace twinspool
