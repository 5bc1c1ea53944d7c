// SPDX-License-Identifier: Apache-2.0
#include "replicator/link/wire.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace twinspool {
namespace {

// TWINSPOOL_WIRE_VERSION=N makes a side of a test build speak another one.
std::uint16_t spoken_version() {
#ifdef TWINSPOOL_FAULTS
    static const char* const wish =
        std::getenv("TWINSPOOL_WIRE_VERSION");  // NOLINT(concurrency-mt-unsafe)
    if (wish != nullptr) return static_cast<std::uint16_t>(std::strtoul(wish, nullptr, 10));
#endif
    return kWireVersion;
}

std::size_t body_limit(MessageType type) {
    switch (type) {
        case MessageType::kHello:
            return sizeof(Hello);
        case MessageType::kWelcome:
            return sizeof(Welcome);
        case MessageType::kRefuse:
        case MessageType::kTrouble:
            return kMaxTextBytes;
        case MessageType::kFrame:
            return kMaxFrameBytes;
        case MessageType::kCommitted:
        case MessageType::kHurry:
            return sizeof(LsnMessage);
        case MessageType::kHeartbeat:
            return 0;
        case MessageType::kAck:
            return sizeof(Ack);
        case MessageType::kGreeting:
            return sizeof(Greeting);
        case MessageType::kFindings:
            return kMaxFindingsBytes;
        case MessageType::kSnapshots:
            return sizeof(SnapshotsHead) + kMaxToldSnapshots * sizeof(WireSnapshot);
    }
    return 0;
}

bool known(std::uint16_t type) {
    return type >= static_cast<std::uint16_t>(MessageType::kHello) &&
           type <= static_cast<std::uint16_t>(MessageType::kFindings);
}

// Longer names are not made; one that was is told cut off.
WireSnapshot record_of(const Snapshot& snapshot) {
    WireSnapshot record{.number = snapshot.number.value,
                        .time = raw(snapshot.time),
                        .used = snapshot.used,
                        .flags = (snapshot.incomplete ? kToldIncomplete : 0U) |
                                 (snapshot.broken ? kToldBroken : 0U),
                        .reserved = 0,
                        .name = {}};
    std::memcpy(record.name, snapshot.name.data(),
                std::min(snapshot.name.size(), sizeof record.name));
    return record;
}

Snapshot snapshot_of(const WireSnapshot& record) {
    return {.number = Lsn{record.number},
            .name = std::string{record.name, ::strnlen(record.name, sizeof record.name)},
            .time = WallTime{record.time},
            .incomplete = (record.flags & kToldIncomplete) != 0,
            .broken = (record.flags & kToldBroken) != 0,
            .used = record.used};
}

}  // namespace

Status send_message(LinkTransport& transport, MessageType type, Bytes body) {
    TS_ASSERT(body.size() <= body_limit(type));
    const MessageHeader header{.magic = kWireMagic,
                               .version = spoken_version(),
                               .type = static_cast<std::uint16_t>(type),
                               .size = static_cast<std::uint32_t>(body.size()),
                               .reserved = 0};
    return transport.send(std::as_bytes(std::span{&header, 1}), body);
}

Status send_text(LinkTransport& transport, MessageType type, std::string_view text) {
    text = text.substr(0, kMaxTextBytes);
    return send_message(transport, type, std::as_bytes(std::span{text}));
}

Status send_snapshots(LinkTransport& transport, const std::vector<Snapshot>& oldest_first) {
    const std::size_t told = std::min(oldest_first.size(), kMaxToldSnapshots);
    const std::size_t left_out = oldest_first.size() - told;
    const SnapshotsHead head{.count = oldest_first.size(), .told = told};
    std::vector<std::byte> body(sizeof head + told * sizeof(WireSnapshot));
    std::memcpy(body.data(), &head, sizeof head);
    for (std::size_t i = 0; i < told; ++i) {
        const auto record = record_of(oldest_first[i == 0 ? 0 : left_out + i]);
        std::memcpy(body.data() + sizeof head + i * sizeof record, &record, sizeof record);
    }
    return send_message(transport, MessageType::kSnapshots, body);
}

Result<ToldSnapshots> snapshots_of(const Message& message) {
    const auto error = [&] {
        return make_error(EBADMSG, "understand the other side: message {} of {} bytes",
                          static_cast<int>(message.type), message.body.size());
    };
    SnapshotsHead head;
    if (message.type != MessageType::kSnapshots || message.body.size() < sizeof head)
        return error();
    std::memcpy(&head, message.body.data(), sizeof head);
    if (head.told > kMaxToldSnapshots || head.told > head.count ||
        message.body.size() != sizeof head + head.told * sizeof(WireSnapshot))
        return error();
    ToldSnapshots told{.count = head.count, .snapshots = {}};
    for (std::size_t i = 0; i < head.told; ++i) {
        WireSnapshot record;
        std::memcpy(&record, message.body.data() + sizeof head + i * sizeof record, sizeof record);
        told.snapshots.push_back(snapshot_of(record));
    }
    return told;
}

namespace {

std::size_t padded(std::size_t size) { return (size + 7) / 8 * 8; }

void append_finding(std::vector<std::byte>& body, const Finding& finding) {
    const WireFinding record{.check = finding.check.value,
                             .object = raw(finding.object),
                             .offset = finding.offset,
                             .length = finding.length,
                             .name_size = static_cast<std::uint32_t>(finding.name.size()),
                             .kind = static_cast<std::uint8_t>(finding.kind),
                             .zero = {}};
    const auto at = body.size();
    body.resize(at + sizeof record + padded(finding.name.size()));
    std::memcpy(body.data() + at, &record, sizeof record);
    std::memcpy(body.data() + at + sizeof record, finding.name.data(), finding.name.size());
}

}  // namespace

Status send_findings(LinkTransport& transport, const std::vector<Finding>& findings) {
    std::vector<std::byte> body;
    for (const Finding& finding : findings) {
        if (body.size() + sizeof(WireFinding) + padded(finding.name.size()) > kMaxFindingsBytes) {
            TS_TRY(send_message(transport, MessageType::kFindings, body));
            body.clear();
        }
        append_finding(body, finding);
    }
    return body.empty() ? Status{} : send_message(transport, MessageType::kFindings, body);
}

Result<std::vector<Finding>> findings_of(const Message& message) {
    const auto error = [&] {
        return make_error(EBADMSG, "understand the other side: message {} of {} bytes",
                          static_cast<int>(message.type), message.body.size());
    };
    if (message.type != MessageType::kFindings) return error();
    std::vector<Finding> findings;
    for (Bytes rest{message.body}; !rest.empty();) {
        WireFinding record;
        if (rest.size() < sizeof record) return error();
        std::memcpy(&record, rest.data(), sizeof record);
        rest = rest.subspan(sizeof record);
        if (record.name_size > rest.size() || padded(record.name_size) > rest.size() ||
            record.kind > static_cast<std::uint8_t>(FindingKind::kUnreadable))
            return error();
        findings.push_back(
            {.check = Lsn{record.check},
             .object = ObjectId{record.object},
             .kind = static_cast<FindingKind>(record.kind),
             .offset = record.offset,
             .length = record.length,
             .name = std::string{reinterpret_cast<const char*>(rest.data()), record.name_size}});
        rest = rest.subspan(padded(record.name_size));
    }
    return findings;
}

Result<MessageHeader> check_message_header(Bytes bytes) {
    MessageHeader header;
    if (bytes.size() < sizeof header) return make_error(EBADMSG, "read a message: cut off");
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.magic != kWireMagic)
        return make_error(EBADMSG, "read a message: the other side is not Twinspool");
    const bool refusal = header.type == static_cast<std::uint16_t>(MessageType::kRefuse);
    if (header.version != spoken_version() && !refusal)
        return make_error(
            EPROTONOSUPPORT,
            "understand the other side: it speaks version {} of the protocol, and this "
            "one version {}: install the same Twinspool on both",
            header.version, spoken_version());
    if (!known(header.type) || header.size > body_limit(static_cast<MessageType>(header.type)))
        return make_error(EBADMSG, "read a message: type {} with {} bytes", header.type,
                          header.size);
    return header;
}

Status receive_message(LinkTransport& transport, Message& message) {
    std::byte bytes[sizeof(MessageHeader)];
    TS_TRY(transport.receive(bytes));
    TS_ASSIGN(const MessageHeader header, check_message_header(bytes));
    message.type = static_cast<MessageType>(header.type);
    message.body.resize(header.size);
    return transport.receive(message.body);
}

}  // namespace twinspool
