// SPDX-License-Identifier: Apache-2.0
// Database: the ordered, checksummed store below the catalogue and the history: two RocksDB, in
// STORE/catalogue and STORE/history/<n>, used nowhere else. Keys are compared bytewise. Two, so
// that a disk that history has filled does not keep the catalogue from being written, and so that
// history can go at once.
//
// One process owns it and writes; others may read it meanwhile. Durable is what was written with
// kSynced, or before a sync(); what was written survives a kill in any case.
// Threads: any for get() and ranges; one at a time for the rest.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "journal/base/result.h"

namespace twinspool {

enum class Family : std::uint8_t {
    kState,    // what the store stands at, objects, snapshots
    kHistory,  // before-images
};
inline constexpr std::size_t kFamilies = 2;

// Changes that are written together: those of a family all or none, the history's first.
class Batch {
   public:
    void put(Family family, std::string_view key, std::string_view value);
    void erase(Family family, std::string_view key);
    [[nodiscard]] std::size_t bytes() const;
    [[nodiscard]] bool empty() const;

   private:
    friend class Database;
    struct Change {
        Family family;
        bool erased;
        std::string key;
        std::string value;
    };
    std::vector<Change> changes_;
    std::size_t bytes_ = 0;
};

// The keys from `from` up to, but not including, `end`, as they were when it was made.
class KeyRange {
   public:
    ~KeyRange();
    KeyRange(KeyRange&&) noexcept;
    // Moves to the first key (at or after `key`), to the last; then on.
    void first();
    void seek(std::string_view key);
    void last();
    void next();
    [[nodiscard]] bool valid() const;
    [[nodiscard]] std::string_view key() const;
    [[nodiscard]] std::string_view value() const;
    // Why it is not valid: the end, or an error.
    [[nodiscard]] Status status() const;

   private:
    friend class Database;
    struct Parts;
    explicit KeyRange(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

class Database {
   public:
    // Makes it if need be. EBUSY: another process owns it. `history`: its number.
    static Result<std::unique_ptr<Database>> open(const std::string& store, std::uint64_t history);
    // As it is now, for a process that does not own it; `scratch` is an empty directory of its own.
    // ENOENT: there is none.
    static Result<std::unique_ptr<Database>> open_to_read(const std::string& store,
                                                          std::uint64_t history,
                                                          const std::string& scratch);
    ~Database();

    Result<std::optional<std::string>> get(Family family, std::string_view key) const;
    [[nodiscard]] KeyRange range(Family family, std::string_view from, std::string_view end) const;

    enum class Durability : std::uint8_t { kWritten, kSynced };
    Status write(const Batch& batch, Durability durability);
    Status sync();
    // Gives back the space of what was erased from the history, which it takes until then. Needs
    // space of its own for what is left.
    Status compact_history();
    // Goes on with an empty history of this number, and gives the space of all others back. It may
    // fail half-way: then it is to be called again before the history is used.
    Status begin_history(std::uint64_t number);
    [[nodiscard]] bool has_history() const;

    // A reader sees everything that was written before this call.
    Status catch_up();

   private:
    struct Parts;
    explicit Database(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

}  // namespace twinspool
