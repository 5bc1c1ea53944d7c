// SPDX-License-Identifier: Apache-2.0
#include "tools/volume/target.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace twinspool {
namespace {

constexpr std::size_t kMaxHostBytes = 253;
constexpr const char* kTargetExample =
    "/mnt/standby/mail, mx2:/srv/standby/mail, mx2:4471:/srv/standby/mail, or "
    "[2001:db8::2]:/srv/standby/mail";

std::optional<std::uint16_t> parse_port(std::string_view text) {
    std::uint16_t port = 0;
    const auto* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, port);
    if (text.empty() || parsed.ec != std::errc{} || parsed.ptr != end || port == 0)
        return std::nullopt;
    return port;
}

struct Split {
    std::string_view host;
    std::string_view rest;  // what comes behind it
    bool bracketed = false;
};

// At the end of a bracketed address, or at the first colon.
std::optional<Split> split_host(std::string_view text) {
    if (text.starts_with('[')) {
        const auto end = text.find(']');
        if (end == std::string_view::npos) return std::nullopt;
        return Split{text.substr(1, end - 1), text.substr(end + 1), true};
    }
    const auto end = std::min(text.find(':'), text.size());
    return Split{text.substr(0, end), text.substr(end), false};
}

Verdict check_bracketed(const Split& split) {
    if (!split.bracketed || split.host.find(':') != std::string_view::npos) return {};
    return bad_input("[{}] is no IPv6 address: only those are written in brackets", split.host);
}

// ADDR, ADDR:PORT, [V6], [V6]:PORT, V6, :PORT; 0: there is no port.
Outcome<HostAddress> parse_address(std::string_view text) {
    const bool bare_v6 = !text.starts_with('[') && std::count(text.begin(), text.end(), ':') > 1;
    const auto split = bare_v6 ? Split{text, "", false} : split_host(text);
    if (!split) return bad_input("\"{}\" has a \"[\" without its \"]\"", text);
    TS_TRY(check_bracketed(*split));
    HostAddress address{std::string{split->host}, 0};
    if (!address.host.empty()) TS_TRY(check_host(address.host));
    if (split->rest.empty()) return address;
    const auto port =
        split->rest.starts_with(':') ? parse_port(split->rest.substr(1)) : std::nullopt;
    if (!port) return bad_input("\"{}\" does not end with a port, a number from 1 to 65535", text);
    address.port = *port;
    return address;
}

}  // namespace

Verdict check_host(std::string_view host) {
    const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '.' || c == '-' || c == '_' || c == ':' || c == '%';
    };
    if (!host.empty() && host.size() <= kMaxHostBytes && host.front() != '-' &&
        std::all_of(host.begin(), host.end(), allowed))
        return {};
    return bad_input(
        "host is \"{}\", but must be the name of a host, or an address like "
        "\"192.0.2.2\" or \"2001:db8::2\"",
        host);
}

Outcome<StandbyConfig> parse_standby_target(std::string_view text) {
    const auto slash = std::min(text.find('/'), text.size());
    const bool bracketed = text.starts_with('[') && text.find("]:") < slash;
    if (text.empty()) return bad_input("the standby is empty; write one like {}", kTargetExample);
    if (!bracketed && text.find(':') > slash) return StandbyConfig{.path = std::string{text}};

    const auto split = split_host(text);
    if (!split) return bad_input("\"{}\" has a \"[\" without its \"]\"", text);
    TS_TRY(check_bracketed(*split));
    if (const auto checked = check_host(split->host); !checked.ok())
        return bad_input("the standby \"{}\": {}; write one like {}, or ./{} for a directory here",
                         text, checked.error().sentence, kTargetExample, text);
    StandbyConfig standby{.host = std::string{split->host}};
    auto rest = split->rest.substr(1);
    if (const auto end = std::min(rest.find('/'), rest.size());
        end > 1 && rest.substr(0, end).ends_with(':')) {
        const auto port = parse_port(rest.substr(0, end - 1));
        if (!port)
            return bad_input("the port \"{}\" of the standby \"{}\" is no number from 1 to 65535",
                             rest.substr(0, end - 1), text);
        standby.port = *port;
        rest.remove_prefix(end);
    }
    if (!rest.starts_with('/'))
        return bad_input(
            "the standby \"{}\" does not say an absolute path on its host; write one like {}", text,
            kTargetExample);
    while (rest.size() > 1 && rest.ends_with('/')) rest.remove_suffix(1);
    if (rest == "/")
        return bad_input("the standby \"{}\" would be the whole host; give a directory", text);
    standby.path = rest;
    return standby;
}

Outcome<HostAddress> parse_listen(std::string_view text, std::uint16_t usual_port) {
    TS_ASSIGN(auto address, parse_address(text));
    if (address.port == 0) address.port = usual_port;
    return address;
}

Outcome<std::string> parse_endpoint(std::string_view text) {
    const auto example = [&](std::string_view why) {
        return bad_input("metrics is \"{}\", {}; write one like \"127.0.0.1:9471\"", text, why);
    };
    if (const auto port = parse_port(text)) return fmt::format("127.0.0.1:{}", *port);
    const auto address = parse_address(text);
    if (!address.ok()) return example("which is no address with a port");
    if (address.value().port == 0) return example("which has no port");
    if (address.value().host.empty()) return fmt::format("127.0.0.1:{}", address.value().port);
    return spell_listen(address.value());
}

std::string spell_listen(const HostAddress& address) {
    const bool v6 = address.host.find(':') != std::string::npos;
    return fmt::format("{}{}{}:{}", v6 ? "[" : "", address.host, v6 ? "]" : "", address.port);
}

std::string spell_host(std::string_view host, std::uint16_t port) {
    const bool v6 = host.find(':') != std::string_view::npos;
    auto text = v6 ? fmt::format("[{}]", host) : std::string{host};
    return port == kDefaultPort ? text : fmt::format("{}:{}", text, port);
}

}  // namespace twinspool
