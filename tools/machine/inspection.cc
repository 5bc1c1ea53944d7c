// SPDX-License-Identifier: Apache-2.0
#include "tools/machine/inspection.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "journal/base/fd.h"
#include "tools/ground/paths.h"

namespace twinspool {
namespace {

// Of linux/sched.h.
constexpr unsigned long kKernelThread = 0x00200000;  // PF_KTHREAD
constexpr unsigned long kExiting = 0x00000004;       // PF_EXITING

std::vector<std::string> names_in(const std::string& path) {
    auto names = entries_of(path);
    return names.ok() ? std::move(names).value() : std::vector<std::string>{};
}

std::string link_target(const std::string& path) {
    std::string target(4096, '\0');
    const ssize_t size = ::readlink(path.c_str(), target.data(), target.size());
    target.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    return target;
}

std::string text_of(const std::string& path) {
    auto text = read_file(path);
    return text.ok() ? std::move(text).value() : std::string{};
}

std::string command_of(pid_t pid) {
    std::string text = text_of(fmt::format("/proc/{}/comm", pid));
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

// The kernel's PF_ flags; 0 for a process that is gone.
unsigned long flags_of(pid_t pid) {
    // "pid (comm) state ppid pgrp session tty tpgid flags …"; comm may hold anything.
    const std::string text = text_of(fmt::format("/proc/{}/stat", pid));
    std::size_t at = text.rfind(')');
    for (int field = 0; at != std::string::npos && field < 7; ++field) at = text.find(' ', at + 1);
    return at == std::string::npos ? 0 : std::strtoul(text.c_str() + at, nullptr, 10);
}

bool is_kernel_thread(pid_t pid) { return (flags_of(pid) & kKernelThread) != 0; }

bool runs_this_program(pid_t pid) {
    struct stat own {};
    struct stat other {};
    return ::stat("/proc/self/exe", &own) == 0 &&
           ::stat(fmt::format("/proc/{}/exe", pid).c_str(), &other) == 0 &&
           own.st_dev == other.st_dev && own.st_ino == other.st_ino;
}

// Processes of programs, without this one.
std::vector<pid_t> programs() {
    std::vector<pid_t> found;
    for (const auto& name : names_in("/proc")) {
        pid_t pid = 0;
        const char* end = name.data() + name.size();
        const auto parsed = std::from_chars(name.data(), end, pid);
        if (parsed.ec == std::errc{} && parsed.ptr == end && pid != ::getpid() &&
            !is_kernel_thread(pid))
            found.push_back(pid);
    }
    return found;
}

int mount_id_in(const std::string& fdinfo) {
    const std::string text = text_of(fdinfo);
    const auto at = text.find("mnt_id:");
    return at == std::string::npos ? -1 : std::atoi(text.c_str() + at + 7);  // NOLINT(cert-err34-c)
}

// The mount that a link of /proc leads into. Opening it with O_PATH asks no file system anything.
int mount_id_behind(const std::string& link) {
    const Fd fd{::open(link.c_str(), O_PATH | O_CLOEXEC)};
    return fd.valid() ? mount_id_in(fmt::format("/proc/self/fdinfo/{}", fd.get())) : -1;
}

// The mount tables of the namespaces met so far: one for each namespace and root directory.
class Tables {
   public:
    const MountTable& of(pid_t pid) {
        const auto key = std::make_pair(link_target(fmt::format("/proc/{}/ns/mnt", pid)),
                                        link_target(fmt::format("/proc/{}/root", pid)));
        const auto known = tables_.find(key);
        if (known != tables_.end()) return known->second;
        auto table = MountTable::of_process(pid);
        return tables_.emplace(key, table.ok() ? std::move(table).value() : MountTable::parse(""))
            .first->second;
    }
    // Mount ids are the same everywhere; a process in a chroot does not see them all itself.
    const MountEntry* find(pid_t pid, int id) {
        if (const auto* entry = of(pid).find(id)) return entry;
        for (const auto& [key, table] : tables_)
            if (const auto* entry = table.find(id)) return entry;
        return nullptr;
    }

   private:
    std::map<std::pair<std::string, std::string>, MountTable> tables_;
};

// Something of a process that keeps a file system busy: where it leads, and how to say it.
struct Hold {
    const MountEntry* mount;
    std::string path;
    std::string_view how;
};
using Visit = std::function<bool(const Hold&)>;  // false: enough of this process

bool visit_descriptors(pid_t pid, Tables& tables, const Visit& visit) {
    const std::string fds = fmt::format("/proc/{}/fd", pid);
    for (const auto& fd : names_in(fds)) {
        const std::string target = link_target(fmt::format("{}/{}", fds, fd));
        if (!target.starts_with('/')) continue;
        const int id = mount_id_in(fmt::format("/proc/{}/fdinfo/{}", pid, fd));
        if (!visit({tables.find(pid, id), target, "has {} open"})) return false;
    }
    return true;
}

bool visit_links(pid_t pid, Tables& tables, const Visit& visit) {
    constexpr std::pair<const char*, std::string_view> kLinks[] = {
        {"cwd", "works in {}"}, {"root", "has {} as its root"}, {"exe", "runs {}"}};
    for (const auto& [name, how] : kLinks) {
        const std::string link = fmt::format("/proc/{}/{}", pid, name);
        const std::string target = link_target(link);
        if (!target.starts_with('/')) continue;
        if (!visit({tables.find(pid, mount_id_behind(link)), target, how})) return false;
    }
    return true;
}

// A line of /proc/PID/maps: "7f1c-7f1d r--s 00000000 fe:00 1234    /path"
struct Mapping {
    std::string link;  // in map_files
    std::string_view line;
    std::size_t path;  // where it begins in the line
};

// Of files on this device; false if `visit` has had enough.
bool each_mapping(pid_t pid, dev_t device, const std::function<bool(const Mapping&)>& visit) {
    const std::string text = text_of(fmt::format("/proc/{}/maps", pid));
    const std::string wanted = fmt::format(" {:02x}:{:02x} ", major(device), minor(device));
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        const std::string_view line{text.data() + at, end - at};
        at = end + 1;
        const auto path = line.find('/');
        if (path == std::string_view::npos || line.find(wanted) > path) continue;
        const auto link = fmt::format("/proc/{}/map_files/{}", pid, line.substr(0, line.find(' ')));
        if (!visit({link, line, path})) return false;
    }
    return true;
}

bool visit_mappings(pid_t pid, Tables& tables, dev_t device, const Visit& visit) {
    return each_mapping(pid, device, [&](const Mapping& mapping) {
        const int id = mount_id_behind(mapping.link);
        return visit({tables.find(pid, id), std::string{mapping.line.substr(mapping.path)},
                      "has {} mapped"});
    });
}

// At most one finding for each process.
std::vector<ProcessFinding> users(dev_t device, const std::function<bool(const Hold&)>& counts) {
    std::vector<ProcessFinding> findings;
    Tables tables;
    tables.of(::getpid());
    for (const pid_t pid : programs()) {
        const Visit visit = [&](const Hold& hold) {
            if (hold.mount == nullptr || !counts(hold)) return true;
            findings.push_back(
                {pid, command_of(pid), fmt::format(fmt::runtime(hold.how), hold.path)});
            return false;
        };
        (void)(visit_descriptors(pid, tables, visit) && visit_links(pid, tables, visit) &&
               visit_mappings(pid, tables, device, visit));
    }
    return findings;
}

// Which groups of mounts get what is mounted in which other group.
class Propagation {
   public:
    void learn(const MountTable& table) {
        for (const auto& entry : table.entries())
            if (entry.shared != 0 && entry.master != 0) master_of_[entry.shared] = entry.master;
    }
    [[nodiscard]] bool reaches(const MountEntry& from, const MountEntry& to) const {
        if (from.shared == 0) return false;
        if (to.shared == from.shared || to.propagate_from == from.shared) return true;
        std::uint64_t group = to.master;
        for (std::size_t steps = 0; group != 0 && steps <= master_of_.size(); ++steps) {
            if (group == from.shared) return true;
            const auto next = master_of_.find(group);
            group = next == master_of_.end() ? 0 : next->second;
        }
        return false;
    }

   private:
    std::map<std::uint64_t, std::uint64_t> master_of_;
};

// Where a program with these mounts sees the place, or something in it, past what `from` reaches.
std::optional<std::string> seen_past(const MountTable& table, const FsPlace& place,
                                     const MountEntry& from, const Propagation& propagation) {
    for (const auto& entry : table.entries()) {
        const FsPlace shown{entry.device, entry.root};
        std::string path = entry.point;
        if (shown.holds(place)) {
            if (propagation.reaches(from, entry)) continue;
            path = entry.root == "/" ? place.path : place.path.substr(entry.root.size());
            path = entry.point == "/" ? path : entry.point + (path == "/" ? "" : path);
        } else if (!place.holds(shown)) {
            continue;
        }
        if (path.empty()) path = "/";
        if (table.covering(path) == &entry) return path;
    }
    return std::nullopt;
}

// What kind of file system without a journal this is; "" if it has one.
std::string journalless_kind(const MountEntry& mount) {
    constexpr std::array kKinds{"ext2", "vfat", "exfat", "msdos", "tmpfs", "ramfs", "minix"};
    if (std::find(kKinds.begin(), kKinds.end(), mount.type) != kKinds.end()) return mount.type;
    if (mount.type != "ext4" && mount.type != "ext3") return "";
    const std::string device =
        link_target(fmt::format("/sys/dev/block/{}:{}", major(mount.device), minor(mount.device)));
    const std::string name = device.substr(device.rfind('/') + 1);
    // The mode in which data is journalled is listed only where there is a journal.
    const auto options = read_file(fmt::format("/proc/fs/ext4/{}/options", name));
    if (!options.ok() || options.value().find("data=") != std::string::npos) return "";
    return mount.type + " without a journal";
}

// The programs in other mount namespaces.
class Others {
   public:
    explicit Others(const MountTable& own) {
        const std::string own_namespace = link_target("/proc/self/ns/mnt");
        propagation_.learn(own);
        for (const pid_t pid : programs()) {
            const std::string its = link_target(fmt::format("/proc/{}/ns/mnt", pid));
            if (its.empty() || its == own_namespace) continue;
            processes_.emplace_back(pid, &tables_.of(pid));
            propagation_.learn(*processes_.back().second);
        }
    }
    [[nodiscard]] const auto& processes() const { return processes_; }
    [[nodiscard]] const Propagation& propagation() const { return propagation_; }

    // Whether this mount of another namespace goes when ours at the same place is unmounted: what
    // it is mounted on there receives from what ours is mounted on.
    [[nodiscard]] bool follows(const MountTable& own, const MountTable& table,
                               const MountEntry& entry) const {
        const MountEntry* below = table.find(entry.parent);
        if (below == nullptr) return false;
        for (const auto& ours : own.entries()) {
            if (ours.device != entry.device || ours.root != entry.root) continue;
            const MountEntry* below_ours = own.find(ours.parent);
            if (below_ours != nullptr && below_ours->device == below->device &&
                propagation_.reaches(*below_ours, *below))
                return true;
        }
        return false;
    }

   private:
    Tables tables_;
    Propagation propagation_;
    std::vector<std::pair<pid_t, const MountTable*>> processes_;
};

}  // namespace

std::string describe(const std::vector<ProcessFinding>& findings, std::size_t limit) {
    std::string text;
    for (std::size_t i = 0; i < std::min(findings.size(), limit); ++i)
        text += fmt::format("{}{} ({}) {}", i == 0 ? "" : ", ", findings[i].command,
                            findings[i].pid, findings[i].what);
    if (findings.size() > limit) text += fmt::format(", and {} more", findings.size() - limit);
    return text;
}

bool is_passing(pid_t pid) { return (flags_of(pid) & kExiting) != 0 || runs_this_program(pid); }

Result<std::vector<ProcessFinding>> users_of_place(const FsPlace& place) {
    return users(place.device, [&](const Hold& hold) {
        return place.holds(MountTable::place_in(*hold.mount, hold.path));
    });
}

Result<std::vector<ProcessFinding>> users_of_device(dev_t device) {
    return users(device, [&](const Hold& hold) { return hold.mount->device == device; });
}

std::vector<SharedMapping> shared_mappings_of_device(dev_t device) {
    std::vector<SharedMapping> found;
    for (const pid_t pid : programs())
        (void)each_mapping(pid, device, [&](const Mapping& mapping) {
            // "… fe:00 1234   /path": the number stands behind the device, before the path.
            const auto permissions = mapping.line.find(' ') + 1;
            if (mapping.line.substr(permissions, 4).ends_with('s')) {
                const std::string number{mapping.line.substr(0, mapping.path)};
                const auto end = number.find_last_not_of(' ');
                const auto begin = number.rfind(' ', end) + 1;
                found.push_back({.pid = pid,
                                 .inode = std::strtoull(number.c_str() + begin, nullptr, 10),
                                 .link = mapping.link,
                                 .path = std::string{mapping.line.substr(mapping.path)}});
            }
            return true;
        });
    return found;
}

Result<std::vector<ProcessFinding>> out_of_reach(const std::string& path) {
    TS_ASSIGN(const auto own, MountTable::of_self());
    const MountEntry* from = own.covering_without_overlays(path);
    if (from == nullptr) return make_error(ENOENT, "find the mount that holds {}", path);
    const FsPlace place = MountTable::place_in(*from, path);
    const Others others(own);
    std::vector<ProcessFinding> findings;
    for (const auto& [pid, table] : others.processes())
        if (const auto seen = seen_past(*table, place, *from, others.propagation()))
            findings.push_back({pid, command_of(pid), fmt::format("sees it at {}", *seen)});
    return findings;
}

Result<std::vector<ProcessFinding>> keepers_of_device(dev_t device) {
    TS_ASSIGN(const auto own, MountTable::of_self());
    const Others others(own);
    std::vector<ProcessFinding> findings;
    for (const auto& [pid, table] : others.processes())
        for (const auto& entry : table->entries()) {
            if (entry.device != device || others.follows(own, *table, entry)) continue;
            findings.push_back({pid, command_of(pid),
                                fmt::format("has it mounted at {}, in a mount namespace of its own",
                                            entry.point)});
            break;
        }
    return findings;
}

std::vector<std::string> warnings_without_journal(const std::vector<std::string>& paths) {
    std::vector<std::string> warnings;
    const auto table = MountTable::of_self();
    if (!table.ok()) return warnings;
    std::map<dev_t, std::pair<std::string, std::string>> found;  // what it is, and whose
    for (const auto& path : paths) {
        const MountEntry* mount = table.value().covering_without_overlays(path);
        if (mount == nullptr) continue;
        const std::string kind = journalless_kind(*mount);
        if (kind.empty()) continue;
        auto& [what, whose] = found[mount->device];
        what = kind;
        whose += (whose.empty() ? "" : " and ") + path;
    }
    for (const auto& [device, text] : found)
        warnings.push_back(
            fmt::format("the file system of {} ({}) has no journal of its own: a power cut may "
                        "damage it in ways "
                        "that Twinspool cannot mend",
                        text.second, text.first));
    return warnings;
}

}  // namespace twinspool
