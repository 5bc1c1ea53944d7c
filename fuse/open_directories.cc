// SPDX-License-Identifier: Apache-2.0
#include "fuse/open_directories.h"

#include <random>
#include <vector>

namespace twinspool {

// At random, so that a handle of an earlier process is hardly ever one of ours.
OpenDirectories::OpenDirectories() {
    std::random_device random;
    last_ = (std::uint64_t{random()} << 32) | random();
}

std::shared_ptr<OpenDirectory> OpenDirectories::insert(std::uint64_t handle, ObjectId directory) {
    auto open = std::make_shared<OpenDirectory>();
    handles_.emplace(handle, Handle{.directory = directory, .open = open});
    directories_[raw(directory)].handles.insert(handle);
    return open;
}

std::uint64_t OpenDirectories::open(ObjectId directory) {
    const std::lock_guard lock{mutex_};
    insert(++last_, directory);
    return last_;
}

void OpenDirectories::close(std::uint64_t handle) {
    std::shared_ptr<OpenDirectory> gone;  // what it holds is freed after the lock
    const std::lock_guard lock{mutex_};
    const auto known = handles_.find(handle);
    if (known == handles_.end()) return;
    const auto here = directories_.find(raw(known->second.directory));
    here->second.handles.erase(handle);
    if (here->second.handles.empty()) directories_.erase(here);
    gone = std::move(known->second.open);
    handles_.erase(known);
}

std::shared_ptr<OpenDirectory> OpenDirectories::find(std::uint64_t handle, ObjectId directory) {
    const std::lock_guard lock{mutex_};
    const auto known = handles_.find(handle);
    return known == handles_.end() ? insert(handle, directory) : known->second.open;
}

void OpenDirectories::forget(ObjectId directory) {
    std::vector<std::shared_ptr<OpenDirectory>> gone;
    const std::lock_guard lock{mutex_};
    const auto here = directories_.find(raw(directory));
    if (here == directories_.end()) return;
    for (const std::uint64_t handle : here->second.handles) {
        const auto known = handles_.find(handle);
        gone.push_back(std::move(known->second.open));
        handles_.erase(known);
    }
    directories_.erase(here);
}

std::shared_ptr<const DirectoryMoment> OpenDirectories::newest(ObjectId directory) {
    const std::lock_guard lock{mutex_};
    const auto here = directories_.find(raw(directory));
    return here == directories_.end() ? nullptr : here->second.newest.lock();
}

void OpenDirectories::remember(ObjectId directory,
                               const std::shared_ptr<const DirectoryMoment>& moment) {
    const std::lock_guard lock{mutex_};
    const auto here = directories_.find(raw(directory));
    if (here != directories_.end()) here->second.newest = moment;
}

std::size_t OpenDirectories::size() const {
    const std::lock_guard lock{mutex_};
    return handles_.size();
}

}  // namespace twinspool
