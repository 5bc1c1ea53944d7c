// SPDX-License-Identifier: Apache-2.0
// Operation: one change that happened, with its outcome: resolved ids, final offsets, resulting
// times. Applying one needs no clock, umask or credentials, and applying it twice is harmless.
// Strings and bytes are borrowed: from the caller when encoding, from the frame when decoded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>

#include "journal/base/bytes.h"
#include "journal/base/units.h"

namespace twinspool {

// A file time as the file system has it (wider than WallTime, which records moments of ours).
struct FileTime {
    std::int64_t seconds = 0;
    std::uint32_t nanoseconds = 0;
    friend bool operator==(const FileTime&, const FileTime&) = default;
};

struct Attributes {
    std::uint32_t mode = 0;  // type and permissions, as in st_mode
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    FileTime mtime;
    friend bool operator==(const Attributes&, const Attributes&) = default;
};

struct EpochOp {
    std::uint32_t number = 0;
    std::uint64_t id = 0;
    void fields(auto& f) { f(number), f(id); }
};

struct DirectoryOp {
    ObjectId object{};
    std::string_view path;  // absolute
    Attributes attributes;
    void fields(auto& f) { f(object), f(path), f(attributes); }
};

// The object stands at this entry (a directory nowhere else); its xattrs are none but those that
// follow as SetXattrOp. Size and content of a regular file are left as they are.
struct AdoptOp {
    ObjectId object{};
    ObjectId parent{};
    std::string_view name;
    Attributes attributes;
    std::uint64_t device = 0;  // st_rdev
    std::string_view target;   // of a symlink
    void fields(auto& f) { f(object), f(parent), f(name), f(attributes), f(device), f(target); }
};

struct CreateOp {
    ObjectId object{};
    ObjectId parent{};
    std::string_view name;
    Attributes attributes;
    std::uint64_t device = 0;
    std::string_view target;
    FileTime parent_mtime;
    void fields(auto& f) {
        f(object), f(parent), f(name), f(attributes), f(device), f(target), f(parent_mtime);
    }
};

struct LinkOp {
    ObjectId object{};
    ObjectId parent{};
    std::string_view name;
    FileTime parent_mtime;
    void fields(auto& f) { f(object), f(parent), f(name), f(parent_mtime); }
};

struct UnlinkOp {
    ObjectId object{};
    ObjectId parent{};
    std::string_view name;
    FileTime parent_mtime;
    std::uint32_t names_left = 0;  // of the object, wherever they stand: also outside the volume
    void fields(auto& f) { f(object), f(parent), f(name), f(parent_mtime), f(names_left); }
};

struct RenameOp {
    ObjectId object{};
    ObjectId source_parent{};
    std::string_view source_name;
    ObjectId target_parent{};
    std::string_view target_name;
    ObjectId replaced{};        // what stood at the target: gone, or (exchange) now at the source
    std::uint8_t exchange = 0;  // 0 or 1
    FileTime source_mtime;      // of the parents
    FileTime target_mtime;
    std::uint32_t names_left = 0;  // of what was replaced, as with UnlinkOp
    void fields(auto& f) {
        f(object), f(source_parent), f(source_name), f(target_parent), f(target_name), f(replaced),
            f(exchange), f(source_mtime), f(target_mtime), f(names_left);
    }
};

struct WriteOp {
    ObjectId object{};
    std::uint64_t offset = 0;
    FileTime mtime;
    Bytes data;
    void fields(auto& f) { f(object), f(offset), f(mtime), f(data); }
};

struct TruncateOp {
    ObjectId object{};
    std::uint64_t size = 0;
    FileTime mtime;
    void fields(auto& f) { f(object), f(size), f(mtime); }
};

enum class AllocateKind : std::uint8_t { kAllocate = 0, kPunch = 1, kZero = 2 };

struct AllocateOp {
    ObjectId object{};
    AllocateKind kind{};
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::uint64_t size = 0;  // of the file, afterwards
    FileTime mtime;
    void fields(auto& f) { f(object), f(kind), f(offset), f(length), f(size), f(mtime); }
};

struct AttributesOp {
    ObjectId object{};
    Attributes attributes;
    void fields(auto& f) { f(object), f(attributes); }
};

struct SetXattrOp {
    ObjectId object{};
    std::string_view name;
    Bytes value;
    void fields(auto& f) { f(object), f(name), f(value); }
};

struct RemoveXattrOp {
    ObjectId object{};
    std::string_view name;
    void fields(auto& f) { f(object), f(name); }
};

// Among the names n with after < n <= upto (bytewise; an empty upto has no bound) the directory has
// just those listed. `names`: each a u32 length and its bytes, ascending.
struct EntriesOp {
    ObjectId parent{};
    std::string_view after;
    std::string_view upto;
    Bytes names;
    FileTime parent_mtime;
    void fields(auto& f) { f(parent), f(after), f(upto), f(names), f(parent_mtime); }
};

struct StandbyOp {
    std::uint32_t standby = 0;  // its place in the configuration
    std::uint8_t waited_for = 0;
    Lsn since;  // last Lsn known to be durable there
    void fields(auto& f) { f(standby), f(waited_for), f(since); }
};

struct SeededOp {
    std::uint32_t generation = 0;
    void fields(auto& f) { f(generation); }
};

struct ClosedOp {
    WallTime time{};  // by the clock that stamps ctime: what has a ctime >= this changed underneath
    void fields(auto& f) { f(time); }
};

// A snapshot: everything with a smaller Lsn is in it. Its number is this record's Lsn.
struct MarkOp {
    std::string_view name;  // letters, digits, ".", "_" and "-"
    WallTime time{};
    // 1: not everything that was there had been told, or looked at, when it was taken.
    std::uint8_t incomplete = 0;
    void fields(auto& f) { f(name), f(time), f(incomplete); }
};

// The snapshot with this number is to be destroyed.
struct UnmarkOp {
    Lsn mark;
    void fields(auto& f) { f(mark); }
};

// Checks change nothing: a standby compares what it has when it stands at this position, and tells
// the primary what is not so (journal/format/finding.h). `exact`: the range that is applied ends
// here, so that nothing later covers it; otherwise what is changed again in the same range is found
// to be "changed meanwhile", and the primary checks it anew.
inline constexpr std::size_t kCheckBlockBytes = 16384;

// `hashes`: XXH3-128 (16 bytes, canonical) of each kCheckBlockBytes of [offset, offset + length),
// the last shorter if `length` or the file ends there; holes count as zeros. `offset` is a multiple
// of kCheckBlockBytes, `length` at most kMaxDataBytes. `size`: of the file.
struct CheckContentOp {
    ObjectId object{};
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::uint64_t size = 0;
    std::uint8_t exact = 0;
    Bytes hashes;
    void fields(auto& f) { f(object), f(offset), f(length), f(size), f(exact), f(hashes); }
};

// `xattrs`: each a u32 length and the name, a u32 length and the value; names ascending. Only those
// that are replicated.
struct CheckObjectOp {
    ObjectId object{};
    Attributes attributes;
    std::uint64_t device = 0;
    std::string_view target;
    std::uint8_t exact = 0;
    Bytes xattrs;
    void fields(auto& f) { f(object), f(attributes), f(device), f(target), f(exact), f(xattrs); }
};

// Among the names n with after < n <= upto (bytewise; an empty upto has no bound) the directory has
// just these. `entries`: each a u32 length, the name, and the u64 id of its object; ascending.
struct CheckEntriesOp {
    ObjectId parent{};
    std::string_view after;
    std::string_view upto;
    std::uint8_t exact = 0;
    Bytes entries;
    void fields(auto& f) { f(parent), f(after), f(upto), f(exact), f(entries); }
};

struct VoidOp {
    void fields(auto& /*f*/) {}
};

enum class OpCode : std::uint8_t {
#define X(code, Type, word) Type = code,
#include "journal/format/ops.def"
#undef X
};

// Any operation, decoded.
using Op = std::variant<
#define X(code, Type, word) Type,
#include "journal/format/ops.def"
#undef X
    std::monostate>;

template <typename T>
struct OpTraits;
#define X(number, Type, spelled)                           \
    template <>                                            \
    struct OpTraits<Type> {                                \
        static constexpr OpCode code = OpCode::Type;       \
        static constexpr std::string_view word = #spelled; \
    };
#include "journal/format/ops.def"
#undef X

}  // namespace twinspool
