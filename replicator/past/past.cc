// SPDX-License-Identifier: Apache-2.0
#include "replicator/past/past.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>

#include "replicator/past/past_image.h"
#include "replicator/store/hold.h"
#include "replicator/store/progress.h"
#include "replicator/store/records.h"

namespace twinspool {

struct Past::Parts final : PastSource {
    Parts(Progress its_progress, std::unique_ptr<Database> its_database, Fd folder)
        : progress(std::move(its_progress)),
          reader(std::move(its_database)),
          store_fd(std::move(folder)) {}

    [[nodiscard]] const Database& database() const override { return *reader; }
    [[nodiscard]] int store() const override { return store_fd.get(); }
    // The counter is looked at before the catalogue: what it counts after that is seen next time.
    Result<std::uint64_t> follow() override {
        const std::uint64_t now = progress.now();
        if (followed != now) {
            TS_TRY(reader->catch_up());
            followed = now;
        }
        return now;
    }
    [[nodiscard]] Lsn broken_upto() const override { return progress.broken_upto(); }

    PastOptions options;
    Progress progress;
    std::unique_ptr<Database> reader;
    Fd store_fd;
    std::atomic<std::uint64_t> followed{UINT64_MAX};
};

Past::Past(std::shared_ptr<Parts> parts) : parts_(std::move(parts)) {}
Past::~Past() = default;

Result<std::shared_ptr<Past>> Past::open(const PastOptions& options) {
    Fd store{::open(options.store.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!store.valid()) return last_error("open the store {}", options.store);
    std::error_code code;
    std::filesystem::create_directories(options.scratch, code);
    if (code) return make_error(code.value(), "make the folder {}", options.scratch);
    TS_ASSIGN(Progress progress, Progress::open(options.store, Progress::Role::kReader));
    TS_ASSIGN(auto database,
              Database::open_to_read(options.store, progress.history(), options.scratch));
    auto parts =
        std::make_shared<Parts>(std::move(progress), std::move(database), std::move(store));
    parts->options = options;
    TS_ASSIGN(const auto text, parts->reader->get(Family::kState, kStateKey));
    if (!text) return make_error(ENOENT, "read the store {}: nothing is applied", options.store);
    TS_ASSIGN(const State state, decode_state(*text));
    if (state.volume != options.volume)
        return make_error(EINVAL, "read the store {}, which is of another volume", options.store);
    return std::shared_ptr<Past>{new Past{std::move(parts)}};
}

Result<std::vector<Snapshot>> Past::snapshots() {
    TS_TRY(parts_->reader->catch_up());
    TS_ASSIGN(auto records, read_snapshots(*parts_->reader));
    for (auto& [number, record] : records)
        record.snapshot.broken |= number <= parts_->broken_upto();
    TS_ASSIGN(const auto totals, read_totals(*parts_->reader));
    return listed(records, totals);
}

Result<Lsn> Past::applied() {
    TS_TRY(parts_->reader->catch_up());
    TS_ASSIGN(const auto text, parts_->reader->get(Family::kState, kStateKey));
    if (!text) return make_error(ENOENT, "read the store {}", parts_->options.store);
    TS_ASSIGN(const State state, decode_state(*text));
    return Lsn{state.lsn};
}

Result<std::unique_ptr<Image>> Past::image(Lsn number) {
    auto hold = hold_snapshot(parts_->options.store, number, HoldKind::kRead);
    // Nobody destroys anything on a disk that cannot be written.
    if (!hold.ok() && hold.error().code != EROFS) return hold.error();
    if (hold.ok() && !hold.value())
        return make_error(EBUSY, "read the snapshot at record {}: it is being destroyed",
                          number.value);
    TS_TRY(parts_->reader->catch_up());
    TS_ASSIGN(const auto text, parts_->reader->get(Family::kState, keys::snapshot(number)));
    if (!text) {
        if (hold.ok()) (void)::unlink(hold_path(parts_->options.store, number).c_str());
        return make_error(ENOENT, "read the snapshot at record {}", number.value);
    }
    TS_ASSIGN(auto record, decode_snapshot(*text));
    record.snapshot.number = number;
    if (record.doomed)
        return make_error(EBUSY, "read the snapshot {}: it is being destroyed",
                          record.snapshot.name);
    if (record.snapshot.broken || number <= parts_->broken_upto())
        return make_error(EIO, "read the snapshot {}, whose history was given up",
                          record.snapshot.name);
    std::optional<Fd> held;
    if (hold.ok()) held = std::move(*hold.value());
    return std::unique_ptr<Image>{new PastImage{parts_, std::move(record), std::move(held)}};
}

Result<std::unique_ptr<Image>> Past::present() {
    TS_TRY(parts_->reader->catch_up());
    SnapshotRecord record;
    TS_ASSIGN(const auto roots, read_roots(*parts_->reader));
    for (const auto& [path, object] : roots)
        record.roots.push_back({.path = path, .object = object});
    return std::unique_ptr<Image>{new PastImage{parts_, std::move(record), std::nullopt}};
}

}  // namespace twinspool
