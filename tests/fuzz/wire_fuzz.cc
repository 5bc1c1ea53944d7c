// SPDX-License-Identifier: Apache-2.0
// Any bytes as what the other side of a link sends.
#include <algorithm>
#include <cstdint>

#include "replicator/wire.h"

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
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace twinspool;
    Given transport{std::as_bytes(std::span{data, size})};
    Message message;
    while (receive_message(transport, message).ok()) {
        (void)body_of<Hello>(message, MessageType::kHello);
        (void)body_of<Welcome>(message, MessageType::kWelcome);
        (void)body_of<Ack>(message, MessageType::kAck);
        (void)snapshots_of(message);
    }
    return 0;
}
