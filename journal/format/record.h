// SPDX-License-Identifier: Apache-2.0
// Record: an operation encoded with its Lsn. 16 bytes of header (journal/format/format.h), then the
// operation's fields in the order of fields(): integers little-endian, strings and bytes as u32
// length and content; padded with zeros to a multiple of 8. Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

#include "journal/base/result.h"
#include "journal/format/format.h"
#include "journal/format/op.h"

namespace twinspool {

namespace record_detail {

struct Sizer {
    std::size_t size = 0;
    template <typename T>
    void operator()(const T& value) {
        if constexpr (std::is_same_v<T, std::string_view> || std::is_same_v<T, Bytes>)
            size += sizeof(std::uint32_t) + value.size();
        else if constexpr (std::is_same_v<T, Attributes>)
            size += 3 * sizeof(std::uint32_t) + sizeof(std::int64_t) + sizeof(std::uint32_t);
        else if constexpr (std::is_same_v<T, FileTime>)
            size += sizeof(std::int64_t) + sizeof(std::uint32_t);
        else
            size += sizeof(T);
    }
};

struct Encoder {
    std::byte* at;
    template <typename T>
    void operator()(const T& value) {
        if constexpr (std::is_same_v<T, std::string_view> || std::is_same_v<T, Bytes>) {
            (*this)(static_cast<std::uint32_t>(value.size()));
            if (!value.empty()) std::memcpy(at, value.data(), value.size());
            at += value.size();
        } else if constexpr (std::is_same_v<T, Attributes>) {
            (*this)(value.mode), (*this)(value.uid), (*this)(value.gid), (*this)(value.mtime);
        } else if constexpr (std::is_same_v<T, FileTime>) {
            (*this)(value.seconds), (*this)(value.nanoseconds);
        } else {
            static_assert(std::is_trivially_copyable_v<T>);
            std::memcpy(at, &value, sizeof(T));
            at += sizeof(T);
        }
    }
};

}  // namespace record_detail

constexpr std::size_t padded_record(std::size_t bytes) { return (bytes + 7) & ~std::size_t{7}; }

// Of the whole record, header and padding included.
template <typename T>
std::size_t encoded_size(const T& op) {
    record_detail::Sizer sizer;
    const_cast<T&>(op).fields(sizer);  // fields() only visits
    return padded_record(sizeof(RecordHeader) + sizer.size);
}

// An upper bound for a record with this many bytes of names, targets, values and data.
constexpr std::size_t max_encoded_size(std::size_t variable_bytes) {
    return padded_record(sizeof(RecordHeader) + 160 + variable_bytes);
}

// `out` has exactly encoded_size(op) bytes.
template <typename T>
void encode(const T& op, Lsn lsn, std::span<std::byte> out) {
    const RecordHeader header{.size = static_cast<std::uint32_t>(out.size()),
                              .code = static_cast<std::uint8_t>(OpTraits<T>::code),
                              .reserved = {},
                              .lsn = lsn.value};
    std::memcpy(out.data(), &header, sizeof header);
    record_detail::Encoder encoder{out.data() + sizeof header};
    const_cast<T&>(op).fields(encoder);
    std::memset(encoder.at, 0, static_cast<std::size_t>(out.data() + out.size() - encoder.at));
}

struct Record {
    Lsn lsn;
    Op op;
    Bytes encoded;  // all of it, header included
};

// Decodes the record at the front of `bytes`. EBADMSG: not a record (says what is wrong).
// Strings of the result point into `bytes`. Never reads beyond them, whatever they hold.
Result<Record> decode_record(Bytes bytes);

// One line for people: "1234 create object=… parent=… name=…".
std::string describe(const Record& record);

}  // namespace twinspool
