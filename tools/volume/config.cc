// SPDX-License-Identifier: Apache-2.0
#include "tools/volume/config.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "journal/base/fd.h"
#include "tools/ground/quantity.h"
#include "tools/volume/target.h"
#include "tools/volume/toml_reader.h"

namespace twinspool {
namespace {

using namespace std::chrono_literals;

constexpr Word<CommitMode> kModes[] = {
    {"fsync", CommitMode::kFsync}, {"every", CommitMode::kEvery}, {"async", CommitMode::kAsync}};
constexpr Word<TransportChoice> kTransports[] = {{"auto", TransportChoice::kAuto},
                                                 {"io_uring", TransportChoice::kIoUring},
                                                 {"dev", TransportChoice::kDev}};
constexpr Word<AckRule> kAckRules[] = {{"all", AckRule::kAll}, {"any", AckRule::kAny}};
constexpr Word<StandbyLoss> kStandbyLosses[] = {{"continue", StandbyLoss::kContinue},
                                                {"freeze", StandbyLoss::kFreeze}};
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
constexpr Nanoseconds kMinCommandTimeout = 10ms;
constexpr Nanoseconds kMaxCommandTimeout = 24h;
constexpr std::uint64_t kMinRateLimit = std::uint64_t{64} << 10;
constexpr std::int64_t kMaxPort = 65535;
constexpr std::size_t kMaxStandbys = 8;
constexpr std::size_t kMaxFileBytes = std::size_t{1} << 20;

void read_id(TomlReader& reader, std::uint64_t& into) {
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

void check_sizes(TomlReader& reader, const VolumeConfig& config) {
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

void read_snapshot(TomlReader& reader, SnapshotConfig& config) {
    reader.shell_command("before", config.before);
    reader.shell_command("after", config.after);
    reader.duration("hook_timeout", kMinCommandTimeout, kMaxCommandTimeout, config.hook_timeout);
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

// Each standby is another place, and one host's daemon serves one port.
void check_new_standby(TomlReader& reader, const VolumeConfig& config, const StandbyConfig& added) {
    for (const auto& other : config.standbys) {
        if (other.host != added.host) continue;
        if (other.path == added.path)
            reader.complain(reader.position("path"), "the standby {} is there twice",
                            added.target());
        else if (!added.is_local() && other.port == added.port)
            reader.complain(reader.position("host"),
                            "the host {} has another standby on port {} already: {}", added.host,
                            added.port, other.path);
    }
}

void read_standby(TomlReader& reader, VolumeConfig& config) {
    StandbyConfig standby;
    standby.path = reader.path("standby");
    if (auto host = reader.text("host")) {
        if (const auto checked = check_host(*host); !checked.ok())
            reader.complain(reader.position("host"), "{}", checked.error().sentence);
        standby.host = std::move(*host);
    }
    reader.number("port", 1, kMaxPort, standby.port);
    if (standby.is_local() && reader.has("port"))
        reader.complain(reader.position("port"),
                        "port is only for a standby on another host, which has a host");
    reader.yes_or_no("wait", standby.wait);
    check_new_standby(reader, config, standby);
    config.standbys.push_back(std::move(standby));
}

void read_links(TomlReader& reader, VolumeConfig& config) {
    reader.duration("standby_timeout", 0ns, kMaxStandbyTimeout, config.standby_timeout);
    reader.choice("ack", kAckRules, config.ack);
    reader.choice("on_standby_loss", kStandbyLosses, config.on_standby_loss);
    reader.shell_command("fence_peer", config.fence_peer);
    reader.duration("fence_timeout", kMinCommandTimeout, kMaxCommandTimeout, config.fence_timeout);
    reader.size("rate_limit", config.rate_limit, kMinRateLimit);
    reader.duration("verify_every", kLeastEvery, kMostEvery, config.verify_every);
    if (const auto metrics = reader.text("metrics")) {
        const auto address = parse_endpoint(*metrics);
        if (address.ok())
            config.metrics = address.value();
        else
            reader.complain(reader.position("metrics"), "{}", address.error().sentence);
    }
    reader.tables("standby", [&](TomlReader& inner) { read_standby(inner, config); });
    if (config.standbys.empty())
        reader.complain(reader.position("standby"), "there is no [[standby]] with a path");
    if (config.standbys.size() > kMaxStandbys)
        reader.complain(reader.position("standby"),
                        "there are {} [[standby]], but at most {} may be", config.standbys.size(),
                        kMaxStandbys);
}

Outcome<VolumeConfig> read_table(const toml::table& table, const std::string& file) {
    TomlReader reader(table, file);
    VolumeConfig config;
    read_id(reader, config.id);
    reader.choice("mode", kModes, config.mode);
    reader.choice("transport", kTransports, config.transport);
    reader.duration("linger", 0ns, kMaxLinger, config.linger);
    reader.duration("checkpoint_every", kMinCheckpointEvery, kMaxCheckpointEvery,
                    config.checkpoint_every);
    reader.size("journal_limit", config.journal_limit);
    reader.size("segment_size", config.segment_size);
    check_sizes(reader, config);
    reader.tables("directory", [&](TomlReader& inner) {
        config.directories.push_back({inner.path("directory")});
    });
    read_links(reader, config);
    reader.table("snapshot", [&](TomlReader& inner) { read_snapshot(inner, config.snapshot); });
    if (config.directories.empty())
        reader.complain(reader.position("directory"), "there is no [[directory]] with a path");
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

std::string render_standby(const StandbyConfig& standby) {
    auto text = fmt::format("\n[[standby]]\npath = {}\n", quoted(standby.path));
    if (!standby.is_local()) text += fmt::format("host = {}\n", quoted(standby.host));
    if (standby.port != kDefaultPort) text += fmt::format("port = {}\n", standby.port);
    if (!standby.wait) text += "wait = false\n";
    return text;
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

std::string StandbyConfig::target() const {
    return is_local() ? path : fmt::format("{}:{}", spell_host(host, port), path);
}

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

std::string_view spell(AckRule rule) {
    for (const auto& word : kAckRules)
        if (word.choice == rule) return word.text;
    return "";
}

std::string_view spell(StandbyLoss choice) {
    for (const auto& word : kStandbyLosses)
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
    if (config.ack != defaults.ack) text += fmt::format("ack = \"{}\"\n", spell(config.ack));
    if (config.on_standby_loss != defaults.on_standby_loss)
        text += fmt::format("on_standby_loss = \"{}\"\n", spell(config.on_standby_loss));
    if (!config.fence_peer.empty())
        text += fmt::format("fence_peer = {}\n", quoted(config.fence_peer));
    duration("fence_timeout", config.fence_timeout, defaults.fence_timeout);
    size("rate_limit", config.rate_limit, defaults.rate_limit);
    duration("verify_every", config.verify_every, defaults.verify_every);
    if (!config.metrics.empty()) text += fmt::format("metrics = {}\n", quoted(config.metrics));
    duration("checkpoint_every", config.checkpoint_every, defaults.checkpoint_every);
    size("journal_limit", config.journal_limit, defaults.journal_limit);
    size("segment_size", config.segment_size, defaults.segment_size);
    for (const auto& directory : config.directories)
        text += fmt::format("\n[[directory]]\npath = {}\n", quoted(directory.path));
    for (const auto& standby : config.standbys) text += render_standby(standby);
    text += render_snapshot(config.snapshot);
    return text;
}

}  // namespace twinspool
