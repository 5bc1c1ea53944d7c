// SPDX-License-Identifier: Apache-2.0
#include "replicator/store/database.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <thread>
#include <utility>

namespace twinspool {
namespace {

constexpr std::size_t kWriteBufferBytes = std::size_t{16} << 20;
constexpr std::size_t kBlockCacheBytes = std::size_t{32} << 20;
constexpr int kBloomBits = 10;
// The owner may remove a file between the reader's look at the list and at the file.
constexpr int kCatchUpAttempts = 50;
constexpr std::chrono::milliseconds kCatchUpAgain{2};

Error failed(const rocksdb::Status& status, std::string_view doing) {
    int code = EIO;
    if (status.IsNoSpace()) code = ENOSPC;
    if (status.IsCorruption()) code = EBADMSG;
    if (status.IsBusy() || status.ToString().find("lock") != std::string::npos) code = EBUSY;
    return make_error(code, "{} the catalogue ({})", doing, status.ToString());
}

Status checked(const rocksdb::Status& status, std::string_view doing) {
    if (!status.ok()) return failed(status, doing);
    return {};
}

rocksdb::Slice slice(std::string_view text) { return {text.data(), text.size()}; }
std::string_view view(const rocksdb::Slice& text) { return {text.data(), text.size()}; }

// RocksDB's own log goes nowhere: what fails is returned. On a disk that is full its file could not
// be begun, so that nothing could be opened, and what is said after that ended the process.
class NoLog final : public rocksdb::Logger {
   public:
    using rocksdb::Logger::Logv;
    void Logv(const char* /*format*/, va_list /*arguments*/) override {}
};

rocksdb::Options options_of_all() {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.write_buffer_size = kWriteBufferBytes;
    options.max_background_jobs = 2;
    options.compression = rocksdb::kLZ4Compression;
    options.info_log = std::make_shared<NoLog>();
    // All files stay open: a reader goes on in those that the owner has removed.
    options.max_open_files = -1;
    rocksdb::BlockBasedTableOptions table;
    table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes);
    // New objects are looked up too: an interrupted apply may have put them there.
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kBloomBits));
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    return options;
}

using Handle = std::unique_ptr<rocksdb::DB>;

std::string catalogue_path(const std::string& store) { return store + "/catalogue"; }
std::string histories_path(const std::string& store) { return store + "/history"; }
std::string history_path(const std::string& store, std::uint64_t number) {
    return fmt::format("{}/{}", histories_path(store), number);
}

Result<Handle> open_owned(const std::string& path) {
    rocksdb::DB* database = nullptr;
    const auto status = rocksdb::DB::Open(options_of_all(), path, &database);
    if (!status.ok()) return failed(status, "open");
    return Handle{database};
}

Result<Handle> open_secondary(const std::string& path, const std::string& scratch) {
    struct stat standing {};
    if (::stat((path + "/CURRENT").c_str(), &standing) != 0)
        return last_error("open the catalogue {}", path);
    rocksdb::DB* database = nullptr;
    rocksdb::Status status;
    for (int attempt = 0; attempt < kCatchUpAttempts; ++attempt) {
        status = rocksdb::DB::OpenAsSecondary(options_of_all(), path, scratch, &database);
        if (status.ok()) return Handle{database};
        std::this_thread::sleep_for(kCatchUpAgain);
    }
    return failed(status, "open");
}

}  // namespace

void Batch::put(Family family, std::string_view key, std::string_view value) {
    changes_.push_back({family, false, std::string{key}, std::string{value}});
    bytes_ += key.size() + value.size();
}

void Batch::erase(Family family, std::string_view key) {
    changes_.push_back({family, true, std::string{key}, {}});
    bytes_ += key.size();
}

std::size_t Batch::bytes() const { return bytes_; }
bool Batch::empty() const { return changes_.empty(); }

struct KeyRange::Parts {
    std::string from;
    std::string end;
    rocksdb::Slice lower;
    rocksdb::Slice upper;
    std::unique_ptr<rocksdb::Iterator> iterator;
};

KeyRange::KeyRange(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
KeyRange::KeyRange(KeyRange&&) noexcept = default;
KeyRange::~KeyRange() = default;

void KeyRange::first() { parts_->iterator->SeekToFirst(); }
void KeyRange::seek(std::string_view key) { parts_->iterator->Seek(slice(key)); }
void KeyRange::last() { parts_->iterator->SeekToLast(); }
void KeyRange::next() { parts_->iterator->Next(); }
bool KeyRange::valid() const { return parts_->iterator->Valid(); }
std::string_view KeyRange::key() const { return view(parts_->iterator->key()); }
std::string_view KeyRange::value() const { return view(parts_->iterator->value()); }
Status KeyRange::status() const { return checked(parts_->iterator->status(), "read"); }

struct Database::Parts {
    [[nodiscard]] rocksdb::DB& of(Family family) const {
        const auto& database = databases[static_cast<std::size_t>(family)];
        TS_ASSERT(database != nullptr);
        return *database;
    }
    Status write(Family family, rocksdb::WriteBatch& changes, bool sync);

    std::string store;
    std::array<Handle, kFamilies> databases;
    std::array<bool, kFamilies> write_failed{};
    std::mutex catching_up;  // one at a time
};

Database::Database(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Database::~Database() = default;

Result<std::unique_ptr<Database>> Database::open(const std::string& store, std::uint64_t history) {
    auto parts = std::make_unique<Parts>();
    parts->store = store;
    TS_ASSIGN(parts->databases[0], open_owned(catalogue_path(store)));
    std::error_code code;
    std::filesystem::create_directories(histories_path(store), code);
    if (code) return make_error(code.value(), "make the folder {}", histories_path(store));
    TS_ASSIGN(parts->databases[1], open_owned(history_path(store, history)));
    return std::unique_ptr<Database>{new Database{std::move(parts)}};
}

Result<std::unique_ptr<Database>> Database::open_to_read(const std::string& store,
                                                         std::uint64_t history,
                                                         const std::string& scratch) {
    auto parts = std::make_unique<Parts>();
    parts->store = store;
    TS_ASSIGN(parts->databases[0], open_secondary(catalogue_path(store), scratch + "/catalogue"));
    TS_ASSIGN(parts->databases[1],
              open_secondary(history_path(store, history), scratch + "/history"));
    std::unique_ptr<Database> reader{new Database{std::move(parts)}};
    TS_TRY(reader->catch_up());
    return reader;
}

Result<std::optional<std::string>> Database::get(Family family, std::string_view key) const {
    std::string value;
    const auto status = parts_->of(family).Get(rocksdb::ReadOptions{}, slice(key), &value);
    if (status.IsNotFound()) return std::optional<std::string>{};
    if (!status.ok()) return failed(status, "read");
    return std::optional{std::move(value)};
}

KeyRange Database::range(Family family, std::string_view from, std::string_view end) const {
    auto parts = std::make_unique<KeyRange::Parts>();
    parts->from = from;
    parts->end = end;
    parts->lower = parts->from;
    parts->upper = parts->end;
    // With bounds, what was erased beyond them costs nothing.
    rocksdb::ReadOptions options;
    options.iterate_lower_bound = &parts->lower;
    options.iterate_upper_bound = &parts->upper;
    parts->iterator.reset(parts_->of(family).NewIterator(options));
    return KeyRange{std::move(parts)};
}

Status Database::write(const Batch& batch, Durability durability) {
    std::array<rocksdb::WriteBatch, kFamilies> changes;
    for (const auto& change : batch.changes_) {
        auto& its = changes[static_cast<std::size_t>(change.family)];
        const auto status =
            change.erased ? its.Delete(change.key) : its.Put(change.key, change.value);
        if (!status.ok()) return failed(status, "change");
    }
    for (const Family family : {Family::kHistory, Family::kState}) {
        auto& its = changes[static_cast<std::size_t>(family)];
        if (its.Count() != 0) TS_TRY(parts_->write(family, its, durability == Durability::kSynced));
    }
    return {};
}

Status Database::Parts::write(Family family, rocksdb::WriteBatch& changes, bool sync) {
    auto& once_failed = write_failed[static_cast<std::size_t>(family)];
    // After a full disk RocksDB refuses to write until it is told to look again.
    if (once_failed) (void)of(family).Resume();
    rocksdb::WriteOptions options;
    options.sync = sync;
    const auto status = of(family).Write(options, &changes);
    once_failed = !status.ok();
    return checked(status, "write");
}

Status Database::sync() { return checked(parts_->of(Family::kHistory).SyncWAL(), "sync"); }

Status Database::compact_history() {
    rocksdb::CompactRangeOptions options;
    // Also where only the last level holds what is left: what is erased there goes, too.
    options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
    return checked(parts_->of(Family::kHistory).CompactRange(options, nullptr, nullptr), "compact");
}

bool Database::has_history() const { return parts_->databases[1] != nullptr; }

Status Database::begin_history(std::uint64_t number) {
    parts_->databases[1].reset();
    parts_->write_failed[1] = false;
    std::error_code code;
    for (const auto& each :
         std::filesystem::directory_iterator{histories_path(parts_->store), code})
        (void)std::filesystem::remove_all(each.path(), code);
    if (code) return make_error(code.value(), "empty the folder {}", histories_path(parts_->store));
    TS_ASSIGN(parts_->databases[1], open_owned(history_path(parts_->store, number)));
    return {};
}

Status Database::catch_up() {
    const std::lock_guard lock{parts_->catching_up};
    rocksdb::Status status;
    for (const auto& database : parts_->databases) {
        for (int attempt = 0; attempt < kCatchUpAttempts; ++attempt) {
            status = database->TryCatchUpWithPrimary();
            if (status.ok()) break;
            std::this_thread::sleep_for(kCatchUpAgain);
        }
        if (!status.ok()) return failed(status, "follow");
    }
    return {};
}

}  // namespace twinspool
