// SPDX-License-Identifier: Apache-2.0
// The part of tools/daemon/reign about links: one sender for each standby, and which of them count.
#include <algorithm>
#include <string>
#include <utility>

#include "replicator/link/local.h"
#include "replicator/link/tcp.h"
#include "tools/daemon/fence.h"
#include "tools/daemon/reign.h"
#include "tools/machine/launch.h"
#include "tools/volume/secret.h"

namespace twinspool {
namespace {

// A host that does not answer at all is given up before that, and tried again.
constexpr Nanoseconds kConnectWithin = std::chrono::seconds{5};

}  // namespace

SenderOptions Reign::link_options(std::size_t index, std::shared_ptr<Connector> connector) {
    const StandbyConfig& standby = config_.standbys[index];
    SenderOptions options;
    options.index = static_cast<std::uint32_t>(index);
    options.target = standby.target();
    options.connector = std::move(connector);
    options.journal_directory = paths_.journal();
    options.volume = config_.id;
    options.segment_bytes = config_.segment_size;
    options.standby_timeout = config_.standby_timeout;
    options.wait = standby.wait;
    options.may_go_alone = config_.on_standby_loss == StandbyLoss::kContinue;
    if (!config_.fence_peer.empty())
        options.fence = [fence = Fence{.command = config_.fence_peer,
                                       .volume = paths_.name,
                                       .standby = standby.target(),
                                       .timeout = config_.fence_timeout}] {
            return run_fence(fence);
        };
    hear_checks(options);
    return options;
}

Outcome<std::shared_ptr<Connector>> Reign::connector_to(std::size_t index) const {
    const StandbyConfig& standby = config_.standbys[index];
    if (standby.is_local()) {
        StandbyProcess::Command command;
        command.arguments = {"/proc/self/exe", kStandbyProcessCommand, paths_.name,
                             std::to_string(index)};
        return std::shared_ptr<Connector>{local_connector(std::move(command))};
    }
    TS_ASSIGN(const LinkSecret secret, load_secret(paths_, config_.id));
    return std::shared_ptr<Connector>{
        tcp_connector({.host = standby.host, .port = standby.port}, secret,
                      std::min(config_.standby_timeout, kConnectWithin))};
}

Verdict Reign::open_links() {
    std::vector<Sender*> senders;
    for (std::size_t i = 0; i < config_.standbys.size(); ++i) {
        TS_ASSIGN(auto connector, connector_to(i));
        senders_.push_back(
            std::make_unique<Sender>(link_options(i, std::move(connector)), *journal_));
        senders.push_back(senders_.back().get());
    }
    std::vector<int> backing;
    for (const auto& fd : backing_) backing.push_back(fd.get());
    checkpointer_ =
        std::make_unique<Checkpointer>(Checkpointer::Options{.every = config_.checkpoint_every,
                                                             .limit_bytes = config_.journal_limit,
                                                             .segment_bytes = config_.segment_size},
                                       *journal_, backing, std::move(senders));
    for (auto& sender : senders_) sender->start();
    checkpointer_->start();
    return {};
}

std::vector<Sender*> Reign::counting() const {
    const bool any = std::any_of(config_.standbys.begin(), config_.standbys.end(),
                                 [](const auto& each) { return each.wait; });
    std::vector<Sender*> counting;
    for (std::size_t i = 0; i < senders_.size(); ++i)
        if (config_.standbys[i].wait || !any) counting.push_back(senders_[i].get());
    return counting;
}

}  // namespace twinspool
