// SPDX-License-Identifier: Apache-2.0
#include "replicator/standby/standby.h"

#include <array>

#include "replicator/link/local.h"

namespace twinspool {

std::string_view spell(StandbyState state) {
    constexpr std::array<std::string_view, 5> kWords{"empty", "seeding", "resyncing", "behind",
                                                     "in-sync"};
    return kWords[static_cast<std::size_t>(state)];
}

Status serve_standby(const StandbyStore& store) {
    const auto transport = socket_transport(Fd{kStandbySocket});
    auto receiver = Receiver::open(store);
    if (!receiver.ok()) {
        (void)send_text(*transport, MessageType::kRefuse, receiver.error().text());
        return receiver.error();
    }
    TS_ASSIGN(const Greeting greeting, receive_greeting(*transport, store.volume));
    const Status served = (*receiver)->serve(*transport, greeting);
    (*receiver)->finish();
    return served;
}

}  // namespace twinspool
