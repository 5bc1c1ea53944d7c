// SPDX-License-Identifier: Apache-2.0
// Emptying a store. A marker stands in it from before the first removal until all is gone.
#include <fcntl.h>
#include <unistd.h>

#include <array>

#include "journal/delta/tree.h"

namespace twinspool {
namespace {

constexpr const char* kMarker = "resetting";
constexpr std::array kFolders{"staging", "parked", "tree"};

struct Emptying {
    dev_t device = 0;
    Status entry(const Tree& tree, int parent, const std::string& name) const {
        if (::unlinkat(parent, name.c_str(), 0) == 0 || errno == ENOENT) return {};
        if (errno != EISDIR && errno != EPERM) return last_error("remove \"{}\"", name);
        TS_TRY(content(tree, parent, name));
        if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0)
            return last_error("remove \"{}\"", name);
        return {};
    }
    Status content(const Tree& tree, int parent, const std::string& name) const {
        const Fd fd{
            ::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
        struct stat status {};
        if (!fd.valid() || ::fstat(fd.get(), &status) != 0) return last_error("open \"{}\"", name);
        if (status.st_dev != device)
            return make_error(EXDEV, "empty \"{}\", where another file system is mounted", name);
        TS_ASSIGN(const auto names, tree.list(fd.get()));
        for (const auto& child : names) TS_TRY(entry(tree, fd.get(), child));
        return {};
    }
};

Result<Fd> open_store(const std::string& store) {
    Fd fd{::open(store.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd.valid()) return last_error("open the store {}", store);
    return fd;
}

}  // namespace

Status reset_tree(const std::string& store, const std::vector<std::string>& others) {
    TS_ASSIGN(const Fd fd, open_store(store));
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return last_error("look at the store {}", store);
    const Fd marker{::openat(fd.get(), kMarker, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600)};
    if (!marker.valid() || ::fsync(fd.get()) != 0)
        return last_error("mark the store {} as being emptied", store);
    TS_ASSIGN(const auto tree, Tree::open(store, {}));
    const Emptying emptying{.device = status.st_dev};
    for (const char* folder : kFolders) TS_TRY(emptying.content(*tree, fd.get(), folder));
    for (const auto& other : others) {
        if (::faccessat(fd.get(), other.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0) continue;
        TS_TRY(emptying.entry(*tree, fd.get(), other));
    }
    if (::syncfs(fd.get()) != 0) return last_error("sync the store {}", store);
    if (::unlinkat(fd.get(), kMarker, 0) != 0 || ::fsync(fd.get()) != 0)
        return last_error("mark the store {} as empty", store);
    return {};
}

Result<bool> reset_interrupted(const std::string& store) {
    TS_ASSIGN(const Fd fd, open_store(store));
    if (::faccessat(fd.get(), kMarker, F_OK, AT_SYMLINK_NOFOLLOW) == 0) return true;
    if (errno == ENOENT) return false;
    return last_error("look at the store {}", store);
}

}  // namespace twinspool
