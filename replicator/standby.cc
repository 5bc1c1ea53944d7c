// SPDX-License-Identifier: Apache-2.0
#include "replicator/standby.h"

#include "replicator/local.h"

namespace twinspool {

Status serve_standby(const StandbyStore& store) {
    const auto transport = socket_transport(Fd{kStandbySocket});
    auto receiver = Receiver::open(store);
    Status status = receiver.ok() ? (*receiver)->serve(*transport) : receiver.error();
    if (!status.ok()) (void)send_text(*transport, MessageType::kRefuse, status.error().text());
    return status;
}

}  // namespace twinspool
