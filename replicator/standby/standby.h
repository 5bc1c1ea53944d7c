// SPDX-License-Identifier: Apache-2.0
// Standby: what a standby does from its start to its end, for tools/ to call: a process at the
// other end of a socketpair, or the host that a primary reaches over the network.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "replicator/link/tcp.h"
#include "replicator/standby/receiver.h"

namespace twinspool {

// Serves the primary at the other end of descriptor kStandbySocket until the link ends. What goes
// wrong is told to the primary (Refuse) as well as returned.
Status serve_standby(const StandbyStore& store);

struct StandbyHostOptions {
    StandbyStore store;
    HostAddress listen;
    LinkSecret secret;
};

enum class StandbyState : std::uint8_t {
    kEmpty,      // nothing was ever told
    kSeeding,    // the first seed is not complete
    kResyncing,  // the tree is a mixture; an internal snapshot has its last consistent state
    kBehind,     // applies, or has no primary
    kInSync,     // has all that the primary has told it is committed, and a primary is connected
};
std::string_view spell(StandbyState state);

struct StandbyHostStatus {
    StandbyState state{};
    std::string from;  // the connected primary; empty: none
    std::uint32_t epoch = 0;
    Lsn received, durable, applied, committed;
    std::uint64_t received_records = 0;  // by this process
    std::uint64_t received_bytes = 0;
    std::uint64_t applied_records = 0;
    double heard_seconds = 0;   // since the primary was heard last
    std::string trouble;        // why it cannot apply; empty if all is well
    std::uint64_t refused = 0;  // connections, by this process
    std::string last_refused;   // from where, and why
    WallTime last_refused_at{};
};

// One primary at a time. A call of the same reign takes the place of the connected one; another
// reign's does if the connected one has been silent for its time, and is refused otherwise.
// Threads: its own; the public functions any.
class StandbyHost {
   public:
    static Result<std::unique_ptr<StandbyHost>> start(const StandbyHostOptions& options);
    ~StandbyHost();
    StandbyHost(const StandbyHost&) = delete;
    StandbyHost& operator=(const StandbyHost&) = delete;
    // Closes the link, applies what is known to be committed.
    void stop();
    [[nodiscard]] StandbyHostStatus status() const;
    [[nodiscard]] std::vector<Snapshot> snapshots() const;
    [[nodiscard]] std::uint16_t port() const;
    // Why it ended by itself (a disk that cannot be written); nothing while it serves.
    [[nodiscard]] std::optional<Error> ended() const;

   private:
    struct Parts;
    explicit StandbyHost(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

}  // namespace twinspool
