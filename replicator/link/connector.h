// SPDX-License-Identifier: Apache-2.0
// Connector: how a sender reaches its standby: by starting a process here (local.h), or over the
// network (tcp.h). connect() and ended() are called by one thread, in turn; cancel() by any.
#pragma once

#include <sys/types.h>

#include <memory>

#include "journal/base/result.h"
#include "replicator/link/transport.h"

namespace twinspool {

// kOrderly: the link was closed by us, and the standby applies what it has. kLost: all else.
enum class LinkEnd : unsigned char { kOrderly, kLost };

class Connector {
   public:
    virtual ~Connector() = default;
    // A fresh link, or why there is none.
    virtual Result<std::shared_ptr<LinkTransport>> connect() = 0;
    // Makes connect() return soon, now and for ever.
    virtual void cancel() = 0;
    // The link that connect() gave is over; waits, within limits, for what is to end with it.
    virtual void ended(LinkEnd how) = 0;
    // Of the standby process, if it is our child; 0 otherwise. Any thread.
    [[nodiscard]] virtual pid_t pid() const = 0;
};

}  // namespace twinspool
