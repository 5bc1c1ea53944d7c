// SPDX-License-Identifier: Apache-2.0
// PastImage: the image of one snapshot: the tree as it is now, overlaid with what history has.
//
// Each read takes, in this order: the index entry, the tree, a catalogue at least as new as both,
// and then what history has, which wins. So a change that is going on at the same time is never
// seen. Any thread; the lock protects what is remembered. Made by Past.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "journal/base/fd.h"
#include "journal/delta/image.h"
#include "replicator/store/database.h"
#include "replicator/store/keys.h"

namespace twinspool {

// What a Past shares with its images.
class PastSource {
   public:
    virtual ~PastSource() = default;
    [[nodiscard]] virtual const Database& database() const = 0;
    [[nodiscard]] virtual int store() const = 0;  // a descriptor on the store's file system
    // Makes the catalogue as new as anything that was seen before the call. Returns a number that
    // changes whenever it became newer.
    virtual Result<std::uint64_t> follow() = 0;
    // All snapshots up to this one are broken.
    [[nodiscard]] virtual Lsn broken_upto() const = 0;
};

class PastImage final : public Image {
   public:
    // `hold`: the lock on the snapshot. A record with number 0: the tree as it stands.
    PastImage(std::shared_ptr<PastSource> source, SnapshotRecord record, std::optional<Fd> hold)
        : source_(std::move(source)), record_(std::move(record)), hold_(std::move(hold)) {}

    [[nodiscard]] const std::vector<ImageRoot>& roots() const override { return record_.roots; }
    Result<ImageAttributes> attributes(ObjectId object) override;
    Result<ObjectId> find(ObjectId directory, std::string_view name) override;
    Result<std::vector<ImageEntry>> list(ObjectId directory) override;
    Result<std::size_t> read(ObjectId file, std::uint64_t offset,
                             std::span<std::byte> into) override;
    Result<std::optional<ImageRange>> next_data(ObjectId file, std::uint64_t offset) override;
    Result<std::string> target(ObjectId symlink) override;
    Result<std::map<std::string, std::string>> xattrs(ObjectId object) override;
    Result<std::uint64_t> version(ObjectId object) override;

   private:
    using Entries = std::vector<ImageEntry>;
    struct Kept {
        Lsn number;
        std::string value;
    };
    [[nodiscard]] Lsn number() const { return record_.snapshot.number; }
    [[nodiscard]] bool is_past() const { return number() != Lsn{}; }
    [[nodiscard]] bool has(const IndexEntry& entry) const {
        return !is_past() || entry.born < number();
    }
    // EIO from the moment on that the snapshot is broken.
    Status follow();
    [[nodiscard]] Error gave_up() const;
    // ESTALE: the snapshot has no such object.
    Result<IndexEntry> known(ObjectId object) const;
    Result<bool> has_object(ObjectId object) const;
    Result<Fd> open(const IndexEntry& entry, int flags) const;
    // What history has of it: the oldest entry that is not older than the snapshot.
    Result<std::optional<Kept>> kept(std::string_view key) const;
    Result<std::optional<AttributesImage>> kept_attributes(ObjectId object) const;
    // The object that stands at a name now, if the snapshot has it.
    Result<ObjectId> standing(int directory, const std::string& name) const;
    Result<std::shared_ptr<const Entries>> entries(ObjectId directory);
    Result<Entries> read_entries(ObjectId directory);
    Status overlay_entries(ObjectId directory, std::map<std::string, ObjectId>& found) const;
    Status overlay_blocks(ObjectId file, std::uint64_t offset, std::span<std::byte> into) const;
    struct KeptBlock {
        std::uint64_t block;
        std::uint8_t holes;
    };
    static std::optional<ImageRange> data_in_block(const KeptBlock& kept, std::uint64_t offset,
                                                   std::uint64_t size);
    struct DataSought {
        std::optional<ImageRange> found;
        std::uint64_t upto = 0;  // if nothing was found: there is none before it
    };
    Result<DataSought> data_of_kept_blocks(ObjectId file, std::uint64_t offset, std::uint64_t size,
                                           ImageRange on_disk) const;
    Result<std::uint64_t> size_of(ObjectId file);
    std::shared_ptr<const Entries> remembered(ObjectId directory);
    void remember(ObjectId directory, const std::shared_ptr<const Entries>& list);

    const std::shared_ptr<PastSource> source_;
    const SnapshotRecord record_;
    const std::optional<Fd> hold_;
    std::atomic<std::uint64_t> whole_at_{UINT64_MAX};  // last follow() at which it was not broken
    std::mutex mutex_;                                 // protects what follows
    std::unordered_map<ObjectId, std::shared_ptr<const Entries>> lists_;
    std::deque<ObjectId> listed_;  // in the order in which they were read
    std::size_t listed_entries_ = 0;
    std::unordered_map<ObjectId, std::uint64_t> sizes_;
};

}  // namespace twinspool
