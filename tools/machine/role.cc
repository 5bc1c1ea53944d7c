// SPDX-License-Identifier: Apache-2.0
#include "tools/machine/role.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>

#include "tools/ground/lock.h"
#include "tools/machine/admission.h"
#include "tools/volume/target.h"

namespace twinspool {
namespace {

bool exists(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0;
}

// The address itself: without port, scope and the like. Empty if it is neither IPv4 nor IPv6.
std::string bytes_of(const sockaddr* address) {
    if (address == nullptr) return "";
    if (address->sa_family == AF_INET) {
        const auto* in = reinterpret_cast<const sockaddr_in*>(address);
        return {reinterpret_cast<const char*>(&in->sin_addr), sizeof in->sin_addr};
    }
    if (address->sa_family != AF_INET6) return "";
    const auto* in = reinterpret_cast<const sockaddr_in6*>(address);
    return {reinterpret_cast<const char*>(&in->sin6_addr), sizeof in->sin6_addr};
}

bool is_loopback(const std::string& bytes) {
    if (bytes.size() == sizeof(in_addr)) return bytes[0] == 127;
    return bytes == std::string(sizeof(in6_addr) - 1, '\0') + '\1';
}

enum class Loopback : std::uint8_t { kCounts, kCountsNot };

// Whether one of the host's addresses is this machine's. No if the name is not known.
bool is_this_machine(const std::string& host, Loopback loopback) {
    const addrinfo hints{.ai_flags = 0, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    addrinfo* found = nullptr;
    if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return false;
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> theirs{found, &::freeaddrinfo};
    ifaddrs* own = nullptr;
    if (::getifaddrs(&own) != 0) return false;
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> ours{own, &::freeifaddrs};
    for (const addrinfo* each = theirs.get(); each != nullptr; each = each->ai_next) {
        const auto bytes = bytes_of(each->ai_addr);
        if (bytes.empty()) continue;
        if (is_loopback(bytes)) {
            if (loopback == Loopback::kCounts) return true;
            continue;
        }
        for (const ifaddrs* one = ours.get(); one != nullptr; one = one->ifa_next)
            if (bytes_of(one->ifa_addr) == bytes) return true;
    }
    return false;
}

std::vector<StandbyConfig> on_other_hosts(const VolumeConfig& config) {
    std::vector<StandbyConfig> found;
    for (const auto& standby : config.standbys)
        if (!standby.is_local()) found.push_back(standby);
    return found;
}

std::string spell_all(const std::vector<StandbyConfig>& standbys) {
    std::string text;
    for (const auto& standby : standbys)
        text +=
            fmt::format("{}{}", text.empty() ? "" : ", ", spell_host(standby.host, standby.port));
    return text;
}

bool says_it_is_ours(const std::string& path, std::uint64_t volume) {
    const auto owner = owner_of_standby(path, volume);
    return owner.ok() && owner.value() == StandbyOwner::kThisVolume;
}

}  // namespace

std::optional<VolumeConfig> standby_here(const VolumePaths& paths) {
    auto config = load_config(paths.last_standby());
    if (!config.ok()) return std::nullopt;
    return std::move(config).value();
}

Verdict check_not_standby(const VolumePaths& paths, std::string_view doing) {
    const auto here = standby_here(paths);
    if (!here) return {};
    return failure(
        "this machine is the standby of {}, with its store in {}: {} is done on the primary",
        paths.name, here->standbys.front().path, doing);
}

Verdict check_may_be_primary(const VolumePaths& paths, const VolumeConfig& config) {
    if (exists(paths.last_standby()))
        return failure(
            "this machine is the standby of {}: two primaries of one volume would tear its copies "
            "apart. Run `up` on the primary; if this machine is to be the primary, and the other "
            "one never again, end its standby with `twinspool down {}` and remove {}",
            paths.name, paths.name, paths.last_standby());
    // Only before the first `up`: later the machine is the primary, whatever the names lead to.
    if (exists(paths.last_config())) return {};
    for (const auto& standby : on_other_hosts(config))
        if (is_this_machine(standby.host, Loopback::kCountsNot))
            return failure(
                "this machine is {}, which is to be the standby of {}: run `twinspool standby {}` "
                "here, and `up` on the primary",
                standby.host, paths.name, paths.name);
    return {};
}

Verdict check_may_be_standby(const VolumePaths& paths, const VolumeConfig& config) {
    const bool was_primary = exists(paths.last_config());
    if (living_daemon(paths) && was_primary)
        return failure("this machine serves the volume {} as its primary: it cannot be its standby",
                       paths.name);
    if (const auto last = load_config(paths.last_config());
        was_primary && (!last.ok() || last.value().id == config.id))
        return failure(
            "this machine has been the primary of {}: its journal is {}. A machine is one or the "
            "other; if it is to be the standby from now on, `twinspool remove {}` here and copy "
            "{} and {} from the primary",
            paths.name, paths.journal(), paths.name, paths.config(), paths.secret());
    return {};
}

Outcome<StandbyConfig> choose_standby(const VolumePaths& paths, const VolumeConfig& config,
                                      const std::optional<std::string>& host) {
    auto candidates = on_other_hosts(config);
    if (candidates.empty())
        return bad_input(
            "the volume {} has no standby on a host: its [[standby]] in {} have no `host`, and the "
            "daemon of the primary serves them by itself",
            paths.name, paths.config());
    const auto all = spell_all(candidates);
    if (host) {
        std::erase_if(candidates, [&](const StandbyConfig& each) {
            return each.host != *host && spell_host(each.host, each.port) != *host;
        });
        if (candidates.empty())
            return bad_input("no standby of {} is on {}: those in {} are on {}", paths.name, *host,
                             paths.config(), all);
    } else if (candidates.size() > 1) {
        std::erase_if(candidates, [](const StandbyConfig& each) {
            return !is_this_machine(each.host, Loopback::kCounts);
        });
    }
    if (candidates.size() == 1) return candidates.front();
    return bad_input("which standby of {} is this machine? Say it with --host: one of {}",
                     paths.name, candidates.empty() ? all : spell_all(candidates));
}

bool is_store_here(const StandbyConfig& standby, std::uint64_t volume) {
    return standby.is_local() || says_it_is_ours(standby.path, volume);
}

std::vector<std::string> stores_here(const VolumePaths& paths, const VolumeConfig& config) {
    std::vector<std::string> stores;
    const auto add = [&](const StandbyConfig& standby) {
        if (says_it_is_ours(standby.path, config.id)) stores.push_back(standby.path);
    };
    if (const auto here = standby_here(paths)) {
        add(here->standbys.front());
        return stores;
    }
    for (const auto& standby : config.standbys)
        if (standby.is_local()) add(standby);
    // On a machine where nothing of the volume is left but a store.
    if (stores.empty() && !exists(paths.last_config()))
        for (const auto& standby : on_other_hosts(config)) add(standby);
    return stores;
}

Outcome<std::string> store_of_past(const VolumePaths& paths, const VolumeConfig& config) {
    if (auto stores = stores_here(paths, config); !stores.empty()) return std::move(stores.front());
    if (const auto here = standby_here(paths)) return here->standbys.front().path;
    for (const auto& standby : config.standbys)
        if (standby.is_local()) return standby.path;
    return failure("the snapshots of {} are on {}: run this there", paths.name, hosts_of(config));
}

std::string hosts_of(const VolumeConfig& config) {
    const auto hosts = on_other_hosts(config);
    return fmt::format("the host{} {}", hosts.size() == 1 ? "" : "s", spell_all(hosts));
}

}  // namespace twinspool
