// SPDX-License-Identifier: Apache-2.0
// Serving: runs a verb for a request, on the thread that brought it if that does not have to wait,
// on the pool if it would, later if there is no credit, and replies once.
//
// Arguments are used in place as long as the request stays on its thread, and kept when it leaves
// it. Invariant: a thread that serves a queue never waits, neither for a disk, nor an object's
// lock, nor credit.
#pragma once

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "fuse/kernel/libfuse.h"
#include "fuse/serve/answer.h"
#include "fuse/serve/handlers.h"
#include "fuse/serve/reply.h"

namespace twinspool {

enum class Place : std::uint8_t { kHere, kPool };

// The service behind a request, its caller and the buffer for its answer.
Service& service_of(fuse_req_t request);
Request decode_request(fuse_req_t request);
// Whether what the request carries stays where it is until the reply (it does over io_uring).
bool arguments_stay(fuse_req_t request);

// For ThreadSanitizer, which does not see that the kernel passes a request's memory on from the
// thread that replied to the thread that serves the next one; what libfuse writes into it to reply
// comes after the last moment that can be marked, and is left out. Nothing in other builds.
void request_came(fuse_req_t request);
class RequestGoes {
   public:
    explicit RequestGoes(fuse_req_t request);
    ~RequestGoes();  // NOLINT(performance-trivially-destructible): in one build it is not
    RequestGoes(const RequestGoes&) = delete;
    RequestGoes& operator=(const RequestGoes&) = delete;
};

// An argument that outlives its handler.
template <typename T>
class Kept {
   public:
    Kept(fuse_req_t, T value) : value_(value) {}
    T get() { return value_; }

   private:
    T value_;
};

template <>
class Kept<const char*> {
   public:
    Kept(fuse_req_t, const char* value) : value_(value) {}
    const char* get() { return value_.c_str(); }

   private:
    std::string value_;
};

template <>
class Kept<Bytes> {
   public:
    Kept(fuse_req_t request, Bytes value) : value_(value) {
        if (arguments_stay(request)) return;
        copy_.assign(value.begin(), value.end());
        value_ = copy_;
    }
    Kept(Kept&&) noexcept = default;  // a vector that moves keeps its place in memory
    Bytes get() { return value_; }

   private:
    std::vector<std::byte> copy_;
    Bytes value_;
};

// One attempt. Replies and says done, or says why it must be made again.
template <auto Verb, typename... Args>
Ending attempt(fuse_req_t request, Turn::Waiting waiting, Args... args) {
    Service& service = service_of(request);
    Turn turn{service.volume.journal, waiting};
    Answered answered = Verb(service, turn, decode_request(request), args...);
    if (answered.ok()) {
        Reply{service.volume, request}.answer(std::move(*answered), turn.last());
        return Ending::done();
    }
    const Ending ending{answered.error().code};
    if (ending.is_busy() || ending.lacks_credit()) return ending;
    Reply{service.volume, request}.error(ending.code());
    return Ending::done();
}

// A request that has left its thread.
template <auto Verb, typename... Args>
class Deferred : public std::enable_shared_from_this<Deferred<Verb, Args...>> {
   public:
    Deferred(fuse_req_t request, Args... args)
        : request_(request), args_(Kept<Args>{request, args}...) {}

    void post() {
        service_of(request_).volume.pool.post([self = this->shared_from_this()] { self->run(); },
                                              Pool::Full::kQueueAnyway);
    }
    void park() {
        Journal& journal = service_of(request_).volume.journal;
        journal.when_credit([self = this->shared_from_this()] { self->post(); });
    }

   private:
    void run() {
        const Ending ending = std::apply(
            [this](auto&... kept) {
                return attempt<Verb, Args...>(request_, Turn::Waiting::kAllowed, kept.get()...);
            },
            args_);
        if (ending.is_busy()) post();
        if (ending.lacks_credit()) park();
    }
    fuse_req_t request_;
    std::tuple<Kept<Args>...> args_;
};

template <auto Verb, typename... Args>
void serve(fuse_req_t request, Place place, Args... args) {
    request_came(request);
    Ending ending = Ending::busy();
    if (place == Place::kHere)
        ending = attempt<Verb, Args...>(request, Turn::Waiting::kForbidden, args...);
    if (ending.is_done()) return;
    const auto deferred = std::make_shared<Deferred<Verb, Args...>>(request, args...);
    if (ending.lacks_credit())
        deferred->park();
    else
        deferred->post();
}

}  // namespace twinspool
