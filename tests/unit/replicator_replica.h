// SPDX-License-Identifier: Apache-2.0
// What the tests of apply share: a folder, an index in memory, and a replica that takes parts of a
// log and can be stopped, as by a kill, before any change of the disk.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "journal/delta/apply.h"
#include "replicator_model.h"

namespace twinspool::test {

class Folder {
   public:
    explicit Folder(std::string base) : path_(std::move(base) + "/twinspool-apply-XXXXXX") {
        TS_ASSERT(::mkdtemp(path_.data()) != nullptr);
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }

   private:
    std::string path_;
};

class MemoryIndex : public ObjectIndex {
   public:
    Result<std::optional<IndexEntry>> find(ObjectId object) override {
        if (const auto it = pending_.find(object); it != pending_.end()) return it->second;
        if (const auto it = committed_.find(object); it != committed_.end())
            return std::optional{it->second};
        return std::optional<IndexEntry>{};
    }
    Status put(ObjectId object, const IndexEntry& entry) override {
        pending_[object] = entry;
        return {};
    }
    Status erase(ObjectId object) override {
        pending_[object] = std::nullopt;
        return {};
    }
    void commit() {
        for (const auto& [object, entry] : pending_) {
            if (entry) committed_[object] = *entry;
            if (!entry) committed_.erase(object);
        }
        pending_.clear();
    }
    void drop() { pending_.clear(); }
    [[nodiscard]] std::size_t size() const { return committed_.size(); }

   private:
    std::unordered_map<ObjectId, IndexEntry> committed_;
    std::unordered_map<ObjectId, std::optional<IndexEntry>> pending_;
};

// Applies parts of a log; stops like a kill after a number of steps.
class Replica {
   public:
    explicit Replica(std::string store) : store_(std::move(store)) {}
    // Steps left: how many system calls may change the disk before the "kill".
    Result<ApplyCounters> apply_until(const Log& log, std::size_t upto,
                                      std::uint64_t steps = UINT64_MAX) {
        Delta delta;
        for (std::size_t i = applied_; i < upto; ++i) TS_TRY(delta.add(log[i]));
        Tree::Options options{.on_step = [&]() -> Status {
            if (steps == 0) return make_error(EINTR, "go on: killed");
            --steps;
            ++steps_taken_;
            return {};
        }};
        TS_ASSIGN(const auto tree, Tree::open(store_, std::move(options)));
        auto result = apply(delta, *tree, index_, options_);
        if (result.ok()) {
            index_.commit();
            applied_ = upto;
        } else {
            index_.drop();
        }
        return result;
    }
    MemoryIndex& index() { return index_; }
    void being_seeded() { options_.tree = ApplyOptions::Tree::kBeingSeeded; }
    [[nodiscard]] std::size_t applied() const { return applied_; }
    [[nodiscard]] std::uint64_t steps_taken() const { return steps_taken_; }
    [[nodiscard]] const std::string& store() const { return store_; }

   private:
    std::string store_;
    MemoryIndex index_;
    ApplyOptions options_;
    std::size_t applied_ = 0;
    std::uint64_t steps_taken_ = 0;
};

}  // namespace twinspool::test
