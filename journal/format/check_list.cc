// SPDX-License-Identifier: Apache-2.0
#include "journal/format/check_list.h"

#include <cstdint>
#include <cstring>

namespace twinspool {
namespace {

constexpr std::size_t kMaxName = 255;

void append(std::vector<std::byte>& list, const void* bytes, std::size_t size) {
    const auto* from = static_cast<const std::byte*>(bytes);
    list.insert(list.end(), from, from + size);
}

void append_text(std::vector<std::byte>& list, std::string_view text) {
    const auto size = static_cast<std::uint32_t>(text.size());
    append(list, &size, sizeof size);
    append(list, text.data(), text.size());
}

class Taker {
   public:
    explicit Taker(Bytes list) : rest_(list) {}
    [[nodiscard]] bool more() const { return ok_ && !rest_.empty(); }
    [[nodiscard]] bool ok() const { return ok_; }

    std::string_view text() {
        const Bytes bytes = take(number<std::uint32_t>());
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    // Not the same as the one before, and not before it.
    std::string_view name() {
        const std::string_view name = text();
        ok_ = ok_ && !name.empty() && name.size() <= kMaxName && name > last_;
        last_ = name;
        return name;
    }
    template <typename T>
    T number() {
        T value{};
        const Bytes bytes = take(sizeof value);
        if (ok_) std::memcpy(&value, bytes.data(), sizeof value);
        return value;
    }

   private:
    Bytes take(std::size_t size) {
        if (!ok_ || size > rest_.size()) {
            ok_ = false;
            return {};
        }
        const Bytes front = rest_.first(size);
        rest_ = rest_.subspan(size);
        return front;
    }
    Bytes rest_;
    std::string_view last_;
    bool ok_ = true;
};

}  // namespace

void add_checked_xattr(std::vector<std::byte>& list, const CheckedXattr& xattr) {
    append_text(list, xattr.name);
    append_text(list, xattr.value);
}

void add_checked_entry(std::vector<std::byte>& list, const CheckedEntry& entry) {
    append_text(list, entry.name);
    append(list, &entry.object, sizeof entry.object);
}

Result<std::vector<CheckedXattr>> checked_xattrs(Bytes list) {
    std::vector<CheckedXattr> xattrs;
    Taker taker{list};
    while (taker.more()) {
        const std::string_view name = taker.name();
        xattrs.push_back({.name = name, .value = taker.text()});
    }
    if (!taker.ok()) return make_error(EBADMSG, "read a check's list of xattrs");
    return xattrs;
}

Result<std::vector<CheckedEntry>> checked_entries(Bytes list) {
    std::vector<CheckedEntry> entries;
    Taker taker{list};
    while (taker.more()) {
        const std::string_view name = taker.name();
        entries.push_back({.name = name, .object = ObjectId{taker.number<std::uint64_t>()}});
    }
    if (!taker.ok()) return make_error(EBADMSG, "read a check's list of entries");
    return entries;
}

}  // namespace twinspool
