// SPDX-License-Identifier: Apache-2.0
// Turn and Ending: what a verb is given for one attempt at a request, and how the attempt ended. A
// verb that would have to wait, or lacks credit, ends the attempt with nothing done, and is called
// again where waiting is allowed, or when there is credit.
#pragma once

#include <cstddef>

#include "journal/format/op.h"
#include "journal/log/journal.h"

namespace twinspool {

class Turn {
   public:
    enum class Waiting : bool { kForbidden, kAllowed };
    Turn(Journal& journal, Waiting waiting) : journal_(journal), waiting_(waiting) {}
    ~Turn() { journal_.give_credit(credit_); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    [[nodiscard]] bool may_wait() const { return waiting_ == Waiting::kAllowed; }

    // Credit for `bytes` more of records. False: not to be had now, or the journal has failed.
    [[nodiscard]] bool take_credit(std::size_t bytes) {
        if (earmarked_ >= bytes) {
            earmarked_ -= bytes;
            return true;
        }
        if (!journal_.try_take_credit(bytes)) return false;
        credit_ += bytes;
        return true;
    }
    // So that take_credit() for up to `bytes` is sure to succeed later, when it is too late to end.
    [[nodiscard]] bool earmark_credit(std::size_t bytes) {
        if (!journal_.try_take_credit(bytes)) return false;
        credit_ += bytes;
        earmarked_ = bytes;
        return true;
    }
    // The same, waiting for it: for threads of our own.
    [[nodiscard]] bool wait_for_credit(std::size_t bytes) {
        if (!journal_.take_credit(bytes)) return false;
        credit_ += bytes;
        return true;
    }
    template <typename T>
    Lsn append(const T& op) {
        const std::size_t size = encoded_size(op);
        TS_ASSERT(credit_ >= size);
        credit_ -= size;
        last_ = journal_.append(op);
        return last_;
    }
    // Of the last record of this turn; 0: nothing was logged.
    [[nodiscard]] Lsn last() const { return last_; }

   private:
    Journal& journal_;
    const Waiting waiting_;
    std::size_t credit_ = 0;     // taken and not used up
    std::size_t earmarked_ = 0;  // of it, what take_credit() may still be asked for
    Lsn last_;
};

// An errno, 0 for success, or one of the two reasons to call again.
class [[nodiscard]] Ending {
   public:
    static constexpr int kBusyCode = -1;
    static constexpr int kCreditCode = -2;
    constexpr Ending(int error) : code_(error) {}  // NOLINT: an errno is an ending
    static constexpr Ending done() { return Ending{0}; }
    static constexpr Ending busy() { return Ending{kBusyCode}; }  // a lock is taken
    static constexpr Ending no_credit() { return Ending{kCreditCode}; }

    [[nodiscard]] constexpr bool is_done() const { return code_ == 0; }
    [[nodiscard]] constexpr bool is_busy() const { return code_ == kBusyCode; }
    [[nodiscard]] constexpr bool lacks_credit() const { return code_ == kCreditCode; }
    [[nodiscard]] constexpr int code() const { return code_; }

   private:
    int code_;
};

// Errors of the inner steps carry the same codes; no text, so that none is allocated for them.
inline Error plain(int code) { return Error{code, {}}; }
inline Error plain(Ending ending) { return Error{ending.code(), {}}; }

}  // namespace twinspool
