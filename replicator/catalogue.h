// SPDX-License-Identifier: Apache-2.0
// Catalogue: what a standby's store knows besides its plain files: where each object is (by file
// handle), the position up to which the tree is applied, and the newest complete seed. A RocksDB in
// STORE/catalogue; RocksDB is used nowhere else (history will live in the same database).
//
// Invariant: put() and erase() count from commit() on, together with the position; until then only
// find() here shows them. So the catalogue on disk is always that of its position.
// One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "journal/result.h"
#include "journal/tree.h"
#include "journal/units.h"

namespace twinspool {

class Catalogue : public ObjectIndex {
   public:
    // Makes it if need be. EINVAL: it is another volume's, or of another version. EBUSY: in use.
    static Result<std::unique_ptr<Catalogue>> open(const std::string& path, std::uint64_t volume);
    ~Catalogue() override;

    Result<std::optional<IndexEntry>> find(ObjectId object) override;
    Status put(ObjectId object, const IndexEntry& entry) override;
    Status erase(ObjectId object) override;

    [[nodiscard]] Position applied() const;
    [[nodiscard]] std::uint32_t seeded() const;  // generation; 0: never
    [[nodiscard]] bool fresh() const;            // made just now, and nothing committed yet

    struct Commit {
        Position applied;
        std::optional<std::uint32_t> seeded;
    };
    // The end of the range that is about to be applied; outlives the process, not the power. After
    // an interrupted apply no shorter range may be applied, because the tree may have effects of
    // all of it.
    Status begin(Lsn end);
    [[nodiscard]] Lsn begun() const;
    // Durable when it returns.
    Status commit(const Commit& commit);
    void drop();  // what is not committed

   private:
    struct Parts;
    explicit Catalogue(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

}  // namespace twinspool
