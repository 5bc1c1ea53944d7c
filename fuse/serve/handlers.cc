// SPDX-License-Identifier: Apache-2.0
#include "fuse/serve/handlers.h"

#include <fcntl.h>
#include <unistd.h>

#include "fuse/kernel/libfuse.h"
#include "fuse/kernel/stat_format.h"
#include "fuse/serve/listing.h"
#include "fuse/serve/mutation.h"
#include "fuse/serve/reading.h"
#include "fuse/serve/serving.h"

namespace twinspool {
namespace {

constexpr std::size_t kBufferBytes = (std::size_t{1} << 20) + 65536;

// A verb of the volume as serve() calls it.
template <auto Verb>
constexpr auto kVerb = [](Service& service, Turn& turn, const Request& request, auto... args) {
    return Verb(service.volume, turn, request, args...);
};

// That set-uid and set-gid bits are ours to clear. The newer way says for each request whether the
// caller may keep them; libfuse before 3.17 lacks it, and only root may then.
#if defined(FUSE_CAP_HANDLE_KILLPRIV_V2)
constexpr std::uint64_t kKillPrivileges = FUSE_CAP_HANDLE_KILLPRIV_V2;
#else
constexpr std::uint64_t kKillPrivileges = FUSE_CAP_HANDLE_KILLPRIV;
#endif

ObjectId object_of(fuse_ino_t node) { return ObjectId{node}; }

Bytes bytes_of(const char* data, std::size_t size) { return std::as_bytes(std::span{data, size}); }

// Writes entries in the kernel's format.
class KernelEntries final : public EntryWriter {
   public:
    KernelEntries(Volume& volume, const Request& request, std::size_t size)
        : volume_(volume), buffer_(request.buffer), room_(std::min(size, request.buffer_size)) {}

    bool add(const ListedEntry& entry) override {
        struct stat attributes {};
        attributes.st_ino = raw(entry.object);
        attributes.st_mode = entry.type;
        return took(fuse_add_direntry(nullptr, buffer_ + size_, room_ - size_, entry.name,
                                      &attributes, entry.next));
    }
    bool add_plus(const ListedEntry& entry, const struct statx& now, Inode* inode) override {
        fuse_entry_param param{};
        param.attr = stat_of(entry.object, now);
        if (inode != nullptr) {
            param.ino = raw(entry.object);
            param.generation = 1;
            param.attr_timeout = kForever_s;
            param.entry_timeout = kForever_s;
            volume_.inodes.remember(*inode);
        }
        const bool fits = took(fuse_add_direntry_plus(nullptr, buffer_ + size_, room_ - size_,
                                                      entry.name, &param, entry.next));
        if (!fits && inode != nullptr) volume_.inodes.forget(entry.object, 1);
        return fits;
    }
    [[nodiscard]] std::size_t size() const override { return size_; }

   private:
    bool took(std::size_t bytes) {
        if (bytes > room_ - size_) return false;
        size_ += bytes;
        return true;
    }
    Volume& volume_;
    char* buffer_;
    std::size_t room_;
    std::size_t size_ = 0;
};

Answered list_entries(Volume& volume, Turn& turn, const Request& request, ObjectId directory,
                      std::uint64_t handle, std::size_t size, std::int64_t place,
                      ListingStyle style) {
    KernelEntries writer{volume, request, size};
    return list_directory(volume, turn, request, directory, handle, place, style, writer);
}

AttributeChange decode_change(fuse_req_t request, const struct stat& wanted, int valid) {
    AttributeChange change;
    change.set_mode = (valid & FUSE_SET_ATTR_MODE) != 0;
    change.set_uid = (valid & FUSE_SET_ATTR_UID) != 0;
    change.set_gid = (valid & FUSE_SET_ATTR_GID) != 0;
    change.set_size = (valid & FUSE_SET_ATTR_SIZE) != 0;
    change.set_atime = (valid & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) != 0;
    change.set_mtime = (valid & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) != 0;
#if defined(FUSE_CAP_HANDLE_KILLPRIV_V2)
    static_cast<void>(request);
    change.kill_privileges = (valid & (1 << 11)) != 0;  // the kernel's FATTR_KILL_SUIDGID
#else
    change.kill_privileges = change.set_size && fuse_req_ctx(request)->uid != 0;
#endif
    change.mode = wanted.st_mode;
    change.uid = wanted.st_uid;
    change.gid = wanted.st_gid;
    change.size = static_cast<std::uint64_t>(wanted.st_size);
    change.atime = wanted.st_atim;
    change.mtime = wanted.st_mtim;
    if ((valid & FUSE_SET_ATTR_ATIME_NOW) != 0) change.atime.tv_nsec = UTIME_NOW;
    if ((valid & FUSE_SET_ATTR_MTIME_NOW) != 0) change.mtime.tv_nsec = UTIME_NOW;
    return change;
}

// Opening without a message is to be asked for: libfuse answers OPEN itself otherwise, and the
// kernel drops the file's pages at each of them, also those with data of writes that are on their
// way. OPENDIR is a message: without it the kernel keeps one listing of a directory, made of what
// it told to readers who began at different times.
constexpr std::uint64_t kWanted[] = {
    FUSE_CAP_NO_OPEN_SUPPORT,     FUSE_CAP_PARALLEL_DIROPS, FUSE_CAP_DONT_MASK,
    FUSE_CAP_POSIX_ACL,           kKillPrivileges,          FUSE_CAP_CACHE_SYMLINKS,
    FUSE_CAP_EXPLICIT_INVAL_DATA, FUSE_CAP_ASYNC_READ,      FUSE_CAP_ASYNC_DIO,
    FUSE_CAP_READDIRPLUS,         FUSE_CAP_READDIRPLUS_AUTO};

// With OPEN answered ENOSYS the kernel would lose O_TRUNC. Nobody else changes the files, locks are
// the kernel's own.
constexpr std::uint64_t kUnwanted[] = {FUSE_CAP_ATOMIC_O_TRUNC,  FUSE_CAP_AUTO_INVAL_DATA,
                                       FUSE_CAP_WRITEBACK_CACHE, FUSE_CAP_POSIX_LOCKS,
                                       FUSE_CAP_FLOCK_LOCKS,     FUSE_CAP_SPLICE_READ,
                                       FUSE_CAP_IOCTL_DIR,       FUSE_CAP_NO_OPENDIR_SUPPORT};

void on_init(void* userdata, fuse_conn_info* connection) {
    for (const std::uint64_t feature : kWanted) want(connection, feature);
    for (const std::uint64_t feature : kUnwanted) do_not_want(connection, feature);
    connection->max_write = 1U << 20;
    connection->max_background = 128;
    connection->congestion_threshold = 96;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
    connection->no_interrupt = 1;
#endif
    static_cast<Service*>(userdata)->initialized = true;
}

// --- Handlers. "→" says what is replied besides errors.

void on_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {  // → entry
    serve<kVerb<look_up>>(request, Place::kHere, object_of(parent), name);
}

void on_forget(fuse_req_t request, fuse_ino_t node, std::uint64_t lookups) {  // → none
    if (object_of(node) != kRootObject)
        service_of(request).volume.inodes.forget(object_of(node), lookups);
    fuse_reply_none(request);
}

void on_forget_multi(fuse_req_t request, std::size_t count, fuse_forget_data* forgets) {  // → none
    for (const fuse_forget_data& each : std::span{forgets, count})
        if (object_of(each.ino) != kRootObject)
            service_of(request).volume.inodes.forget(object_of(each.ino), each.nlookup);
    fuse_reply_none(request);
}

void on_getattr(fuse_req_t request, fuse_ino_t node, fuse_file_info* /*file*/) {  // → attr
    serve<kVerb<get_attributes>>(request, Place::kHere, object_of(node));
}

void on_setattr(fuse_req_t request, fuse_ino_t node, struct stat* wanted, int valid,
                fuse_file_info* /*file*/) {  // → attr
    serve<kVerb<set_attributes>>(request, Place::kHere, object_of(node),
                                 decode_change(request, *wanted, valid));
}

void on_readlink(fuse_req_t request, fuse_ino_t node) {  // → buf
    serve<kVerb<read_link>>(request, Place::kHere, object_of(node));
}

void on_mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
              dev_t device) {  // → entry
    serve<kVerb<make_object>>(
        request, Place::kHere, object_of(parent), name,
        NewObject{.mode = (mode & S_IFMT) == 0 ? mode | S_IFREG : mode, .device = device});
}

void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {  // → entry
    serve<kVerb<make_object>>(request, Place::kHere, object_of(parent), name,
                              NewObject{.mode = S_IFDIR | (mode & 07777)});
}

void on_symlink(fuse_req_t request, const char* target, fuse_ino_t parent,
                const char* name) {  // → entry
    serve<kVerb<make_symlink>>(request, Place::kHere, object_of(parent), name, target);
}

void on_link(fuse_req_t request, fuse_ino_t node, fuse_ino_t parent, const char* name) {  // → entry
    serve<kVerb<make_link>>(request, Place::kHere, object_of(node), object_of(parent), name);
}

void on_unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {  // → err
    serve<kVerb<remove_name>>(request, Place::kHere, object_of(parent), name, Removed::kName);
}

void on_rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {  // → err
    serve<kVerb<remove_name>>(request, Place::kHere, object_of(parent), name, Removed::kDirectory);
}

void on_rename(fuse_req_t request, fuse_ino_t source_parent, const char* source_name,
               fuse_ino_t target_parent, const char* target_name, unsigned flags) {  // → err
    serve<kVerb<rename_entry>>(request, Place::kHere, object_of(source_parent), source_name,
                               object_of(target_parent), target_name, flags);
}

void on_read(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t offset,
             fuse_file_info* /*file*/) {  // → buf
    serve<kVerb<read_data>>(request, Place::kHere, object_of(node), size, offset);
}

void on_write(fuse_req_t request, fuse_ino_t node, const char* data, std::size_t size, off_t offset,
              fuse_file_info* file) {  // → write
    const Place place = size > kSmallWriteBytes ? Place::kPool : Place::kHere;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
    const Privileges privileges = file->kill_suidgid ? Privileges::kKill : Privileges::kKeep;
#else
    const Privileges privileges =
        fuse_req_ctx(request)->uid != 0 ? Privileges::kKill : Privileges::kKeep;
#endif
    const Written how = file->writepage ? Written::kBack : Written::kByCall;
    serve<kVerb<write_data>>(request, place, object_of(node), bytes_of(data, size), offset,
                             privileges, how);
}

void on_fsync(fuse_req_t request, fuse_ino_t /*node*/, int /*data_only*/,
              fuse_file_info* /*file*/) {  // → err, when committed
    Reply{service_of(request).volume, request}.when_committed();
}

void on_opendir(fuse_req_t request, fuse_ino_t node, fuse_file_info* /*file*/) {  // → open
    serve<kVerb<open_directory>>(request, Place::kHere, object_of(node));
}

void on_releasedir(fuse_req_t request, fuse_ino_t /*node*/, fuse_file_info* file) {  // → err
    Volume& volume = service_of(request).volume;
    volume.open_directories.close(file->fh);
    Reply{volume, request}.error(0);
}

void on_readdir(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t place,
                fuse_file_info* file) {  // → buf
    serve<kVerb<list_entries>>(request, Place::kHere, object_of(node), file->fh, size,
                               std::int64_t{place}, ListingStyle::kNames);
}

void on_readdirplus(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t place,
                    fuse_file_info* file) {  // → buf
    serve<kVerb<list_entries>>(request, Place::kPool, object_of(node), file->fh, size,
                               std::int64_t{place}, ListingStyle::kAttributes);
}

void on_statfs(fuse_req_t request, fuse_ino_t node) {  // → statfs
    serve<kVerb<get_space>>(request, Place::kHere, object_of(node));
}

void on_setxattr(fuse_req_t request, fuse_ino_t node, const char* name, const char* value,
                 std::size_t size, int flags) {  // → err
    serve<kVerb<set_xattr>>(request, Place::kHere, object_of(node), name, bytes_of(value, size),
                            flags);
}

void on_getxattr(fuse_req_t request, fuse_ino_t node, const char* name,
                 std::size_t size) {  // → buf, xattr
    serve<kVerb<get_xattr>>(request, Place::kHere, object_of(node), name, size);
}

void on_listxattr(fuse_req_t request, fuse_ino_t node, std::size_t size) {  // → buf, xattr
    serve<kVerb<list_xattrs>>(request, Place::kHere, object_of(node), size);
}

void on_removexattr(fuse_req_t request, fuse_ino_t node, const char* name) {  // → err
    serve<kVerb<remove_xattr>>(request, Place::kHere, object_of(node), name);
}

void on_fallocate(fuse_req_t request, fuse_ino_t node, int mode, off_t offset, off_t length,
                  fuse_file_info* /*file*/) {  // → err
    serve<kVerb<allocate>>(request, Place::kPool, object_of(node), mode, offset, length);
}

void on_lseek(fuse_req_t request, fuse_ino_t node, off_t offset, int whence,
              fuse_file_info* /*file*/) {  // → lseek
    serve<kVerb<seek_data>>(request, Place::kHere, object_of(node), offset, whence);
}

// OPEN, CREATE, FLUSH, COPY_FILE_RANGE, TMPFILE and the rest are not here: libfuse answers
// ENOSYS, and the kernel remembers that and does without.
fuse_lowlevel_ops make_table() {
    fuse_lowlevel_ops table{};
    table.init = on_init;
    table.lookup = on_lookup;
    table.forget = on_forget;
    table.forget_multi = on_forget_multi;
    table.getattr = on_getattr;
    table.setattr = on_setattr;
    table.readlink = on_readlink;
    table.mknod = on_mknod;
    table.mkdir = on_mkdir;
    table.symlink = on_symlink;
    table.link = on_link;
    table.unlink = on_unlink;
    table.rmdir = on_rmdir;
    table.rename = on_rename;
    table.read = on_read;
    table.write = on_write;
    table.fsync = on_fsync;
    table.fsyncdir = on_fsync;
    table.opendir = on_opendir;
    table.releasedir = on_releasedir;
    table.readdir = on_readdir;
    table.readdirplus = on_readdirplus;
    table.statfs = on_statfs;
    table.setxattr = on_setxattr;
    table.getxattr = on_getxattr;
    table.listxattr = on_listxattr;
    table.removexattr = on_removexattr;
    table.fallocate = on_fallocate;
    table.lseek = on_lseek;
    return table;
}

}  // namespace

Service& service_of(fuse_req_t request) {
    return *static_cast<Service*>(fuse_req_userdata(request));
}

bool arguments_stay(fuse_req_t request) {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
    return fuse_req_is_uring(request);
#else
    static_cast<void>(request);
    return false;
#endif
}

Request decode_request(fuse_req_t request) {
    const fuse_ctx* context = fuse_req_ctx(request);
    Request decoded{.caller = {.uid = context->uid,
                               .gid = context->gid,
                               .umask = context->umask,
                               .pid = context->pid}};
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
    if (fuse_req_is_uring(request) &&
        fuse_req_get_payload(request, &decoded.buffer, &decoded.buffer_size, nullptr) == 0) {
        Service& service = service_of(request);
        if (!service.over_uring.load(std::memory_order_relaxed)) service.over_uring = true;
        return decoded;
    }
#endif
    thread_local const std::unique_ptr<char[]> buffer{new char[kBufferBytes]};
    decoded.buffer = buffer.get();
    decoded.buffer_size = kBufferBytes;
    return decoded;
}

#if defined(__SANITIZE_THREAD__) && FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
void request_came(fuse_req_t request) {
    if (fuse_req_is_uring(request)) __tsan_acquire(request);
}
RequestGoes::RequestGoes(fuse_req_t request) {
    if (fuse_req_is_uring(request)) __tsan_release(request);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
RequestGoes::~RequestGoes() { AnnotateIgnoreWritesEnd(__FILE__, __LINE__); }
#else
void request_came(fuse_req_t /*request*/) {}
RequestGoes::RequestGoes(fuse_req_t /*request*/) {}
RequestGoes::~RequestGoes() = default;
#endif

const fuse_lowlevel_ops& handlers() {
    static const fuse_lowlevel_ops table = make_table();
    return table;
}

}  // namespace twinspool
