// SPDX-License-Identifier: Apache-2.0
#include "replicator/database.h"

#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>

#include <array>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

namespace twinspool {
namespace {

constexpr std::size_t kWriteBufferBytes = std::size_t{16} << 20;
constexpr std::size_t kBlockCacheBytes = std::size_t{32} << 20;
constexpr int kBloomBits = 10;
constexpr std::array<const char*, kFamilies> kNames{"default", "history"};
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

rocksdb::Options options_of_all() {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.create_missing_column_families = true;
    options.write_buffer_size = kWriteBufferBytes;
    options.max_background_jobs = 2;
    options.compression = rocksdb::kLZ4Compression;
    options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
    options.keep_log_file_num = 2;
    // All files stay open: a reader goes on in those that the owner has removed.
    options.max_open_files = -1;
    rocksdb::BlockBasedTableOptions table;
    table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes);
    // New objects are looked up too: an interrupted apply may have put them there.
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kBloomBits));
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    return options;
}

std::vector<rocksdb::ColumnFamilyDescriptor> families_of(const rocksdb::Options& options) {
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const char* name : kNames) families.emplace_back(name, options);
    return families;
}

}  // namespace

Batch::Batch() = default;
Batch::Batch(Batch&&) noexcept = default;
Batch& Batch::operator=(Batch&&) noexcept = default;
Batch::~Batch() = default;

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
    ~Parts() {
        for (auto* handle : handles)
            if (handle != nullptr) (void)database->DestroyColumnFamilyHandle(handle);
    }
    [[nodiscard]] rocksdb::ColumnFamilyHandle* of(Family family) const {
        return handles[static_cast<std::size_t>(family)];
    }

    rocksdb::Options options = options_of_all();
    std::unique_ptr<rocksdb::DB> database;
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    bool write_failed = false;
    std::mutex catching_up;  // one at a time
};

Database::Database(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Database::~Database() = default;

Result<std::unique_ptr<Database>> Database::open(const std::string& path) {
    auto parts = std::make_unique<Parts>();
    rocksdb::DB* database = nullptr;
    const auto status = rocksdb::DB::Open(parts->options, path, families_of(parts->options),
                                          &parts->handles, &database);
    if (!status.ok()) return failed(status, "open");
    parts->database.reset(database);
    return std::unique_ptr<Database>{new Database{std::move(parts)}};
}

Result<std::unique_ptr<Database>> Database::open_to_read(const std::string& path,
                                                         const std::string& scratch) {
    struct stat status {};
    if (::stat((path + "/CURRENT").c_str(), &status) != 0)
        return last_error("open the catalogue {}", path);
    auto parts = std::make_unique<Parts>();
    rocksdb::DB* database = nullptr;
    rocksdb::Status opened;
    for (int attempt = 0; attempt < kCatchUpAttempts; ++attempt) {
        opened = rocksdb::DB::OpenAsSecondary(
            parts->options, path, scratch, families_of(parts->options), &parts->handles, &database);
        if (opened.ok()) break;
        parts->handles.clear();
        std::this_thread::sleep_for(kCatchUpAgain);
    }
    if (!opened.ok()) return failed(opened, "open");
    parts->database.reset(database);
    std::unique_ptr<Database> reader{new Database{std::move(parts)}};
    TS_TRY(reader->catch_up());
    return reader;
}

Result<std::optional<std::string>> Database::get(Family family, std::string_view key) const {
    std::string value;
    const auto status =
        parts_->database->Get(rocksdb::ReadOptions{}, parts_->of(family), slice(key), &value);
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
    parts->iterator.reset(parts_->database->NewIterator(options, parts_->of(family)));
    return KeyRange{std::move(parts)};
}

Status Database::write(const Batch& batch, Durability durability) {
    rocksdb::WriteBatch changes;
    for (const auto& change : batch.changes_) {
        const auto status = change.erased
                                ? changes.Delete(parts_->of(change.family), change.key)
                                : changes.Put(parts_->of(change.family), change.key, change.value);
        if (!status.ok()) return failed(status, "change");
    }
    // After a full disk RocksDB refuses to write until it is told to look again.
    if (parts_->write_failed) (void)parts_->database->Resume();
    rocksdb::WriteOptions options;
    options.sync = durability == Durability::kSynced;
    const auto status = parts_->database->Write(options, &changes);
    parts_->write_failed = !status.ok();
    return checked(status, "write");
}

Status Database::sync() {
    const auto status = parts_->database->SyncWAL();
    parts_->write_failed |= !status.ok();
    return checked(status, "sync");
}

Status Database::forget(Family family) {
    auto*& handle = parts_->handles[static_cast<std::size_t>(family)];
    if (parts_->write_failed) (void)parts_->database->Resume();
    TS_TRY(checked(parts_->database->DropColumnFamily(handle), "empty"));
    TS_TRY(checked(parts_->database->DestroyColumnFamilyHandle(handle), "empty"));
    handle = nullptr;
    return checked(parts_->database->CreateColumnFamily(
                       parts_->options, kNames[static_cast<std::size_t>(family)], &handle),
                   "empty");
}

Status Database::catch_up() {
    const std::lock_guard lock{parts_->catching_up};
    rocksdb::Status status;
    for (int attempt = 0; attempt < kCatchUpAttempts; ++attempt) {
        status = parts_->database->TryCatchUpWithPrimary();
        if (status.ok()) return {};
        std::this_thread::sleep_for(kCatchUpAgain);
    }
    return failed(status, "follow");
}

}  // namespace twinspool
