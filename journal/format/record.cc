// SPDX-License-Identifier: Apache-2.0
#include "journal/format/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace twinspool {
namespace {

class Decoder {
   public:
    explicit Decoder(Bytes bytes) : rest_(bytes) {}

    template <typename T>
    void operator()(T& value) {
        if constexpr (std::is_same_v<T, std::string_view>) {
            const Bytes bytes = take_counted();
            value = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
        } else if constexpr (std::is_same_v<T, Bytes>) {
            value = take_counted();
        } else if constexpr (std::is_same_v<T, Attributes>) {
            (*this)(value.mode), (*this)(value.uid), (*this)(value.gid), (*this)(value.mtime);
        } else if constexpr (std::is_same_v<T, FileTime>) {
            (*this)(value.seconds), (*this)(value.nanoseconds);
        } else {
            const Bytes bytes = take(sizeof(T));
            if (ok_) std::memcpy(&value, bytes.data(), sizeof(T));
        }
    }

    // All fields were there, and nothing but zero padding is left.
    [[nodiscard]] bool complete() const {
        return ok_ && rest_.size() < 8 && std::all_of(rest_.begin(), rest_.end(), [](std::byte b) {
                   return b == std::byte{};
               });
    }

   private:
    Bytes take(std::size_t size) {
        if (!ok_ || rest_.size() < size) {
            ok_ = false;
            return {};
        }
        const Bytes front = rest_.first(size);
        rest_ = rest_.subspan(size);
        return front;
    }
    Bytes take_counted() {
        std::uint32_t size = 0;
        (*this)(size);
        return take(size);
    }

    Bytes rest_;
    bool ok_ = true;
};

template <typename T>
bool decode_fields(Bytes bytes, Op& op) {
    T value;
    Decoder decoder{bytes};
    value.fields(decoder);
    if (!decoder.complete()) return false;
    op = value;
    return true;
}

bool decode_op(std::uint8_t code, Bytes fields, Op& op) {
    switch (static_cast<OpCode>(code)) {
#define X(number, Type, word) \
    case OpCode::Type:        \
        return decode_fields<Type>(fields, op);
#include "journal/format/ops.def"
#undef X
    }
    return false;
}

std::string quoted(std::string_view text) {
    std::string escaped = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7f || c == '"' || c == '\\')
            escaped += fmt::format("\\x{:02x}", byte);
        else
            escaped += c;
    }
    return escaped + '"';
}

// One name for each kind of field: a record's line reads "word value value …".
struct Printer {
    std::string out;
    template <typename T>
    void operator()(const T& value) {
        if constexpr (std::is_same_v<T, std::string_view>)
            out += ' ' + quoted(value);
        else if constexpr (std::is_same_v<T, Bytes>)
            out += fmt::format(" [{} B]", value.size());
        else if constexpr (std::is_same_v<T, Attributes>)
            out += fmt::format(" mode {:o} owner {}:{} mtime {}.{:09}", value.mode, value.uid,
                               value.gid, value.mtime.seconds, value.mtime.nanoseconds);
        else if constexpr (std::is_same_v<T, FileTime>)
            out += fmt::format(" mtime {}.{:09}", value.seconds, value.nanoseconds);
        else if constexpr (std::is_same_v<T, ObjectId>)
            out += fmt::format(" #{:x}", raw(value));
        else if constexpr (std::is_same_v<T, Lsn>)
            out += fmt::format(" lsn {}", value.value);
        else if constexpr (std::is_same_v<T, WallTime>)
            out += fmt::format(" time {}", raw(value));
        else if constexpr (std::is_same_v<T, AllocateKind>)
            out += value == AllocateKind::kPunch  ? " punch"
                   : value == AllocateKind::kZero ? " zero"
                                                  : " allocate";
        else
            out += fmt::format(" {}", value);
    }
};

}  // namespace

Result<Record> decode_record(Bytes bytes) {
    RecordHeader header;
    if (bytes.size() < sizeof header)
        return make_error(EBADMSG, "decode a record: {} bytes are less than a header",
                          bytes.size());
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.size < sizeof header || header.size % 8 != 0 || header.size > bytes.size())
        return make_error(EBADMSG, "decode record {}: size {} of {} bytes", header.lsn, header.size,
                          bytes.size());
    Record record{
        .lsn = Lsn{header.lsn}, .op = std::monostate{}, .encoded = bytes.first(header.size)};
    if (!decode_op(header.code, record.encoded.subspan(sizeof header), record.op))
        return make_error(EBADMSG, "decode record {}: code {} with {} bytes is no operation",
                          header.lsn, header.code, header.size);
    return record;
}

std::string describe(const Record& record) {
    std::string line = fmt::format("{}", record.lsn.value);
    std::visit(
        [&line]<typename T>(const T& op) {
            if constexpr (!std::is_same_v<T, std::monostate>) {
                Printer printer;
                const_cast<T&>(op).fields(printer);  // fields() only visits
                line += fmt::format(" {}{}", OpTraits<T>::word, printer.out);
            }
        },
        record.op);
    return line;
}

}  // namespace twinspool
