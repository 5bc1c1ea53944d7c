// SPDX-License-Identifier: Apache-2.0
// Target: where a standby is, and addresses, as people write them. Pure functions, none of which
// looks anything up; any thread. Complaints are bad input: they say what is wrong with the text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "replicator/link/tcp.h"
#include "tools/ground/complaint.h"
#include "tools/volume/config.h"

namespace twinspool {

// As rsync writes it: PATH | HOST[:PORT]:/PATH | [V6][:PORT]:/PATH. A colon behind the first slash
// belongs to a path of this machine. That path may be relative; the other one may not.
Outcome<StandbyConfig> parse_standby_target(std::string_view text);

// A name, or an address (IPv6 without brackets).
Verdict check_host(std::string_view host);

// "ADDR", "ADDR:PORT", "[V6]", "[V6]:PORT", "V6", ":PORT": where to listen.
Outcome<HostAddress> parse_listen(std::string_view text, std::uint16_t usual_port);

// "ADDR:PORT", "[V6]:PORT" or "PORT"; without an address it is that of loopback. As ADDR:PORT.
Outcome<std::string> parse_endpoint(std::string_view text);

// "ADDR:PORT", "[V6]:PORT", ":PORT": as parse_listen() reads it.
std::string spell_listen(const HostAddress& address);

// "HOST", "HOST:PORT", "[V6]:PORT"; the usual port is left out.
std::string spell_host(std::string_view host, std::uint16_t port);

}  // namespace twinspool
