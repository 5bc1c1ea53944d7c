// SPDX-License-Identifier: Apache-2.0
#include "fuse/objects/open_directories.h"

#include <algorithm>
#include <random>

namespace twinspool {

// The first handle at random, so that one of an earlier process is hardly ever one of ours.
OpenDirectories::OpenDirectories(std::size_t most_bytes) : most_bytes_(most_bytes) {
    std::random_device random;
    last_ = (std::uint64_t{random()} << 32) | random();
}

std::shared_ptr<OpenDirectory> OpenDirectories::insert(std::uint64_t handle,
                                                       std::uint64_t instance) {
    auto open = std::make_shared<OpenDirectory>();
    handles_.insert_or_assign(handle, Handle{.instance = instance, .open = open});
    Here& here = directories_.try_emplace(instance, Here{.idle = idle_.end()}).first->second;
    end_idle(here);
    here.handles.insert(handle);
    return open;
}

void OpenDirectories::end_idle(Here& here) {
    if (here.idle == idle_.end()) return;
    idle_bytes_ -= here.newest->memory_bytes();
    idle_.erase(here.idle);
    here.idle = idle_.end();
}

void OpenDirectories::erase(std::uint64_t instance, Moments& gone) {
    const auto here = directories_.find(instance);
    end_idle(here->second);
    gone.push_back(std::move(here->second.newest));
    directories_.erase(here);
}

void OpenDirectories::make_idle(std::uint64_t instance, Moments& gone) {
    Here& here = directories_.find(instance)->second;
    if (!here.newest) return erase(instance, gone);
    here.idle = idle_.insert(idle_.end(), instance);
    idle_bytes_ += here.newest->memory_bytes();
    while (idle_.size() > kMostIdle || idle_bytes_ > kMostIdleBytes) erase(idle_.front(), gone);
}

std::uint64_t OpenDirectories::open(std::uint64_t instance) {
    const std::lock_guard lock{mutex_};
    insert(++last_, instance);
    return last_;
}

void OpenDirectories::close(std::uint64_t handle) {
    std::shared_ptr<OpenDirectory> closed;
    Moments gone;
    const std::lock_guard lock{mutex_};
    const auto known = handles_.find(handle);
    if (known == handles_.end()) return;
    const std::uint64_t instance = known->second.instance;
    closed = std::move(known->second.open);
    handles_.erase(known);
    auto& handles = directories_.find(instance)->second.handles;
    handles.erase(handle);
    if (handles.empty()) make_idle(instance, gone);
}

std::shared_ptr<OpenDirectory> OpenDirectories::find(std::uint64_t handle, std::uint64_t instance) {
    const std::lock_guard lock{mutex_};
    const auto known = handles_.find(handle);
    const bool ours = known != handles_.end() && known->second.instance == instance;
    auto open = ours ? known->second.open : insert(handle, instance);
    open->last_used = ++uses_;
    return open;
}

void OpenDirectories::forget(std::uint64_t instance) {
    std::vector<std::shared_ptr<OpenDirectory>> closed;
    Moments gone;
    const std::lock_guard lock{mutex_};
    const auto here = directories_.find(instance);
    if (here == directories_.end()) return;
    for (const std::uint64_t handle : here->second.handles) {
        const auto known = handles_.find(handle);
        closed.push_back(std::move(known->second.open));
        handles_.erase(known);
    }
    erase(instance, gone);
}

std::shared_ptr<const DirectoryMoment> OpenDirectories::newest(std::uint64_t instance) {
    const std::lock_guard lock{mutex_};
    const auto here = directories_.find(instance);
    return here == directories_.end() ? nullptr : here->second.newest;
}

void OpenDirectories::remember(std::uint64_t instance,
                               std::shared_ptr<const DirectoryMoment> moment) {
    const std::lock_guard lock{mutex_};
    const auto here = directories_.find(instance);
    // Idle ones stay as they are: their bytes have been counted.
    if (here != directories_.end() && here->second.idle == idle_.end())
        here->second.newest.swap(moment);
}

bool OpenDirectories::take_moment_of_least_used(const OpenDirectory& mine, Readers& gone,
                                                Moments& newest) {
    std::vector<const Handle*> candidates;
    for (const auto& [number, handle] : handles_)
        if (handle.open->last_used != 0 && handle.open.get() != &mine)
            candidates.push_back(&handle);
    std::sort(candidates.begin(), candidates.end(), [](const Handle* one, const Handle* other) {
        return one->open->last_used < other->open->last_used;
    });
    for (const Handle* each : candidates) {
        const std::unique_lock lock{each->open->mutex, std::try_to_lock};
        if (!lock.owns_lock()) continue;  // it is being read
        each->open->last_used = 0;
        for (auto* reader : {&each->open->reader, &each->open->elsewhere}) {
            if (*reader) gone.push_back(std::move(**reader));
            reader->reset();
        }
        newest.push_back(std::move(directories_.find(each->instance)->second.newest));
        return true;
    }
    return false;
}

void OpenDirectories::make_room(const OpenDirectory& mine) {
    while (used_bytes_ > most_bytes_) {
        Readers readers;
        Moments moments;
        const std::lock_guard lock{mutex_};
        if (!idle_.empty())
            erase(idle_.front(), moments);
        else if (!take_moment_of_least_used(mine, readers, moments))
            return;
    }
}

std::size_t OpenDirectories::size() const {
    const std::lock_guard lock{mutex_};
    return handles_.size();
}

}  // namespace twinspool
