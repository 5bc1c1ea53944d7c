// SPDX-License-Identifier: Apache-2.0
#include "tools/config.h"

#include <fcntl.h>
#include <unistd.h>

#include <toml++/toml.h>
#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "journal/fd.h"
#include "tools/quantity.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

template <typename Choice>
struct Word {
    std::string_view text;
    Choice choice;
};

constexpr Word<CommitMode> kModes[] = {
    {"fsync", CommitMode::kFsync}, {"every", CommitMode::kEvery}, {"async", CommitMode::kAsync}};
constexpr Word<TransportChoice> kTransports[] = {{"auto", TransportChoice::kAuto},
                                                 {"io_uring", TransportChoice::kIoUring},
                                                 {"dev", TransportChoice::kDev}};
constexpr Word<FailedHook> kFailedHooks[] = {{"stop", FailedHook::kStop},
                                             {"continue", FailedHook::kContinue}};

// A frame of the largest size, and the segment's header, must fit with room to spare.
constexpr std::uint64_t kMinSegmentSize = std::uint64_t{4} << 20;
constexpr std::uint64_t kMaxSegmentSize = std::uint64_t{4} << 30;
constexpr std::uint64_t kSegmentGranule = 4096;
constexpr Nanoseconds kMaxLinger = 10s;
constexpr Nanoseconds kMaxStandbyTimeout = 24h;
constexpr Nanoseconds kMinCheckpointEvery = 10ms;
constexpr Nanoseconds kMaxCheckpointEvery = 24h;
constexpr Nanoseconds kLeastEvery = 1s;
constexpr Nanoseconds kMostEvery = 366 * 24h;
constexpr Nanoseconds kMinHookTimeout = 10ms;
constexpr Nanoseconds kMaxHookTimeout = 24h;
constexpr std::size_t kMaxFileBytes = std::size_t{1} << 20;

// Reads one table key by key. Keeps the first complaint; what was not asked for is unknown.
class Reader {
   public:
    Reader(const toml::table& table, const std::string& file) : table_(table), file_(file) {}

    template <typename... Args>
    void complain(const toml::source_position& where, fmt::format_string<Args...> format,
                  Args&&... args) {
        if (complaint_) return;
        complaint_ = bad_input("{}:{}:{}: {}", file_, where.line, where.column,
                               fmt::format(format, std::forward<Args>(args)...));
    }

    // Nothing if the key is not there or its value is not a string (then there is a complaint).
    std::optional<std::string> text(std::string_view key) {
        known_.emplace_back(key);
        const toml::node* node = table_.get(key);
        if (node == nullptr) return std::nullopt;
        const auto* value = node->as_string();
        if (value == nullptr) {
            complain(node->source().begin, "{} must be a string in quotes, not {}", key,
                     type_word(*node));
            return std::nullopt;
        }
        return value->get();
    }

    template <typename Choice, std::size_t n>
    void choice(std::string_view key, const Word<Choice> (&words)[n], Choice& into) {
        const auto value = text(key);
        if (!value) return;
        std::string known;
        for (const auto& word : words) {
            if (*value == word.text) {
                into = word.choice;
                return;
            }
            known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", word.text);
        }
        complain(position(key), "{} is \"{}\", but must be one of {}", key, *value, known);
    }

    void duration(std::string_view key, Nanoseconds least, Nanoseconds most, Nanoseconds& into) {
        const auto value = text(key);
        if (!value) return;
        const auto parsed = parse_duration(*value);
        if (!parsed)
            complain(position(key), "{} is \"{}\", which is no duration like {}", key, *value,
                     kDurationExample);
        else if (*parsed < least || *parsed > most)
            complain(position(key), "{} is \"{}\", but must be from {} to {}", key, *value,
                     spell_duration(least), spell_duration(most));
        else
            into = *parsed;
    }

    void size(std::string_view key, std::uint64_t& into) {
        const auto value = text(key);
        if (!value) return;
        const auto parsed = parse_size(*value);
        if (!parsed)
            complain(position(key), "{} is \"{}\", which is no size like {}", key, *value,
                     kSizeExample);
        else
            into = *parsed;
    }

    // A command for the shell.
    void shell_command(std::string_view key, std::string& into) {
        auto value = text(key);
        if (!value) return;
        if (value->find('\0') != std::string::npos)
            complain(position(key), "{} holds a zero byte, which no command can", key);
        else
            into = std::move(*value);
    }

    // [key]: `read` is called with a reader of its own, whose complaint is ours.
    template <typename Read>
    void table(std::string_view key, Read read) {
        known_.emplace_back(key);
        const toml::node* node = table_.get(key);
        if (node == nullptr) return;
        const auto* inner = node->as_table();
        if (inner == nullptr) {
            complain(node->source().begin, "{} must be written as [{}], not as {}", key, key,
                     type_word(*node));
            return;
        }
        Reader reader(*inner, file_);
        read(reader);
        if (auto complaint = reader.finish(); complaint && !complaint_) complaint_ = complaint;
    }

    // [[key]] tables that each have a path.
    std::vector<std::string> paths(std::string_view key) {
        known_.emplace_back(key);
        std::vector<std::string> found;
        const toml::node* node = table_.get(key);
        if (node == nullptr) return found;
        const auto* array = node->as_array();
        if (array == nullptr) {
            complain(node->source().begin, "{} must be written as [[{}]], not as {}", key, key,
                     type_word(*node));
            return found;
        }
        for (const toml::node& element : *array) {
            const auto* table = element.as_table();
            if (table == nullptr) {
                complain(element.source().begin, "each {} must be a table [[{}]], not {}", key, key,
                         type_word(element));
                continue;
            }
            found.push_back(path_of(*table, key));
        }
        return found;
    }

    [[nodiscard]] toml::source_position position(std::string_view key) const {
        const toml::node* node = table_.get(key);
        return node == nullptr ? table_.source().begin : node->source().begin;
    }

    [[nodiscard]] std::optional<Complaint> finish() {
        for (const auto& [key, value] : table_)
            if (std::find(known_.begin(), known_.end(), std::string{key.str()}) == known_.end())
                complain(key.source().begin, "unknown key \"{}\"", key.str());
        return std::move(complaint_);
    }

   private:
    static std::string_view type_word(const toml::node& node) {
        if (node.is_string()) return "a string";
        if (node.is_integer()) return "an integer";
        if (node.is_floating_point()) return "a floating-point number";
        if (node.is_boolean()) return "a boolean";
        if (node.is_array()) return "an array";
        if (node.is_table()) return "a table";
        return "a date or time";
    }

    std::string path_of(const toml::table& table, std::string_view key) {
        Reader reader(table, file_);
        const auto path = reader.text("path");
        if (!path && !reader.complaint_)
            complain(table.source().begin, "this [[{}]] has no path", key);
        else if (path && !path->starts_with('/'))
            complain(reader.position("path"), "the path \"{}\" of a {} must be absolute", *path,
                     key);
        if (auto complaint = reader.finish(); complaint && !complaint_) complaint_ = complaint;
        return path.value_or("");
    }

    const toml::table& table_;
    const std::string& file_;
    std::vector<std::string> known_;
    std::optional<Complaint> complaint_;
};

void read_id(Reader& reader, std::uint64_t& into) {
    const auto text = reader.text("id");
    if (!text) {
        reader.complain(reader.position("id"), "there is no id; `twinspool create` writes one");
        return;
    }
    const char* end = text->data() + text->size();
    std::uint64_t id = 0;
    const bool prefixed = text->starts_with("0x") && text->size() <= 18;
    const auto parsed = std::from_chars(text->data() + (prefixed ? 2 : 0), end, id, 16);
    if (!prefixed || parsed.ec != std::errc{} || parsed.ptr != end || id == 0)
        reader.complain(reader.position("id"),
                        "id is \"{}\", but must be a hexadecimal number like "
                        "\"0x1f2e3d4c5b6a7988\", not 0",
                        *text);
    into = id;
}

void check_sizes(Reader& reader, const VolumeConfig& config) {
    if (config.segment_size < kMinSegmentSize || config.segment_size > kMaxSegmentSize ||
        config.segment_size % kSegmentGranule != 0)
        reader.complain(reader.position("segment_size"),
                        "segment_size is {}, but must be from {} to {} in steps of {}",
                        spell_size(config.segment_size), spell_size(kMinSegmentSize),
                        spell_size(kMaxSegmentSize), spell_size(kSegmentGranule));
    if (config.journal_limit / 2 < config.segment_size)
        reader.complain(reader.position("journal_limit"),
                        "journal_limit is {}, but must be at least twice segment_size, which is {}",
                        spell_size(config.journal_limit), spell_size(config.segment_size));
}

void read_snapshot(Reader& reader, SnapshotConfig& config) {
    reader.shell_command("before", config.before);
    reader.shell_command("after", config.after);
    reader.duration("hook_timeout", kMinHookTimeout, kMaxHookTimeout, config.hook_timeout);
    reader.choice("on_before_failure", kFailedHooks, config.on_before_failure);
    reader.duration("every", kLeastEvery, kMostEvery, config.every);
    if (config.every % 1s != 0ns)
        reader.complain(reader.position("every"), "every is \"{}\", but must be whole seconds",
                        spell_duration(config.every));
    if (const auto keep = reader.text("keep")) {
        config.keep = parse_retention(*keep);
        if (!config.keep)
            reader.complain(reader.position("keep"), "keep is \"{}\", which is no rule like {}",
                            *keep, kRetentionExample);
    }
}

Outcome<VolumeConfig> read_table(const toml::table& table, const std::string& file) {
    Reader reader(table, file);
    VolumeConfig config;
    read_id(reader, config.id);
    reader.choice("mode", kModes, config.mode);
    reader.choice("transport", kTransports, config.transport);
    reader.duration("linger", 0ns, kMaxLinger, config.linger);
    reader.duration("standby_timeout", 0ns, kMaxStandbyTimeout, config.standby_timeout);
    reader.duration("checkpoint_every", kMinCheckpointEvery, kMaxCheckpointEvery,
                    config.checkpoint_every);
    reader.size("journal_limit", config.journal_limit);
    reader.size("segment_size", config.segment_size);
    check_sizes(reader, config);
    for (auto& path : reader.paths("directory")) config.directories.push_back({std::move(path)});
    for (auto& path : reader.paths("standby")) config.standbys.push_back({std::move(path)});
    reader.table("snapshot", [&](Reader& inner) { read_snapshot(inner, config.snapshot); });
    if (config.directories.empty())
        reader.complain(reader.position("directory"), "there is no [[directory]] with a path");
    if (config.standbys.size() != 1)
        reader.complain(reader.position("standby"),
                        "there must be one [[standby]], and there are {}", config.standbys.size());
    if (auto complaint = reader.finish()) return std::move(*complaint);
    return config;
}

std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\')
            out.append({'\\', c});
        else if (byte < 0x20 || byte == 0x7f)
            out += fmt::format("\\u{:04X}", byte);
        else
            out += c;
    }
    return out + '"';
}

// Nothing if all of it is as usual.
std::string render_snapshot(const SnapshotConfig& config) {
    const SnapshotConfig defaults;
    std::string text;
    if (config.every != 0ns) text += fmt::format("every = \"{}\"\n", spell_duration(config.every));
    if (config.keep) text += fmt::format("keep = \"{}\"\n", spell_retention(*config.keep));
    if (!config.before.empty()) text += fmt::format("before = {}\n", quoted(config.before));
    if (!config.after.empty()) text += fmt::format("after = {}\n", quoted(config.after));
    if (config.hook_timeout != defaults.hook_timeout)
        text += fmt::format("hook_timeout = \"{}\"\n", spell_duration(config.hook_timeout));
    if (config.on_before_failure != defaults.on_before_failure)
        text += fmt::format("on_before_failure = \"{}\"\n", spell(config.on_before_failure));
    return text.empty() ? text : "\n[snapshot]\n" + text;
}

}  // namespace

std::string_view spell(CommitMode mode) {
    for (const auto& word : kModes)
        if (word.choice == mode) return word.text;
    return "";
}

std::string_view spell(TransportChoice choice) {
    for (const auto& word : kTransports)
        if (word.choice == choice) return word.text;
    return "";
}

std::string_view spell(FailedHook choice) {
    for (const auto& word : kFailedHooks)
        if (word.choice == choice) return word.text;
    return "";
}

Outcome<CommitMode> parse_mode(std::string_view word) {
    for (const auto& known : kModes)
        if (known.text == word) return known.choice;
    return bad_input("the mode \"{}\" is not known; it must be fsync, every or async", word);
}

Outcome<VolumeConfig> parse_config(std::string_view text, const std::string& file) {
    try {
        const toml::table table = toml::parse(text, file);
        return read_table(table, file);
    } catch (const toml::parse_error& error) {
        const auto where = error.source().begin;
        return bad_input("{}:{}:{}: {}", file, where.line, where.column, error.description());
    }
}

Outcome<VolumeConfig> load_config(const std::string& file) {
    const Fd fd{::open(file.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!fd.valid()) return last_error("open the configuration {}", file);
    std::string text;
    char buffer[16384];
    for (;;) {
        const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return last_error("read the configuration {}", file);
        if (got == 0) break;
        text.append(buffer, static_cast<std::size_t>(got));
        if (text.size() > kMaxFileBytes)
            return bad_input("the configuration {} is larger than {}", file,
                             spell_size(kMaxFileBytes));
    }
    return parse_config(text, file);
}

std::string render_config(const std::string& name, const VolumeConfig& config) {
    std::string text = fmt::format(
        "# The volume {} of Twinspool. docs/CONFIGURATION.md has every key.\n"
        "# A change holds from the next `twinspool up` on.\n"
        "id = \"0x{:016x}\"  # never change this: the journal and the standby carry it too\n"
        "mode = \"{}\"\n",
        name, config.id, spell(config.mode));
    const VolumeConfig defaults;
    if (config.transport != defaults.transport)
        text += fmt::format("transport = \"{}\"\n", spell(config.transport));
    const auto duration = [&](std::string_view key, Nanoseconds value, Nanoseconds usual) {
        if (value != usual) text += fmt::format("{} = \"{}\"\n", key, spell_duration(value));
    };
    const auto size = [&](std::string_view key, std::uint64_t value, std::uint64_t usual) {
        if (value != usual) text += fmt::format("{} = \"{}\"\n", key, spell_size(value));
    };
    duration("linger", config.linger, defaults.linger);
    duration("standby_timeout", config.standby_timeout, defaults.standby_timeout);
    duration("checkpoint_every", config.checkpoint_every, defaults.checkpoint_every);
    size("journal_limit", config.journal_limit, defaults.journal_limit);
    size("segment_size", config.segment_size, defaults.segment_size);
    for (const auto& directory : config.directories)
        text += fmt::format("\n[[directory]]\npath = {}\n", quoted(directory.path));
    for (const auto& standby : config.standbys)
        text += fmt::format("\n[[standby]]\npath = {}\n", quoted(standby.path));
    text += render_snapshot(config.snapshot);
    return text;
}

}  // namespace twinspool
