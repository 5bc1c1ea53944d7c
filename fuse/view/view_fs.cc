// SPDX-License-Identifier: Apache-2.0
#include "fuse/view/view_fs.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <thread>

#include "fuse/kernel/libfuse.h"
#include "fuse/kernel/mount.h"
#include "fuse/kernel/process.h"
#include "fuse/kernel/stat_format.h"
#include "fuse/view/view_tree.h"

namespace twinspool {
namespace {

constexpr unsigned kThreads = 8;
// Half a MiB: what was copied here is still in the processor's cache when the kernel copies it on.
constexpr std::size_t kMaxRead = std::size_t{1} << 19;
constexpr std::size_t kBufferBytes = kMaxRead + 65536;
constexpr unsigned kReadAhead_kib = 2048;
constexpr std::uint64_t kGeneration = 1;  // ids are never used twice

// What the handlers work with.
struct Shown {
    std::unique_ptr<ViewTree> tree;
    Fd disk;
    std::atomic<bool> failed{false};  // an error of the image was logged
};

Shown& shown_of(fuse_req_t request) { return *static_cast<Shown*>(fuse_req_userdata(request)); }
ViewTree& tree_of(fuse_req_t request) { return *shown_of(request).tree; }
ObjectId object_of(fuse_ino_t node) { return ObjectId{node}; }

// Where an answer is made: one for each thread, which answers one request at a time.
std::span<char> reply_buffer() {
    thread_local const std::unique_ptr<char[]> buffer{new char[kBufferBytes]};
    return {buffer.get(), kBufferBytes};
}

void reply_failure(fuse_req_t request, const Error& error) {
    // "No such file" is an answer of the image, never a failure: it would be believed.
    const int code = error.code == ENOENT ? EIO : error.code;
    if (code == EIO && !shown_of(request).failed.exchange(true))
        spdlog::error("the image cannot be read: could not {}", error.text());
    fuse_reply_err(request, code);
}

// How answers of variable size go out: a request of size 0 asks for the size.
void reply_sized(fuse_req_t request, std::string_view data, std::size_t asked) {
    if (asked == 0)
        fuse_reply_xattr(request, data.size());
    else if (data.size() > asked)
        fuse_reply_err(request, ERANGE);
    else
        fuse_reply_buf(request, data.data(), data.size());
}

Result<fuse_entry_param> describe(ViewTree& tree, ObjectId object) {
    fuse_entry_param param{};
    param.attr_timeout = param.entry_timeout = kForever_s;
    if (object == kNoObject) return param;
    param.ino = raw(object);
    param.generation = kGeneration;
    TS_ASSIGN(param.attr, tree.attributes(object));
    return param;
}

// --- Handlers. "→" says what is replied besides errors.

void on_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {  // → entry
    const std::string_view wanted{name};
    if (wanted.size() > NAME_MAX) {
        fuse_reply_err(request, ENAMETOOLONG);
        return;
    }
    const auto object = tree_of(request).find(object_of(parent), wanted);
    if (!object.ok()) return reply_failure(request, object.error());
    const auto entry = describe(tree_of(request), *object);
    if (!entry.ok()) return reply_failure(request, entry.error());
    fuse_reply_entry(request, &*entry);
}

void on_getattr(fuse_req_t request, fuse_ino_t node, fuse_file_info* /*file*/) {  // → attr
    const auto attributes = tree_of(request).attributes(object_of(node));
    if (!attributes.ok()) return reply_failure(request, attributes.error());
    fuse_reply_attr(request, &*attributes, kForever_s);
}

void on_readlink(fuse_req_t request, fuse_ino_t node) {  // → readlink
    const auto target = tree_of(request).target(object_of(node));
    if (!target.ok()) return reply_failure(request, target.error());
    fuse_reply_readlink(request, target->c_str());
}

void on_read(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t offset,
             fuse_file_info* /*file*/) {  // → buf
    const auto buffer = reply_buffer();
    const auto into = std::as_writable_bytes(buffer.first(std::min(size, buffer.size())));
    const auto got =
        tree_of(request).read(object_of(node), static_cast<std::uint64_t>(offset), into);
    if (!got.ok()) return reply_failure(request, got.error());
    fuse_reply_buf(request, buffer.data(), *got);
}

void on_lseek(fuse_req_t request, fuse_ino_t node, off_t offset, int whence,
              fuse_file_info* /*file*/) {  // → lseek
    const auto what = whence == SEEK_HOLE ? ViewTree::Seek::kHole : ViewTree::Seek::kData;
    const auto place =
        tree_of(request).seek(object_of(node), static_cast<std::uint64_t>(offset), what);
    if (!place.ok()) return reply_failure(request, place.error());
    fuse_reply_lseek(request, static_cast<off_t>(*place));
}

enum class Style : std::uint8_t { kNames, kAttributes };

// One entry in the kernel's format; how long it is, which is too long if it does not fit.
Result<std::size_t> write_entry(fuse_req_t request, const ImageEntry& entry, Style style,
                                off_t next, std::span<char> into) {
    if (style == Style::kNames) {
        struct stat attributes {};  // its type would cost as much as all its attributes
        attributes.st_ino = raw(entry.object);
        return fuse_add_direntry(request, into.data(), into.size(), entry.name.c_str(), &attributes,
                                 next);
    }
    TS_ASSIGN(const auto param, describe(tree_of(request), entry.object));
    return fuse_add_direntry_plus(request, into.data(), into.size(), entry.name.c_str(), &param,
                                  next);
}

// "." and "..", which lead nowhere that the kernel does not know.
std::size_t write_dots(fuse_req_t request, ObjectId directory, Style style, off_t next,
                       std::span<char> into) {
    fuse_entry_param param{};
    param.attr.st_ino = raw(directory);
    param.attr.st_mode = S_IFDIR;
    const char* const name = next == 1 ? "." : "..";
    return style == Style::kNames
               ? fuse_add_direntry(request, into.data(), into.size(), name, &param.attr, next)
               : fuse_add_direntry_plus(request, into.data(), into.size(), name, &param, next);
}

constexpr off_t kDots = 2;  // before the entries

// A place is the number of the entry that comes next.
void list(fuse_req_t request, ObjectId directory, std::size_t size, off_t place, Style style) {
    const auto listing = tree_of(request).list(directory);
    if (!listing.ok()) return reply_failure(request, listing.error());
    const auto& entries = **listing;
    const auto end = static_cast<off_t>(entries.size()) + kDots;
    const auto room = reply_buffer().first(std::min(size, kBufferBytes));
    std::size_t used = 0;
    for (off_t at = place; at < end; ++at) {
        const auto rest = room.subspan(used);
        const auto wrote = at < kDots
                               ? write_dots(request, directory, style, at + 1, rest)
                               : write_entry(request, entries[static_cast<std::size_t>(at - kDots)],
                                             style, at + 1, rest);
        // What is there already goes out; the rest is asked for again.
        if (!wrote.ok() && used == 0) return reply_failure(request, wrote.error());
        if (!wrote.ok() || *wrote > rest.size()) break;
        used += *wrote;
    }
    if (used == 0) tree_of(request).finish_listing(directory);
    fuse_reply_buf(request, room.data(), used);
}

void on_readdir(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t place,
                fuse_file_info* /*file*/) {  // → buf
    list(request, object_of(node), size, place, Style::kNames);
}

void on_readdirplus(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t place,
                    fuse_file_info* /*file*/) {  // → buf
    list(request, object_of(node), size, place, Style::kAttributes);
}

void on_getxattr(fuse_req_t request, fuse_ino_t node, const char* name,
                 std::size_t size) {  // → buf, xattr
    const auto xattrs = tree_of(request).xattrs(object_of(node));
    if (!xattrs.ok()) return reply_failure(request, xattrs.error());
    const auto found = xattrs->find(name);
    if (found == xattrs->end())
        fuse_reply_err(request, ENODATA);
    else
        reply_sized(request, found->second, size);
}

void on_listxattr(fuse_req_t request, fuse_ino_t node, std::size_t size) {  // → buf, xattr
    const auto xattrs = tree_of(request).xattrs(object_of(node));
    if (!xattrs.ok()) return reply_failure(request, xattrs.error());
    // As on a disk, only root sees that there are any of these.
    const bool trusted = fuse_req_ctx(request)->uid == 0;
    std::string names;
    for (const auto& [name, value] : *xattrs)
        if (trusted || !name.starts_with("trusted.")) names.append(name.c_str(), name.size() + 1);
    reply_sized(request, names, size);
}

void on_statfs(fuse_req_t request, fuse_ino_t /*node*/) {  // → statfs
    struct statvfs space {};
    if (::fstatvfs(shown_of(request).disk.get(), &space) != 0)
        fuse_reply_err(request, errno);
    else
        fuse_reply_statfs(request, &space);
}

// Opening without a message leaves a file's pages in the kernel's cache. Names alone are listed
// when nobody looks at what they lead to.
constexpr std::uint64_t kWanted[] = {FUSE_CAP_NO_OPEN_SUPPORT, FUSE_CAP_NO_OPENDIR_SUPPORT,
                                     FUSE_CAP_PARALLEL_DIROPS, FUSE_CAP_POSIX_ACL,
                                     FUSE_CAP_CACHE_SYMLINKS,  FUSE_CAP_EXPLICIT_INVAL_DATA,
                                     FUSE_CAP_ASYNC_READ,      FUSE_CAP_ASYNC_DIO,
                                     FUSE_CAP_READDIRPLUS,     FUSE_CAP_READDIRPLUS_AUTO};
constexpr std::uint64_t kUnwanted[] = {FUSE_CAP_ATOMIC_O_TRUNC,  FUSE_CAP_AUTO_INVAL_DATA,
                                       FUSE_CAP_WRITEBACK_CACHE, FUSE_CAP_POSIX_LOCKS,
                                       FUSE_CAP_FLOCK_LOCKS,     FUSE_CAP_SPLICE_READ,
                                       FUSE_CAP_IOCTL_DIR};

void on_init(void* /*userdata*/, fuse_conn_info* connection) {
    for (const std::uint64_t feature : kWanted) want(connection, feature);
    for (const std::uint64_t feature : kUnwanted) do_not_want(connection, feature);
    connection->max_write = kMaxRead;  // libfuse makes it the limit of reads, too
    connection->max_background = 64;
    connection->congestion_threshold = 48;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
    connection->no_interrupt = 1;
#endif
}

// Nothing is here that changes something: the kernel refuses it, because the mount is read-only.
// What libfuse answers with ENOSYS (opening, closing) the kernel does without.
fuse_lowlevel_ops make_table() {
    fuse_lowlevel_ops table{};
    table.init = on_init;
    table.lookup = on_lookup;
    table.getattr = on_getattr;
    table.readlink = on_readlink;
    table.read = on_read;
    table.lseek = on_lseek;
    table.readdir = on_readdir;
    table.readdirplus = on_readdirplus;
    table.getxattr = on_getxattr;
    table.listxattr = on_listxattr;
    table.statfs = on_statfs;
    return table;
}

// Over /dev/fuse, where threads may wait for the disk and others go on. A thread that serves a
// processor's io_uring would hold up everybody there: small files were read faster, large slower.
fuse_session* make_session(Shown& shown) {
    static const fuse_lowlevel_ops table = make_table();
    fuse_args arguments{};
    fuse_opt_add_arg(&arguments, "twinspool");
    fuse_session* const session = fuse_session_new(&arguments, &table, sizeof table, &shown);
    fuse_opt_free_args(&arguments);
    return session;
}

// The kernel reads 128 KiB ahead on FUSE unless it is told otherwise here; where that cannot be
// done, reading is slower, and nothing else.
void read_far_ahead(dev_t device) {
    const auto path =
        fmt::format("/sys/class/bdi/{}:{}/read_ahead_kb", major(device), minor(device));
    const auto text = std::to_string(kReadAhead_kib);
    const Fd file{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
    if (!file.valid() || ::write(file.get(), text.data(), text.size()) < 0)
        spdlog::info("could not set {}", path);
}

}  // namespace

struct View::Parts {
    explicit Parts(ViewOptions its_options) : options(std::move(its_options)) {}
    ~Parts();
    Status mount(Image& image);
    void serve();

    ViewOptions options;
    Shown shown;
    fuse_session* session = nullptr;
    std::thread loop;
    dev_t device = 0;
    bool mounted = false;
    std::atomic<bool> ended{false};
};

Status View::Parts::mount(Image& image) {
    TS_ASSIGN(shown.tree, ViewTree::make(image));
    shown.disk.reset(::open(options.disk.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!shown.disk.valid()) return last_error("open {}", options.disk);
    take_over_libfuse_log();
    session = make_session(shown);
    if (session == nullptr) return make_error(ENOMEM, "set up libfuse");
    TS_ASSIGN(Fd connection, mount_view(options.mountpoint, options.source));
    mounted = true;
    const std::string name = fmt::format("/dev/fd/{}", connection.get());
    if (fuse_session_mount(session, name.c_str()) != 0)
        return make_error(EIO, "hand the connection to libfuse");
    (void)connection.release();  // libfuse's now
    loop = std::thread{[this] { serve(); }};
    // The first request, which waits until the transport is up, and shows that it serves.
    struct statx root {};
    if (::statx(AT_FDCWD, options.mountpoint.c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS,
                &root) != 0)
        return last_error("reach the view at {}", options.mountpoint);
    device = makedev(root.stx_dev_major, root.stx_dev_minor);
    read_far_ahead(device);
    return {};
}

void View::Parts::serve() {
    run_libfuse_loop(session, "view", kThreads);
    ended = true;
}

View::Parts::~Parts() {
    // Before anything is served it cannot be asked whether it is there, and nobody uses it.
    if (mounted && device == 0) (void)unmount_fuse(options.mountpoint);
    if (mounted && device != 0 && !ended) (void)detach_fuse(options.mountpoint, device);
    if (loop.joinable()) loop.join();
    if (session != nullptr) fuse_session_destroy(session);
}

View::View(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
View::~View() = default;

Result<std::unique_ptr<View>> View::mount(const ViewOptions& options, Image& image) {
    auto parts = std::make_unique<Parts>(options);
    TS_TRY(parts->mount(image));
    return std::unique_ptr<View>{new View{std::move(parts)}};
}

dev_t View::device() const { return parts_->device; }

void View::wait() {
    if (parts_->loop.joinable()) parts_->loop.join();
}

}  // namespace twinspool
