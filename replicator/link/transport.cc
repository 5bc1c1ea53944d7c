// SPDX-License-Identifier: Apache-2.0
#include "replicator/link/transport.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace twinspool {

// The kernel counts its own structures against the buffer, too: never more than half of what is
// left.
bool socket_has_room(int socket, std::size_t bytes) {
    int limit = 0;
    int queued = 0;
    socklen_t size = sizeof limit;
    if (::getsockopt(socket, SOL_SOCKET, SO_SNDBUF, &limit, &size) != 0) return false;
    if (::ioctl(socket, SIOCOUTQ, &queued) != 0 || queued > limit) return false;
    return bytes <= static_cast<std::size_t>(limit - queued) / 2;
}

}  // namespace twinspool
