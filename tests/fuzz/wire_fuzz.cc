// SPDX-License-Identifier: Apache-2.0
// Any bytes as what the other side of a link sends: refused or understood, and what is understood
// of findings is understood the same when it is sent on.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "replicator/link/wire.h"

namespace {
class Given final : public twinspool::LinkTransport {
   public:
    explicit Given(twinspool::Bytes bytes) : rest_(bytes) {}
    twinspool::Status send(twinspool::Bytes /*head*/, twinspool::Bytes /*body*/) override {
        return {};
    }
    twinspool::Status receive(std::span<std::byte> out) override {
        if (rest_.size() < out.size()) return twinspool::make_error(ECONNRESET, "receive");
        std::copy_n(rest_.begin(), out.size(), out.begin());
        rest_ = rest_.subspan(out.size());
        return {};
    }
    void shutdown() override {}

   private:
    twinspool::Bytes rest_;
};

class Kept final : public twinspool::LinkTransport {
   public:
    twinspool::Status send(twinspool::Bytes head, twinspool::Bytes body) override {
        sent_.insert(sent_.end(), head.begin(), head.end());
        sent_.insert(sent_.end(), body.begin(), body.end());
        return {};
    }
    twinspool::Status receive(std::span<std::byte> /*out*/) override {
        return twinspool::make_error(ECONNRESET, "receive");
    }
    void shutdown() override {}
    [[nodiscard]] twinspool::Bytes sent() const { return sent_; }

   private:
    std::vector<std::byte> sent_;
};

void send_on(const std::vector<twinspool::Finding>& findings) {
    using namespace twinspool;
    Kept kept;
    if (!send_findings(kept, findings).ok()) std::abort();
    Given given{kept.sent()};
    std::vector<Finding> again;
    Message message;
    while (receive_message(given, message).ok()) {
        const auto part = findings_of(message);
        if (!part.ok()) std::abort();
        again.insert(again.end(), part->begin(), part->end());
    }
    if (again != findings) std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace twinspool;
    Given transport{std::as_bytes(std::span{data, size})};
    Message message;
    while (receive_message(transport, message).ok()) {
        (void)body_of<Greeting>(message, MessageType::kGreeting);
        (void)body_of<Hello>(message, MessageType::kHello);
        (void)body_of<Welcome>(message, MessageType::kWelcome);
        (void)body_of<Ack>(message, MessageType::kAck);
        (void)body_of<LsnMessage>(message, MessageType::kCommitted);
        (void)snapshots_of(message);
        if (const auto findings = findings_of(message); findings.ok()) send_on(*findings);
    }
    return 0;
}
