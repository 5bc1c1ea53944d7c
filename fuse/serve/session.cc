// SPDX-License-Identifier: Apache-2.0
#include "fuse/serve/session.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "fuse/kernel/libfuse.h"
#include "fuse/kernel/mount.h"
#include "fuse/kernel/notifier.h"
#include "fuse/objects/orphans.h"
#include "fuse/objects/volume.h"
#include "fuse/serve/handlers.h"
#include "fuse/tell/finder.h"
#include "fuse/tell/reconcile.h"
#include "fuse/tell/verifier.h"
#include "journal/base/clock.h"

namespace twinspool {
namespace {

constexpr unsigned kDeviceThreads = 8;
constexpr unsigned kQueueDepth = 128;  // requests in flight on each processor

fuse_session* make_session(Service& service, bool over_uring) {
    fuse_args arguments{};
    fuse_opt_add_arg(&arguments, "twinspool");
    if (over_uring) {
        const std::string options = fmt::format("-oio_uring,io_uring_q_depth={}", kQueueDepth);
        fuse_opt_add_arg(&arguments, options.c_str());
    }
    fuse_session* const session =
        fuse_session_new(&arguments, &handlers(), sizeof(fuse_lowlevel_ops), &service);
    fuse_opt_free_args(&arguments);
    return session;
}

}  // namespace

struct Overlay::Parts {
    Parts(const OverlayOptions& its_options, Journal& journal)
        : volume(journal, Descriptors::fitting_limits()), options(its_options), service(volume) {}
    ~Parts();

    Status open_directories();
    Status open_directory(Directory& directory, std::uint32_t index);
    Status tell_roots();
    Status mount();
    void begin_walk();
    void end();
    [[nodiscard]] std::uint64_t all_standbys() const {
        return (std::uint64_t{1} << options.standby_count) - 1;
    }

    Volume volume;
    OverlayOptions options;
    Service service;
    std::unique_ptr<Walker> walker;
    std::unique_ptr<Verifier> verifier;
    std::mutex reseed_mutex;      // protects the next two; one begin_reseed() at a time
    Contents contents{};          // of the round that is going on, or of the last one
    std::uint64_t told_anew = 0;  // whom it is for
    fuse_session* session = nullptr;
    std::unique_ptr<Notifier> notifier;
    std::thread loop;
    bool mounted = false;
    std::atomic<bool> begun{false};  // a walk
};

Status Overlay::Parts::open_directory(Directory& directory, std::uint32_t index) {
    struct statx now {};
    if (const int error = stat_object(directory.backing_fd, now))
        return make_error(error, "read the attributes of {}", directory.path);
    directory.device_major = now.stx_dev_major;
    directory.device_minor = now.stx_dev_minor;
    directory.mount = now.stx_mnt_id;
    auto root = identify_object(volume, index, directory.backing_fd, now);
    if (!root.ok()) return make_error(root.error().code, "identify {}", directory.path);
    directory.root = std::move(*root);
    return clear_orphans(directory);
}

Status Overlay::Parts::open_directories() {
    volume.generation = options.generation;
    volume.by_hash = !options.seeded && options.contents == Contents::kByHash;
    volume.unchanged_before = raw(volume.journal.predecessor().unchanged_before);
    volume.reign_began = raw(file_clock());
    if (volume.journal.predecessor().end.value > 0)
        volume.suspicion = options.seeded ? Volume::Suspicion::kSet : Volume::Suspicion::kWindow;
    for (const OverlayDirectory& each : options.directories) {
        Directory& directory = volume.directories.emplace_back();
        directory.path = each.path;
        directory.backing_fd = each.backing_fd;
    }
    for (std::uint32_t i = 0; i < volume.directories.size(); ++i)
        TS_TRY(open_directory(volume.directories[i], i));
    return {};
}

// Also when they have been told: the standbys learn their paths at every start.
Status Overlay::Parts::tell_roots() {
    for (const Directory& directory : volume.directories) {
        Inode& root = *directory.root;
        const Telling telling = root.suspect || (volume.told(root) && !root.complete)
                                    ? Telling::kAgain
                                    : Telling::kFirst;
        for (;;) {
            Turn turn{volume.journal, Turn::Waiting::kAllowed};
            const GatePass pass{volume.gate};
            ObjectLocks locks;
            (void)locks.lock({&root}, turn);
            const Ending told = tell_root(volume, turn, root, telling);
            if (told.is_done()) {
                if (telling == Telling::kAgain)
                    report_change(volume, directory.backing_fd, ".", telling);
                break;
            }
            if (!told.lacks_credit())
                return make_error(told.code(), "tell the standby of {}", directory.path);
            if (!volume.journal.take_credit(kMaxFramePayload))
                return make_error(EIO, "tell the standby of {}", directory.path);
            volume.journal.give_credit(kMaxFramePayload);
        }
    }
    return {};
}

Status Overlay::Parts::mount() {
    const bool offered = kernel_offers_uring();
    if (options.transport == Transport::kIoUring && !offered)
        return make_error(ENOTSUP,
                          "use the io_uring transport (the kernel lacks it, or "
                          "/sys/module/fuse/parameters/enable_uring is N)");
    const bool over_uring = options.transport != Transport::kDev && offered;
    take_over_libfuse_log();
    session = make_session(service, over_uring);
    if (session == nullptr) return make_error(ENOMEM, "set up libfuse");
    notifier = std::make_unique<Notifier>(session);
    volume.attribute_cache = notifier.get();
    TS_ASSIGN(Fd connection, mount_fuse(options.mountpoint));
    mounted = true;
    const std::string name = fmt::format("/dev/fd/{}", connection.get());
    if (fuse_session_mount(session, name.c_str()) != 0)
        return make_error(EIO, "hand the connection to libfuse");
    (void)connection.release();  // libfuse's now
    loop = std::thread{[this] { run_libfuse_loop(session, "fuse", kDeviceThreads); }};
    // The first request, which waits until the transport is up, and shows that it serves.
    struct statx root {};
    if (::statx(AT_FDCWD, options.mountpoint.c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS,
                &root) != 0)
        return last_error("reach the overlay at {}", options.mountpoint);
    return {};
}

void Overlay::Parts::begin_walk() {
    if (begun.exchange(true)) return;
    const std::lock_guard lock{reseed_mutex};
    contents = options.seeded ? Contents::kWhole : options.contents;
    // Also those that were told everything before this start may lack what changed underneath.
    told_anew = all_standbys();
    if (options.seeded)
        walker->begin(Walker::Round::kChanges);
    else
        walker->begin(Walker::Round::kSeed, contents, told_anew);
}

void Overlay::Parts::end() {
    if (session != nullptr) fuse_session_exit(session);
    if (loop.joinable()) loop.join();
    if (verifier) verifier->stop("the volume goes down");
    if (walker) walker->stop();
    volume.pool.stop();
    volume.attribute_cache = nullptr;
    notifier.reset();
    if (session != nullptr) fuse_session_destroy(session);
    session = nullptr;
    for (Directory& directory : volume.directories) {
        const Status cleared = clear_orphans(directory);
        if (!cleared.ok()) spdlog::warn("could not {}", cleared.error().text());
    }
}

Overlay::Parts::~Parts() {
    if (mounted) (void)unmount_fuse(options.mountpoint);
    end();
    verifier.reset();
    walker.reset();
    volume.directories.clear();
}

Overlay::Overlay(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Overlay::~Overlay() = default;

Result<std::unique_ptr<Overlay>> Overlay::start(const OverlayOptions& options, Journal& journal) {
    if (options.directories.empty())
        return make_error(EINVAL, "serve a volume without directories");
    auto parts = std::make_unique<Parts>(options, journal);
    parts->volume.pool.start(kPoolThreads);
    TS_TRY(parts->open_directories());
    TS_TRY(parts->tell_roots());
    TS_TRY(reconcile(parts->volume));
    TS_ASSERT(options.standby_count < kMostStandbys);
    parts->walker = std::make_unique<Walker>(parts->volume,
                                             Walker::Options{.standby_count = options.standby_count,
                                                             .rate_limit = options.rate_limit,
                                                             .hurry = options.hurry});
    parts->verifier =
        std::make_unique<Verifier>(parts->volume, Verifier::Setup{.standbys = parts->all_standbys(),
                                                                  .rate_limit = options.rate_limit,
                                                                  .hurry = options.hurry});
    parts->volume.walk = parts->walker.get();
    // Before the first request, so that it counts as walking from the start.
    parts->volume.walking = parts->volume.in_round = true;
    TS_TRY(parts->mount());
    return std::unique_ptr<Overlay>{new Overlay{std::move(parts)}};
}

Transport Overlay::transport() const {
    return parts_->service.over_uring ? Transport::kIoUring : Transport::kDev;
}

void Overlay::in_place() { parts_->begin_walk(); }

WalkProgress Overlay::walk() const { return parts_->walker->progress(); }

bool Overlay::walking() const { return parts_->volume.walking; }

Lsn Overlay::begin_reseed(std::uint32_t generation, Contents contents, std::uint32_t standby) {
    Volume& volume = parts_->volume;
    const std::lock_guard one_at_a_time{parts_->reseed_mutex};
    const bool owed = volume.in_round;  // true also before the first walk has begun
    if (!owed) parts_->told_anew = 0;
    if (owed && !parts_->begun) parts_->told_anew = parts_->all_standbys();
    const bool by_hash =
        parts_->begun ? parts_->contents == Contents::kByHash : volume.by_hash.load();
    // The others are owed what the unfinished round had to say of names that are gone.
    if (owed && (by_hash || parts_->options.standby_count > 1)) contents = Contents::kByHash;
    parts_->told_anew |= std::uint64_t{1} << standby;
    parts_->contents = contents;
    volume.gate.close();
    volume.begin_generation(generation, contents == Contents::kByHash);
    const Lsn from = volume.journal.appended() + 1;
    volume.gate.open();
    parts_->begun = true;
    parts_->walker->begin(Walker::Round::kSeed, contents, parts_->told_anew);
    return from;
}

void Overlay::session_began(std::uint32_t standby) {
    parts_->walker->book().session_began(standby);
    parts_->verifier->book().session_began(standby);
}

void Overlay::heard_findings(std::uint32_t standby, const std::vector<Finding>& findings) {
    parts_->walker->book().heard_findings(standby, findings);
    parts_->verifier->book().heard_findings(standby, findings);
}

void Overlay::heard_applied(std::uint32_t standby, Lsn lsn) {
    parts_->walker->book().heard_applied(standby, lsn);
    parts_->verifier->book().heard_applied(standby, lsn);
}

Status Overlay::begin_verify(const VerifyOptions& options) {
    if (parts_->volume.walking)
        return make_error(EAGAIN, "compare what has not been told to the standbys yet");
    return parts_->verifier->begin(options);
}

void Overlay::cancel_verify(const std::string& why) { parts_->verifier->cancel(why); }

VerifyReport Overlay::verify_report() const { return parts_->verifier->report(); }

Result<Marked> Overlay::mark(const MarkWish& wish) { return append_mark(parts_->volume, wish); }

Status Overlay::stop() {
    TS_TRY(unmount_fuse(parts_->options.mountpoint));
    parts_->mounted = false;
    parts_->loop.join();
    parts_->end();
    return {};
}

}  // namespace twinspool
