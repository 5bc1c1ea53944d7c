// SPDX-License-Identifier: Apache-2.0
// The part of the sender that keeps the time: silence, loss, fencing, going alone.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "journal/base/fault.h"
#include "replicator/link/sender.h"

namespace twinspool {
namespace {
constexpr std::chrono::milliseconds kWatchEvery{20};
constexpr Nanoseconds kLoadsWithin = std::chrono::minutes{10};
constexpr Nanoseconds kFirstFencePause = std::chrono::seconds{1};
constexpr Nanoseconds kLongestFencePause = std::chrono::seconds{30};
}  // namespace

void Sender::disconnected(const Error& why) {
    const std::lock_guard lock{mutex_};
    const std::string said = std::exchange(heard_last_, {});
    said_given_up_ = false;
    if (stopping_) return;
    // Whichever call it was that noticed.
    const bool gone = transport_ && (why.code == EPIPE || why.code == ECONNRESET);
    const std::string text = !said.empty() ? said
                             : gone        ? make_error(ECONNRESET, "hear from the standby").text()
                                           : why.text();
    if (trouble_ != text || greeted_) spdlog::warn("standby {}: {}", options_.target, text);
    if (!cannot_apply_ || refused_) {
        trouble_ = text;
        cannot_apply_ = false;
    }
    if (state_ == LinkState::kInSync || state_ == LinkState::kCatchingUp) {
        // A standby that comes, takes nothing and goes has been lost all the time.
        if (progressed_) {
            ++losses_;
            lost_since_ = unanswered_since_.value_or(Clock::now());
        }
        move_to(waited_for_ || !options_.wait ? LinkState::kConnecting : LinkState::kAlone);
    }
    unanswered_since_.reset();
}

void Sender::watch() {
    std::unique_lock lock{mutex_};
    while (!stopping_) {
        changed_.wait_for(lock, kWatchEvery, [this] { return stopping_; });
        const auto now = Clock::now();
        look_for_silence(now);
        if (state_ == LinkState::kCatchingUp) {
            const Lsn appended = journal_.appended();
            pace_.look(appended > durable_ ? appended - durable_ : 0, now);
        }
        // Who has no journal any more has nothing to go on with, and fences nobody.
        if (state_ == LinkState::kConnecting && waited_for_ && journal_.failure() == 0 &&
            now - lost_since_ >= options_.standby_timeout && !stopping_)
            consider_going_alone(lock);
    }
}

void Sender::look_for_silence(Clock::time_point now) {
    // A process of our own reads its whole journal before it greets, which nobody waits for here.
    const bool loading = !greeted_ && options_.connector->pid() != 0;
    const Nanoseconds limit =
        loading ? std::max(options_.standby_timeout, kLoadsWithin) : options_.standby_timeout;
    if (!unanswered_since_ || now - *unanswered_since_ < limit || !transport_) return;
    if (!silent_) {
        silent_ = true;
        heard_last_ = fmt::format(
            "no answer for {} ms",
            std::chrono::duration_cast<std::chrono::milliseconds>(now - *unanswered_since_)
                .count());
        spdlog::warn("standby {}: {}", options_.target, heard_last_);
    }
    // It may be stopped, or hang on its disk, or the network is gone: the link is given up.
    transport_->shutdown();
}

void Sender::consider_going_alone(std::unique_lock<std::mutex>& lock) {
    if (!options_.may_go_alone) {
        hold_ = "commits wait for it (on_standby_loss = freeze)";
        return;
    }
    if (fence_again_ && Clock::now() < *fence_again_) return;
    const std::uint64_t loss = losses_;
    lock.unlock();
    const Status fenced = options_.fence ? options_.fence() : Status{};
    lock.lock();
    if (!still_lost(loss) || stopping_ || journal_.failure() != 0) return;
    if (!fenced.ok()) {
        fence_pause_ =
            fence_again_ ? std::min(2 * fence_pause_, kLongestFencePause) : kFirstFencePause;
        fence_again_ = Clock::now() + fence_pause_;
        hold_ =
            fmt::format("commits wait for it: fence_peer has failed: {}", fenced.error().text());
        spdlog::error("standby {}: {}", options_.target, hold_);
        return;
    }
    lock.unlock();
    if (options_.fence) TS_FAULT(fence_succeeded);
    go_alone(loss);
    lock.lock();
}

bool Sender::still_lost(std::uint64_t loss) const {
    return state_ == LinkState::kConnecting && losses_ == loss;
}

void Sender::go_alone(std::uint64_t loss) {
    if (!journal_.take_credit(max_encoded_size(0))) return;  // the journal itself has failed
    const Lsn since = journal_.commit().standby(options_.index);
    const Lsn record =
        journal_.append(StandbyOp{.standby = options_.index, .waited_for = 0, .since = since});
    if (!journal_.make_durable(record).ok()) return;
    TS_FAULT(alone_durable);
    {
        const std::lock_guard lock{mutex_};
        // Back meanwhile: then the record is a true statement about a moment, no more.
        if (!still_lost(loss)) return;
        waited_for_ = false;
        hold_.clear();
        fence_again_.reset();
        move_to(LinkState::kAlone);
    }
    count_it_or_not();
    spdlog::warn("standby {}: going on alone since record {}", options_.target, since.value);
}

}  // namespace twinspool
