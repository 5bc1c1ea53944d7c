// SPDX-License-Identifier: Apache-2.0
#include "fuse/open_directories.h"

#include <random>

namespace twinspool {

// At random, so that a handle of an earlier process is hardly ever one of ours.
OpenDirectories::OpenDirectories() {
    std::random_device random;
    last_ = (std::uint64_t{random()} << 32) | random();
}

std::shared_ptr<OpenDirectory> OpenDirectories::insert(std::uint64_t handle, ObjectId directory) {
    auto open = std::make_shared<OpenDirectory>();
    handles_.emplace(handle, Handle{.directory = directory, .open = open});
    Here& here = directories_.try_emplace(raw(directory), Here{.idle = idle_.end()}).first->second;
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

void OpenDirectories::erase(std::uint64_t directory, Moments& gone) {
    const auto here = directories_.find(directory);
    end_idle(here->second);
    gone.push_back(std::move(here->second.newest));
    directories_.erase(here);
}

void OpenDirectories::make_idle(std::uint64_t directory, Moments& gone) {
    Here& here = directories_.find(directory)->second;
    if (!here.newest || !here.newest->in_memory()) return erase(directory, gone);
    here.idle = idle_.insert(idle_.end(), directory);
    idle_bytes_ += here.newest->memory_bytes();
    while (idle_.size() > kMostIdle || idle_bytes_ > kMostIdleBytes) erase(idle_.front(), gone);
}

std::uint64_t OpenDirectories::open(ObjectId directory) {
    const std::lock_guard lock{mutex_};
    insert(++last_, directory);
    return last_;
}

void OpenDirectories::close(std::uint64_t handle) {
    std::shared_ptr<OpenDirectory> closed;
    Moments gone;
    const std::lock_guard lock{mutex_};
    const auto known = handles_.find(handle);
    if (known == handles_.end()) return;
    const std::uint64_t directory = raw(known->second.directory);
    closed = std::move(known->second.open);
    handles_.erase(known);
    auto& handles = directories_.find(directory)->second.handles;
    handles.erase(handle);
    if (handles.empty()) make_idle(directory, gone);
}

std::shared_ptr<OpenDirectory> OpenDirectories::find(std::uint64_t handle, ObjectId directory) {
    const std::lock_guard lock{mutex_};
    const auto known = handles_.find(handle);
    return known == handles_.end() ? insert(handle, directory) : known->second.open;
}

void OpenDirectories::forget(ObjectId directory) {
    std::vector<std::shared_ptr<OpenDirectory>> closed;
    Moments gone;
    const std::lock_guard lock{mutex_};
    const auto here = directories_.find(raw(directory));
    if (here == directories_.end()) return;
    for (const std::uint64_t handle : here->second.handles) {
        const auto known = handles_.find(handle);
        closed.push_back(std::move(known->second.open));
        handles_.erase(known);
    }
    erase(raw(directory), gone);
}

std::shared_ptr<const DirectoryMoment> OpenDirectories::newest(ObjectId directory) {
    const std::lock_guard lock{mutex_};
    const auto here = directories_.find(raw(directory));
    return here == directories_.end() ? nullptr : here->second.newest;
}

void OpenDirectories::remember(ObjectId directory, std::shared_ptr<const DirectoryMoment> moment) {
    const std::lock_guard lock{mutex_};
    const auto here = directories_.find(raw(directory));
    // Idle ones stay as they are: their bytes have been counted.
    if (here != directories_.end() && here->second.idle == idle_.end())
        here->second.newest.swap(moment);
}

std::size_t OpenDirectories::size() const {
    const std::lock_guard lock{mutex_};
    return handles_.size();
}

}  // namespace twinspool
