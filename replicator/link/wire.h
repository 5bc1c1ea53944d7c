// SPDX-License-Identifier: Apache-2.0
// Wire: the messages of a link. A 16-byte header, then a body of a fixed shape, a frame, or a text.
// Little-endian, fixed width. The primary speaks first (Greeting), the standby says what it has
// (Hello), the primary where they go on (Welcome); either may say Refuse instead. Then Frame,
// Committed, Hurry and Heartbeat go one way and Ack, Trouble, Snapshots and Findings the other.
//
// The header, and Refuse, are the same in every version of the protocol, so that each side can say
// to the other that it does not know its version.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/result.h"
#include "journal/format/finding.h"
#include "journal/format/format.h"
#include "journal/format/op.h"
#include "replicator/link/snapshot.h"
#include "replicator/link/transport.h"

namespace twinspool {

inline constexpr std::uint32_t kWireMagic = 0x4C505354;  // "TSPL"
inline constexpr std::uint16_t kWireVersion = 2;
inline constexpr std::size_t kMaxBodyBytes = kMaxFrameBytes;
inline constexpr std::size_t kMaxTextBytes = 1024;

enum class MessageType : std::uint16_t {
    kHello = 1,    // standby → primary: who I am and what I have
    kWelcome = 2,  // primary → standby: where we go on
    kRefuse = 3,   // either: a text, why not; the link ends
    kFrame = 4,    // primary → standby: a frame, as it stands in the segment
    kCommitted =
        5,  // primary → standby: durable everywhere up to here, when no frame follows to say so
    kHurry = 6,      // primary → standby: somebody waits for this Lsn to be applied
    kHeartbeat = 7,  // primary → standby: answer with an Ack
    kAck = 8,        // standby → primary: received, durable, applied
    kTrouble =
        9,  // standby → primary: a text: applying has stopped, and why (empty: goes on again)
    kSnapshots = 10,  // standby → primary: which snapshots there are
    kGreeting = 11,   // primary → standby: who calls
    kFindings = 12,  // standby → primary: checks that were not met; before the Ack that covers them
};

struct MessageHeader {
    std::uint32_t magic;     // 0
    std::uint16_t version;   // 4
    std::uint16_t type;      // 6
    std::uint32_t size;      // 8  of the body
    std::uint32_t reserved;  // 12
};
static_assert(sizeof(MessageHeader) == 16);

struct Greeting {
    std::uint64_t volume;        // 0
    std::uint64_t epoch_id;      // 8   of the reign that calls
    std::uint32_t epoch_number;  // 16
    std::uint32_t silence_ms;    // 20  who says nothing for so long is taken for lost; 0: never
};
static_assert(sizeof(Greeting) == 24);

inline constexpr std::uint32_t kHelloResyncing = 1;  // the tree is a mixture: `told` goes on

struct Hello {
    std::uint64_t volume;        // 0
    std::uint64_t end_lsn;       // 8   last durable record; 0: an empty store
    std::uint64_t end_chain;     // 16
    std::uint64_t epoch_id;      // 24  of the reign that wrote it
    std::uint32_t epoch_number;  // 32
    std::uint32_t flags;         // 36  kHello…
    std::uint64_t applied_lsn;   // 40
    std::uint64_t committed;     // 48  as far as the standby knows: never cut back behind it
    std::uint32_t seeded;        // 56  generation whose seed has been applied completely; 0: none
    std::uint32_t told;          // 60  generation that the store was begun, or resynced, in
};
static_assert(sizeof(Hello) == 64);

enum class WelcomeKind : std::uint32_t {
    kContinue = 0,   // behind end_lsn; or, start_lsn <= end_lsn, after cutting back to there
    kStartOver = 1,  // empty the store first; everything is told
    kResync = 2,     // keep the tree, drop the journal; everything is told, contents by hash
};

struct Welcome {
    std::uint64_t volume;         // 0
    std::uint64_t start_lsn;      // 8   the next frame begins with this record
    std::uint64_t previous;       // 16  chain before it
    std::uint64_t segment;        // 24  where that frame stands
    std::uint32_t kind;           // 32  WelcomeKind
    std::uint32_t generation;     // 36  that is being told, or was told last
    std::uint64_t segment_bytes;  // 40
    std::uint64_t told_from;      // 48  telling anew: records before this are of an older telling
    std::uint64_t epoch_id;       // 56  of the record before start_lsn
    std::uint32_t epoch_number;   // 64
    std::uint32_t reserved;       // 68
};
static_assert(sizeof(Welcome) == 72);

struct LsnMessage {  // Committed, Hurry
    std::uint64_t lsn;
};

struct Ack {
    std::uint64_t received;  // 0
    std::uint64_t durable;   // 8
    std::uint64_t applied;   // 16
    std::uint64_t chain;     // 24  at `durable`
};
static_assert(sizeof(Ack) == 32);

// Snapshots: this, and `told` records, oldest first.
struct SnapshotsHead {
    std::uint64_t count;  // 0   how many there are
    std::uint64_t told;   // 8   how many follow: the oldest and the newest if not all do
};
static_assert(sizeof(SnapshotsHead) == 16);

inline constexpr std::uint32_t kToldIncomplete = 1;
inline constexpr std::uint32_t kToldBroken = 2;

struct WireSnapshot {
    std::uint64_t number;    // 0
    std::int64_t time;       // 8   wall clock, ns
    std::uint64_t used;      // 16  bytes
    std::uint32_t flags;     // 24  kTold…
    std::uint32_t reserved;  // 28
    char name[64];           // 32  zeros behind it
};
static_assert(sizeof(WireSnapshot) == 96);

inline constexpr std::size_t kMaxToldSnapshots = 8192;
static_assert(sizeof(SnapshotsHead) + kMaxToldSnapshots * sizeof(WireSnapshot) <= kMaxBodyBytes);

// Findings: any number of these, each followed by the name and zeros up to a multiple of 8.
struct WireFinding {
    std::uint64_t check;      // 0   Lsn
    std::uint64_t object;     // 8
    std::uint64_t offset;     // 16
    std::uint64_t length;     // 24
    std::uint32_t name_size;  // 32
    std::uint8_t kind;        // 36  FindingKind
    std::uint8_t zero[3];     // 37
};
static_assert(sizeof(WireFinding) == 40);
inline constexpr std::size_t kMaxFindingsBytes = std::size_t{1} << 20;  // of one message

struct Message {
    MessageType type{};
    std::vector<std::byte> body;
    [[nodiscard]] std::string_view text() const {
        return {reinterpret_cast<const char*>(body.data()), body.size()};
    }
};

Status send_message(LinkTransport& transport, MessageType type, Bytes body);
template <typename Body>
Status send_body(LinkTransport& transport, MessageType type, const Body& body) {
    return send_message(transport, type, std::as_bytes(std::span{&body, 1}));
}
Status send_text(LinkTransport& transport, MessageType type, std::string_view text);

// Snapshots as the standby has them, and as the primary hears of them.
struct ToldSnapshots {
    std::uint64_t count = 0;          // how many there are
    std::vector<Snapshot> snapshots;  // oldest first; of very many the oldest and the newest
};
Status send_snapshots(LinkTransport& transport, const std::vector<Snapshot>& oldest_first);
// EBADMSG if the message is no such list.
Result<ToldSnapshots> snapshots_of(const Message& message);

// In as many messages as it takes.
Status send_findings(LinkTransport& transport, const std::vector<Finding>& findings);
// EBADMSG if the message is no such list.
Result<std::vector<Finding>> findings_of(const Message& message);

// The next message, into `message` (whose memory is used again). EBADMSG: not ours, or beyond
// bounds.
Status receive_message(LinkTransport& transport, Message& message);
// Checks a header as it came. Used by receive_message() and by the fuzz target.
Result<MessageHeader> check_message_header(Bytes bytes);

// The body of a fixed shape. EBADMSG if the message is of another type or size.
template <typename Body>
Result<Body> body_of(const Message& message, MessageType type) {
    if (message.type != type || message.body.size() != sizeof(Body))
        return make_error(EBADMSG, "understand the other side: message {} of {} bytes",
                          static_cast<int>(message.type), message.body.size());
    Body body;
    std::memcpy(&body, message.body.data(), sizeof body);
    return body;
}

}  // namespace twinspool
