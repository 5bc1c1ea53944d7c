// SPDX-License-Identifier: Apache-2.0
#include "tools/machine/mount_table.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <charconv>
#include <string>

#include "tools/ground/paths.h"

namespace twinspool {
namespace {

std::string_view next_word(std::string_view& line) {
    const auto end = std::min(line.find(' '), line.size());
    const auto word = line.substr(0, end);
    line.remove_prefix(std::min(end + 1, line.size()));
    return word;
}

template <typename Number>
Number to_number(std::string_view text) {
    Number number{};
    std::from_chars(text.data(), text.data() + text.size(), number);
    return number;
}

// Blanks, tabs, newlines and backslashes stand there as three octal digits.
std::string unescaped(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned byte = 0;
        if (text[i] == '\\' && i + 3 < text.size() &&
            std::from_chars(text.data() + i + 1, text.data() + i + 4, byte, 8).ptr ==
                text.data() + i + 4) {
            out += static_cast<char>(byte);
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

// "36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue"
MountEntry parse_line(std::string_view line) {
    MountEntry entry;
    entry.id = to_number<int>(next_word(line));
    entry.parent = to_number<int>(next_word(line));
    const auto device = next_word(line);
    const auto colon = device.find(':');
    if (colon != std::string_view::npos)
        entry.device = makedev(to_number<unsigned>(device.substr(0, colon)),
                               to_number<unsigned>(device.substr(colon + 1)));
    entry.root = unescaped(next_word(line));
    entry.point = unescaped(next_word(line));
    next_word(line);  // options
    for (auto word = next_word(line); !word.empty() && word != "-"; word = next_word(line)) {
        const auto at = word.find(':');
        const auto group = to_number<std::uint64_t>(word.substr(std::min(at + 1, word.size())));
        if (word.starts_with("shared:")) entry.shared = group;
        if (word.starts_with("master:")) entry.master = group;
        if (word.starts_with("propagate_from:")) entry.propagate_from = group;
    }
    entry.type = unescaped(next_word(line));
    entry.source = unescaped(next_word(line));
    return entry;
}

}  // namespace

bool FsPlace::holds(const FsPlace& other) const {
    return device == other.device && is_within(other.path, path);
}

Result<MountTable> MountTable::of_self() {
    TS_ASSIGN(const auto text, read_file("/proc/self/mountinfo"));
    return parse(text);
}

Result<MountTable> MountTable::of_process(pid_t pid) {
    TS_ASSIGN(const auto text, read_file(fmt::format("/proc/{}/mountinfo", pid)));
    return parse(text);
}

MountTable MountTable::parse(std::string_view mountinfo) {
    MountTable table;
    while (!mountinfo.empty()) {
        const auto end = std::min(mountinfo.find('\n'), mountinfo.size());
        if (end > 0) table.entries_.push_back(parse_line(mountinfo.substr(0, end)));
        mountinfo.remove_prefix(std::min(end + 1, mountinfo.size()));
    }
    return table;
}

const MountEntry* MountTable::find(int id) const {
    for (const auto& entry : entries_)
        if (entry.id == id) return &entry;
    return nullptr;
}

std::vector<const MountEntry*> MountTable::stack_at(std::string_view path) const {
    std::vector<const MountEntry*> stack;
    const MountEntry* entry = walk(path, true);
    for (; entry != nullptr && entry->point == path; entry = find(entry->parent))
        stack.push_back(entry);
    std::reverse(stack.begin(), stack.end());
    return stack;
}

const MountEntry* MountTable::walk(std::string_view path, bool into_overlays) const {
    const auto child_at = [&](int parent, std::string_view point) -> const MountEntry* {
        for (const auto& entry : entries_)
            if (entry.parent == parent && entry.id != parent && entry.point == point &&
                (into_overlays || entry.type != kOverlayType))
                return &entry;
        return nullptr;
    };
    const MountEntry* current = nullptr;
    for (const auto& entry : entries_)
        if (entry.point == "/" && (entry.parent == entry.id || find(entry.parent) == nullptr))
            current = &entry;
    const auto climb = [&](std::string_view point) {
        while (const MountEntry* child = child_at(current->id, point)) current = child;
    };
    if (current == nullptr) return nullptr;
    climb("/");
    for (std::size_t end = path.find('/', 1); path != "/"; end = path.find('/', end + 1)) {
        climb(path.substr(0, end));
        if (end == std::string_view::npos) break;
    }
    return current;
}

const MountEntry* MountTable::covering(std::string_view path) const { return walk(path, true); }

const MountEntry* MountTable::covering_without_overlays(std::string_view path) const {
    return walk(path, false);
}

FsPlace MountTable::place_in(const MountEntry& mount, std::string_view path) {
    std::string_view rest = path;
    if (mount.point != "/" && is_within(path, mount.point)) rest.remove_prefix(mount.point.size());
    std::string place = mount.root == "/" ? "" : mount.root;
    if (!rest.empty() && rest != "/") place += rest;
    return {mount.device, place.empty() ? "/" : place};
}

}  // namespace twinspool
