// SPDX-License-Identifier: Apache-2.0
// TargetTree: where an image is restored to, one system call at a time, by directory descriptor and
// a single name. Nothing is followed: no symbolic link, and no mount (EXDEV). Others may own the
// directories and change them meanwhile, so what was made is only touched if it is what was made.
// Free functions; any thread. Needs root rights (owners, trusted xattrs).
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/fd.h"
#include "journal/base/result.h"
#include "journal/delta/image.h"

namespace twinspool {

using Xattrs = std::map<std::string, std::string>;

// What is to be.
struct Wanted {
    ObjectId object{};
    ImageAttributes attributes;
    Xattrs xattrs;
    std::string target;  // of a symlink
    [[nodiscard]] std::uint32_t type() const { return attributes.mode & S_IFMT; }
    [[nodiscard]] bool is_file() const { return S_ISREG(attributes.mode); }
};
Result<Wanted> wanted_of(Image& image, ObjectId object);

// What stands at a name.
struct Occupant {
    Fd fd;  // O_PATH
    struct stat status {};
    [[nodiscard]] bool is_directory() const { return S_ISDIR(status.st_mode); }
    [[nodiscard]] std::uint32_t type() const { return status.st_mode & S_IFMT; }
};
Result<std::optional<Occupant>> look_at(int directory, const std::string& name);

Result<Fd> open_directory(int directory, const std::string& name);
// To read the content of what look_at() found.
Result<Fd> open_file(const Occupant& file);
// Names of what is in it, sorted bytewise; without "." and "..".
Result<std::vector<std::string>> names_in(int directory);
Result<std::string> target_of(const Occupant& symlink);
// But for our own.
Result<Xattrs> xattrs_of(int fd);

// Owner, mode, mtime and xattrs. `status` is that of `fd`.
Result<bool> has_attributes(int fd, const struct stat& status, const Wanted& wanted);
// Sets what differs. Without the mtime where that is still going to change.
enum class WithMtime : std::uint8_t { kNo, kYes };
Status set_attributes(int fd, const Wanted& wanted, WithMtime with_mtime);

// Private to us until its attributes are set. EEXIST: something stands there.
Result<Fd> make_file(int directory, const std::string& name);
Result<Fd> make_directory(int directory, const std::string& name);
// A symlink, device, FIFO or socket.
Result<Fd> make_special(int directory, const std::string& name, const Wanted& wanted);
Status link_at(int object, int directory, const std::string& name);
// kReplace: in place of what is there, at one moment.
enum class RenameWay : std::uint8_t { kReplace, kOnlyNew };
Status rename_at(int source_directory, const std::string& source, int target_directory,
                 const std::string& target, RenameWay way);
// It need not be there.
Status unlink_at(int directory, const std::string& name);
// False: it is not empty.
Result<bool> remove_directory_at(int directory, const std::string& name);

}  // namespace twinspool
