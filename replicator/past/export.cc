// SPDX-License-Identifier: Apache-2.0
#include "replicator/past/export.h"

#include <archive.h>
#include <archive_entry.h>
#include <endian.h>
#include <langinfo.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <clocale>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "replicator/past/printable.h"
#include "replicator/store/content.h"

namespace twinspool {
namespace {

constexpr std::size_t kMaxDepth = 2048;  // deeper ones no absolute path leads to
constexpr std::string_view kAclPrefix = "system.posix_acl_";
constexpr std::string_view kDefaultAcl = "system.posix_acl_default";

// What libarchive takes names to be written in. Bytes that are no UTF-8 go out as they are.
class NamesInUtf8 {
   public:
    NamesInUtf8()
        : utf8_(::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)),
          before_(::uselocale(utf8_ != nullptr ? utf8_ : LC_GLOBAL_LOCALE)) {}
    ~NamesInUtf8() {
        ::uselocale(before_);
        if (utf8_ != nullptr) ::freelocale(utf8_);
    }
    NamesInUtf8(const NamesInUtf8&) = delete;
    NamesInUtf8& operator=(const NamesInUtf8&) = delete;

   private:
    locale_t utf8_;
    locale_t before_;
};

// An ACL as the kernel keeps it in an xattr: a version, then entries of tag, permissions, id.
struct KernelAclEntry {
    std::uint16_t tag;          // 0
    std::uint16_t permissions;  // 2
    std::uint32_t id;           // 4
};
static_assert(sizeof(KernelAclEntry) == 8);
constexpr std::size_t kAclHeaderBytes = 4;

struct AclTag {
    std::uint16_t kernel;
    int archive;
};
constexpr std::array kAclTags{
    AclTag{0x01, ARCHIVE_ENTRY_ACL_USER_OBJ},  AclTag{0x02, ARCHIVE_ENTRY_ACL_USER},
    AclTag{0x04, ARCHIVE_ENTRY_ACL_GROUP_OBJ}, AclTag{0x08, ARCHIVE_ENTRY_ACL_GROUP},
    AclTag{0x10, ARCHIVE_ENTRY_ACL_MASK},      AclTag{0x20, ARCHIVE_ENTRY_ACL_OTHER}};

Status add_acl(archive_entry* entry, std::string_view name, std::string_view value) {
    const int kind =
        name == kDefaultAcl ? ARCHIVE_ENTRY_ACL_TYPE_DEFAULT : ARCHIVE_ENTRY_ACL_TYPE_ACCESS;
    if (value.size() < kAclHeaderBytes) return make_error(EBADMSG, "read the ACL of it");
    for (value.remove_prefix(kAclHeaderBytes); value.size() >= sizeof(KernelAclEntry);
         value.remove_prefix(sizeof(KernelAclEntry))) {
        KernelAclEntry raw{};
        std::memcpy(&raw, value.data(), sizeof raw);
        const auto tag = std::find_if(kAclTags.begin(), kAclTags.end(), [&](const AclTag& each) {
            return each.kernel == le16toh(raw.tag);
        });
        if (tag == kAclTags.end()) return make_error(EBADMSG, "read the ACL of it");
        const bool has_id =
            tag->archive == ARCHIVE_ENTRY_ACL_USER || tag->archive == ARCHIVE_ENTRY_ACL_GROUP;
        ::archive_entry_acl_add_entry(entry, kind, le16toh(raw.permissions), tag->archive,
                                      has_id ? static_cast<int>(le32toh(raw.id)) : -1, nullptr);
    }
    return {};
}

class Exporter {
   public:
    Exporter(Image& image, const ExportOptions& options)
        : image_(image), options_(options), archive_(::archive_write_new()) {}
    ~Exporter() {
        if (archive_ == nullptr) return;
        ::archive_write_fail(archive_);  // no end mark unless close() has written it
        ::archive_write_free(archive_);
    }
    Exporter(const Exporter&) = delete;
    Exporter& operator=(const Exporter&) = delete;

    Status open(int fd) {
        if (archive_ == nullptr) return make_error(ENOMEM, "begin a tar");
        if (::archive_write_set_format_pax(archive_) != ARCHIVE_OK ||
            // The only ones that GNU tar reads.
            ::archive_write_set_format_option(archive_, "pax", "xattrheader", "SCHILY") !=
                ARCHIVE_OK ||
            ::archive_write_set_bytes_per_block(archive_, kBlockBytes) != ARCHIVE_OK ||
            ::archive_write_open_fd(archive_, fd) != ARCHIVE_OK)
            return failed("begin the tar");
        return {};
    }
    Status object(const std::string& name, ObjectId object) {
        Status status = member(name, object);
        if (status.ok() || status.error().code == EPIPE) return status;
        // Inner errors have their path already.
        if (named_) return status;
        named_ = true;
        return make_error(status.error().code, "export {}: {}", printable(name),
                          status.error().doing);
    }
    Result<ExportCounters> close() {
        if (::archive_write_close(archive_) != ARCHIVE_OK) return failed("end the tar").error();
        ::archive_write_free(archive_);
        archive_ = nullptr;
        return counters_;
    }

   private:
    static constexpr int kBlockBytes = 64 * 1024;
    using Entry = std::unique_ptr<archive_entry, decltype(&::archive_entry_free)>;

    Status member(const std::string& name, ObjectId object) {
        TS_ASSIGN(const auto attributes, image_.attributes(object));
        if (S_ISSOCK(attributes.mode)) {
            if (options_.on_left_out) options_.on_left_out(name);
            return {};
        }
        {
            const Entry entry{::archive_entry_new(), ::archive_entry_free};
            TS_TRY(describe(entry.get(), name, object, attributes));
            if (::archive_write_header(archive_, entry.get()) < ARCHIVE_WARN)
                return failed("write its header");
        }
        ++counters_.members;
        if (S_ISDIR(attributes.mode)) return directory(name, object);
        if (S_ISREG(attributes.mode) && !linked_) return content(object, attributes.size);
        return {};
    }

    Status describe(archive_entry* entry, const std::string& name, ObjectId object,
                    const ImageAttributes& attributes) {
        ::archive_entry_set_pathname(entry, name.c_str());
        ::archive_entry_set_mode(entry, attributes.mode);
        ::archive_entry_set_uid(entry, attributes.uid);
        ::archive_entry_set_gid(entry, attributes.gid);
        ::archive_entry_set_mtime(entry, attributes.mtime.seconds,
                                  static_cast<long>(attributes.mtime.nanoseconds));
        linked_ = false;
        if (attributes.links > 1 && !S_ISDIR(attributes.mode)) {
            const auto [first, is_new] = first_names_.emplace(object, name);
            linked_ = !is_new;
            if (linked_) {
                ::archive_entry_set_hardlink(entry, first->second.c_str());
                return {};
            }
        }
        if (S_ISREG(attributes.mode)) {
            ::archive_entry_set_size(entry, static_cast<std::int64_t>(attributes.size));
            TS_TRY(add_data_map(entry, object, attributes.size));
        }
        if (S_ISCHR(attributes.mode) || S_ISBLK(attributes.mode)) {
            ::archive_entry_set_rdevmajor(entry, major(attributes.device));
            ::archive_entry_set_rdevminor(entry, minor(attributes.device));
        }
        if (S_ISLNK(attributes.mode)) {
            TS_ASSIGN(const auto target, image_.target(object));
            ::archive_entry_set_symlink(entry, target.c_str());
        }
        TS_ASSIGN(const auto xattrs, image_.xattrs(object));
        for (const auto& [key, value] : xattrs) {
            if (key.starts_with(kAclPrefix))
                TS_TRY(add_acl(entry, key, value));
            else
                ::archive_entry_xattr_add_entry(entry, key.c_str(), value.data(), value.size());
        }
        return {};
    }

    // A file without holes is written as an ordinary one.
    Status add_data_map(archive_entry* entry, ObjectId object, std::uint64_t size) {
        std::uint64_t data = 0;
        for (std::uint64_t at = 0; at < size;) {
            TS_ASSIGN(const auto range, image_.next_data(object, at));
            if (!range || range->offset >= size) break;
            const std::uint64_t begin = std::max(at, range->offset);
            at = std::min(size, range->offset + range->length);
            if (at <= begin) break;
            ::archive_entry_sparse_add_entry(entry, static_cast<std::int64_t>(begin),
                                             static_cast<std::int64_t>(at - begin));
            data += at - begin;
        }
        if (data == size) ::archive_entry_sparse_clear(entry);
        // Nothing but a hole still needs a map.
        if (data == 0 && size != 0)
            ::archive_entry_sparse_add_entry(entry, static_cast<std::int64_t>(size), 0);
        return {};
    }

    // All bytes; libarchive passes over those that the map leaves out.
    Status content(ObjectId object, std::uint64_t size) {
        std::vector<std::byte> buffer(std::min<std::uint64_t>(size, kContentChunk));
        std::optional<ImageRange> range;
        for (std::uint64_t at = 0; at < size;) {
            if (!range || range->offset + range->length <= at) {
                TS_ASSIGN(range, image_.next_data(object, at));
                if (!range) range = ImageRange{.offset = size, .length = 1};
            }
            std::uint64_t stop = std::min(size, at + buffer.size());
            if (range->offset > at) {
                stop = std::min(stop, range->offset);
                std::fill(buffer.begin(), buffer.end(), std::byte{});
            } else {
                stop = std::min(stop, range->offset + range->length);
                TS_ASSIGN(const auto got, image_.read(object, at, {buffer.data(), stop - at}));
                if (got != stop - at) return make_error(EIO, "read {} bytes at {}", stop - at, at);
            }
            TS_TRY(write({buffer.data(), stop - at}));
            at = stop;
        }
        return {};
    }

    Status write(std::span<const std::byte> data) {
        while (!data.empty()) {
            const la_ssize_t written = ::archive_write_data(archive_, data.data(), data.size());
            if (written <= 0) return failed("write it");
            counters_.bytes += static_cast<std::uint64_t>(written);
            data = data.subspan(static_cast<std::size_t>(written));
        }
        return {};
    }

    Status directory(const std::string& name, ObjectId object) {
        if (depth_ >= kMaxDepth) return make_error(ENAMETOOLONG, "go deeper");
        ++depth_;
        TS_ASSIGN(const auto entries, image_.list(object));
        for (const auto& entry : entries)
            TS_TRY(this->object(name + "/" + entry.name, entry.object));
        --depth_;
        return {};
    }

    Status failed(const char* doing) const {
        const int code = ::archive_errno(archive_);
        return make_error(code > 0 ? code : EIO, "{}", doing);
    }

    Image& image_;
    const ExportOptions& options_;
    archive* archive_;
    ExportCounters counters_;
    std::map<ObjectId, std::string> first_names_;  // of objects with several
    bool linked_ = false;                          // the member is another name of an earlier one
    bool named_ = false;
    std::size_t depth_ = 0;
};

}  // namespace

Result<ExportCounters> export_image(Image& image, const std::optional<ImagePart>& part, int fd,
                                    const ExportOptions& options) {
    const NamesInUtf8 names;
    Exporter exporter{image, options};
    TS_TRY(exporter.open(fd));
    if (part) {
        TS_TRY(exporter.object(std::string{part->name()}, part->object));
    } else {
        for (const auto& root : image.roots())
            TS_TRY(exporter.object(root.path.substr(1), root.object));
    }
    return exporter.close();
}

}  // namespace twinspool
