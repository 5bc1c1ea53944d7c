// SPDX-License-Identifier: Apache-2.0
// Result: a value, or an errno and what was being done. Operating errors are returned; programmer
// errors end the process (TS_ASSERT stays on in release builds). Values only; any thread.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace twinspool {

// `code` is an errno; `doing` is a clause that can stand after "could not": "open /x/y". With
// EBADMSG (damage) and EREMOTEIO (the other side's words) it says why, too.
struct [[nodiscard]] Error {
    int code = EIO;
    std::string doing;
    [[nodiscard]] std::string text() const {
        if (code == EBADMSG || code == EREMOTEIO) return doing;
        return fmt::format("{}: {}", doing, std::strerror(code));  // NOLINT(concurrency-mt-unsafe)
    }
};

template <typename... Args>
Error make_error(int code, fmt::format_string<Args...> format, Args&&... args) {
    return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}

// The calling thread's errno now, with what was being done.
template <typename... Args>
Error last_error(fmt::format_string<Args...> format, Args&&... args) {
    const int code = errno;
    return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}

[[noreturn]] void assertion_failed(const char* what, const char* file, int line);

template <typename T>
class [[nodiscard]] Result {
   public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

    [[nodiscard]] bool ok() const { return state_.index() == 0; }
    explicit operator bool() const { return ok(); }
    T& value() & { return std::get<0>(state_); }
    const T& value() const& { return std::get<0>(state_); }
    T&& value() && { return std::get<0>(std::move(state_)); }
    T* operator->() { return &std::get<0>(state_); }
    const T* operator->() const { return &std::get<0>(state_); }
    T& operator*() & { return std::get<0>(state_); }
    const T& operator*() const& { return std::get<0>(state_); }
    [[nodiscard]] const Error& error() const { return std::get<1>(state_); }

   private:
    std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
   public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}
    [[nodiscard]] bool ok() const { return !error_.has_value(); }
    explicit operator bool() const { return ok(); }
    [[nodiscard]] const Error& error() const { return *error_; }

   private:
    std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace twinspool

#define TS_ASSERT(condition)                             \
    (static_cast<bool>(condition) ? static_cast<void>(0) \
                                  : ::twinspool::assertion_failed(#condition, __FILE__, __LINE__))

// Leaves the enclosing function with the error, if there is one.
#define TS_TRY(expression)                                                               \
    do {                                                                                 \
        if (auto ts_status_ = (expression); !ts_status_.ok()) return ts_status_.error(); \
    } while (false)

#define TS_CONCAT_(a, b) a##b
#define TS_CONCAT(a, b) TS_CONCAT_(a, b)
#define TS_ASSIGN_(result, target, expression) \
    auto result = (expression);                \
    if (!result.ok()) return result.error();   \
    target = std::move(result).value()
// TS_ASSIGN(auto fd, open_something(...)): the value, or leaves with the error.
#define TS_ASSIGN(target, expression) \
    TS_ASSIGN_(TS_CONCAT(ts_result_, __LINE__), target, expression)
