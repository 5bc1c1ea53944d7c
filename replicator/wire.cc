// SPDX-License-Identifier: Apache-2.0
#include "replicator/wire.h"

#include <cstring>

namespace twinspool {
namespace {

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
    }
    return 0;
}

bool known(std::uint16_t type) {
    return type >= static_cast<std::uint16_t>(MessageType::kHello) &&
           type <= static_cast<std::uint16_t>(MessageType::kTrouble);
}

}  // namespace

Status send_message(LinkTransport& transport, MessageType type, Bytes body) {
    TS_ASSERT(body.size() <= body_limit(type));
    const MessageHeader header{.magic = kWireMagic,
                               .version = kWireVersion,
                               .type = static_cast<std::uint16_t>(type),
                               .size = static_cast<std::uint32_t>(body.size()),
                               .reserved = 0};
    return transport.send(std::as_bytes(std::span{&header, 1}), body);
}

Status send_text(LinkTransport& transport, MessageType type, std::string_view text) {
    text = text.substr(0, kMaxTextBytes);
    return send_message(transport, type, std::as_bytes(std::span{text}));
}

Result<MessageHeader> check_message_header(Bytes bytes) {
    MessageHeader header;
    if (bytes.size() < sizeof header) return make_error(EBADMSG, "read a message: cut off");
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.magic != kWireMagic)
        return make_error(EBADMSG, "read a message: the other side is not Twinspool");
    if (header.version != kWireVersion)
        return make_error(EPROTONOSUPPORT, "read a message: protocol version {} is not {}",
                          header.version, kWireVersion);
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
