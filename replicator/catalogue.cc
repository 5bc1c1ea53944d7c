// SPDX-License-Identifier: Apache-2.0
#include "replicator/catalogue.h"

#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>

#include <cstring>
#include <type_traits>
#include <unordered_map>
#include <utility>

namespace twinspool {
namespace {

constexpr char kObjectPrefix = 'o';
constexpr const char* kStateKey = "state";
constexpr const char* kBegunKey = "begun";  // an Lsn
constexpr std::uint32_t kCatalogueVersion = 1;
constexpr std::size_t kWriteBufferBytes = std::size_t{16} << 20;
constexpr std::size_t kBlockCacheBytes = std::size_t{16} << 20;
constexpr int kBloomBits = 10;

// The value of kStateKey.
struct State {
    std::uint64_t volume = 0;   // 0
    std::uint32_t version = 0;  // 8
    std::uint32_t seeded = 0;   // 12
    std::uint64_t lsn = 0;      // 16
    std::uint64_t chain = 0;    // 24
};
static_assert(sizeof(State) == 32 && std::is_trivially_copyable_v<State>);

// The value of an object: this, then for directories the rest, then the handle's bytes.
struct ObjectValue {
    std::uint32_t type = 0;        // 0
    std::int32_t handle_type = 0;  // 4
};
struct DirectoryValue {
    std::uint64_t parent = 0;       // 0
    std::int64_t seconds = 0;       // 8
    std::uint64_t nanoseconds = 0;  // 16
};
static_assert(sizeof(ObjectValue) == 8 && sizeof(DirectoryValue) == 24);

Error failed(const rocksdb::Status& status, const std::string& doing) {
    int code = EIO;
    if (status.IsNoSpace()) code = ENOSPC;
    if (status.IsCorruption()) code = EBADMSG;
    if (status.IsBusy() || status.ToString().find("lock") != std::string::npos) code = EBUSY;
    return make_error(code, "{} the catalogue ({})", doing, status.ToString());
}

// Big-endian, so that objects made together stand together.
struct Key {
    explicit Key(ObjectId object) {
        bytes[0] = kObjectPrefix;
        for (int i = 0; i < 8; ++i) bytes[1 + i] = static_cast<char>(raw(object) >> (56 - 8 * i));
    }
    [[nodiscard]] rocksdb::Slice slice() const { return {bytes, sizeof bytes}; }
    char bytes[9];
};

template <typename T>
void append(std::string& text, const T& value) {
    text.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
bool take(std::string_view& text, T& value) {
    if (text.size() < sizeof value) return false;
    std::memcpy(&value, text.data(), sizeof value);
    text.remove_prefix(sizeof value);
    return true;
}

std::string encode_entry(const IndexEntry& entry) {
    std::string text;
    append(text, ObjectValue{.type = entry.type, .handle_type = entry.handle.type});
    if (entry.type == S_IFDIR)
        append(text, DirectoryValue{.parent = raw(entry.parent),
                                    .seconds = entry.mtime.seconds,
                                    .nanoseconds = entry.mtime.nanoseconds});
    text.append(reinterpret_cast<const char*>(entry.handle.bytes.data()), entry.handle.size);
    return text;
}

Result<IndexEntry> decode_entry(std::string_view text) {
    ObjectValue object;
    DirectoryValue directory;
    if (!take(text, object) || (object.type == S_IFDIR && !take(text, directory)) ||
        text.size() > kMaxHandleBytes)
        return make_error(EBADMSG, "read an object of the catalogue");
    IndexEntry entry{
        .handle = {.type = object.handle_type, .size = static_cast<std::uint32_t>(text.size())},
        .type = object.type,
        .parent = ObjectId{directory.parent},
        .mtime = {.seconds = directory.seconds,
                  .nanoseconds = static_cast<std::uint32_t>(directory.nanoseconds)}};
    std::memcpy(entry.handle.bytes.data(), text.data(), text.size());
    return entry;
}

rocksdb::Options database_options() {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.write_buffer_size = kWriteBufferBytes;
    options.max_background_jobs = 2;
    options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
    options.keep_log_file_num = 2;
    rocksdb::BlockBasedTableOptions table;
    table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes);
    // New objects are looked up too: an interrupted apply may have put them there.
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kBloomBits));
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    return options;
}

}  // namespace

struct Catalogue::Parts {
    std::unique_ptr<rocksdb::DB> database;
    State state;
    std::uint64_t begun = 0;
    bool fresh = true;
    bool write_failed = false;
    std::unordered_map<ObjectId, std::optional<IndexEntry>> changes;
};

Catalogue::Catalogue(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Catalogue::~Catalogue() = default;

Result<std::unique_ptr<Catalogue>> Catalogue::open(const std::string& path, std::uint64_t volume) {
    auto parts = std::make_unique<Parts>();
    rocksdb::DB* database = nullptr;
    auto status = rocksdb::DB::Open(database_options(), path, &database);
    if (!status.ok()) return failed(status, "open");
    parts->database.reset(database);
    std::string text;
    status = database->Get(rocksdb::ReadOptions{}, kStateKey, &text);
    if (!status.ok() && !status.IsNotFound()) return failed(status, "read");
    if (status.ok()) {
        std::string_view rest{text};
        if (!take(rest, parts->state)) return make_error(EBADMSG, "read the catalogue {}", path);
        if (parts->state.version != kCatalogueVersion)
            return make_error(EINVAL, "use the catalogue {}, which has version {}, not {}", path,
                              parts->state.version, kCatalogueVersion);
        if (parts->state.volume != volume)
            return make_error(EINVAL, "use the catalogue {}, which is of another volume", path);
        parts->fresh = false;
    }
    status = database->Get(rocksdb::ReadOptions{}, kBegunKey, &text);
    if (!status.ok() && !status.IsNotFound()) return failed(status, "read");
    if (std::string_view rest{text}; status.ok() && !take(rest, parts->begun))
        return make_error(EBADMSG, "read the catalogue {}", path);
    parts->state.volume = volume;
    parts->state.version = kCatalogueVersion;
    return std::unique_ptr<Catalogue>{new Catalogue{std::move(parts)}};
}

Result<std::optional<IndexEntry>> Catalogue::find(ObjectId object) {
    if (const auto it = parts_->changes.find(object); it != parts_->changes.end())
        return it->second;
    rocksdb::PinnableSlice value;
    const auto status =
        parts_->database->Get(rocksdb::ReadOptions{}, parts_->database->DefaultColumnFamily(),
                              Key{object}.slice(), &value);
    if (status.IsNotFound()) return std::optional<IndexEntry>{};
    if (!status.ok()) return failed(status, "read");
    TS_ASSIGN(const IndexEntry entry, decode_entry({value.data(), value.size()}));
    return std::optional<IndexEntry>{entry};
}

Status Catalogue::put(ObjectId object, const IndexEntry& entry) {
    parts_->changes[object] = entry;
    return {};
}

Status Catalogue::erase(ObjectId object) {
    parts_->changes[object] = std::nullopt;
    return {};
}

Position Catalogue::applied() const { return {Lsn{parts_->state.lsn}, Chain{parts_->state.chain}}; }
std::uint32_t Catalogue::seeded() const { return parts_->state.seeded; }
bool Catalogue::fresh() const { return parts_->fresh; }

Status Catalogue::begin(Lsn end) {
    const std::uint64_t lsn = end.value;
    const auto status = parts_->database->Put(rocksdb::WriteOptions{}, kBegunKey,
                                              {reinterpret_cast<const char*>(&lsn), sizeof lsn});
    if (!status.ok()) return failed(status, "change");
    parts_->begun = lsn;
    return {};
}

Lsn Catalogue::begun() const { return Lsn{parts_->begun}; }

Status Catalogue::commit(const Commit& commit) {
    State state = parts_->state;
    state.lsn = commit.applied.lsn.value;
    state.chain = raw(commit.applied.chain);
    state.seeded = commit.seeded.value_or(state.seeded);
    rocksdb::WriteBatch batch;
    for (const auto& [object, entry] : parts_->changes) {
        const auto status = entry ? batch.Put(Key{object}.slice(), encode_entry(*entry))
                                  : batch.Delete(Key{object}.slice());
        if (!status.ok()) return failed(status, "change");
    }
    auto status = batch.Put(kStateKey, {reinterpret_cast<const char*>(&state), sizeof state});
    if (!status.ok()) return failed(status, "change");
    // After a full disk RocksDB refuses to write until it is told to look again.
    if (parts_->write_failed) (void)parts_->database->Resume();
    rocksdb::WriteOptions durable;
    durable.sync = true;
    status = parts_->database->Write(durable, &batch);
    parts_->write_failed = !status.ok();
    if (!status.ok()) return failed(status, "write");
    parts_->state = state;
    parts_->fresh = false;
    parts_->changes.clear();
    return {};
}

void Catalogue::drop() { parts_->changes.clear(); }

}  // namespace twinspool
