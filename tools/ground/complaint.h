// SPDX-License-Identifier: Apache-2.0
// Complaint: why a command does not end well: its exit code, and one clear sentence that says what
// was tried, on what, why not, and what to do. Outcome: a value or a complaint. Values; any thread.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "journal/base/result.h"

namespace twinspool {

enum class ExitCode : int {
    kDone = 0,
    kFailed = 1,    // also: the machine lacks something, damage found
    kUsage = 2,     // usage or bad input; nothing was changed
    kDegraded = 3,  // degraded, differing or not current
};

struct [[nodiscard]] Complaint {
    ExitCode code = ExitCode::kFailed;
    std::string sentence;  // without "twinspool: " and without a full stop
    Complaint() = default;
    Complaint(ExitCode exit_code, std::string text) : code(exit_code), sentence(std::move(text)) {}
    Complaint(const Error& error) : sentence(fmt::format("could not {}", error.text())) {}
};

template <typename... Args>
Complaint bad_input(fmt::format_string<Args...> format, Args&&... args) {
    return {ExitCode::kUsage, fmt::format(format, std::forward<Args>(args)...)};
}

template <typename... Args>
Complaint failure(fmt::format_string<Args...> format, Args&&... args) {
    return {ExitCode::kFailed, fmt::format(format, std::forward<Args>(args)...)};
}

template <typename T>
class [[nodiscard]] Outcome {
   public:
    Outcome(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Outcome(Complaint complaint) : state_(std::in_place_index<1>, std::move(complaint)) {}
    Outcome(const Error& error) : state_(std::in_place_index<1>, error) {}

    [[nodiscard]] bool ok() const { return state_.index() == 0; }
    T& value() & { return std::get<0>(state_); }
    const T& value() const& { return std::get<0>(state_); }
    T&& value() && { return std::get<0>(std::move(state_)); }
    T* operator->() { return &std::get<0>(state_); }
    T& operator*() & { return std::get<0>(state_); }
    [[nodiscard]] const Complaint& error() const { return std::get<1>(state_); }

   private:
    std::variant<T, Complaint> state_;
};

template <>
class [[nodiscard]] Outcome<void> {
   public:
    Outcome() = default;
    Outcome(Complaint complaint) : complaint_(std::move(complaint)) {}
    Outcome(const Error& error) : complaint_(error) {}
    [[nodiscard]] bool ok() const { return !complaint_.has_value(); }
    [[nodiscard]] const Complaint& error() const { return *complaint_; }

   private:
    std::optional<Complaint> complaint_;
};

using Verdict = Outcome<void>;

}  // namespace twinspool
