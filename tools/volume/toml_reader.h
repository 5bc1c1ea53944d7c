// SPDX-License-Identifier: Apache-2.0
// TomlReader: one table of a TOML file, key by key. Keeps the first complaint, with file, line and
// column; what was not asked for is unknown. For tools/volume/config.cc; one thread.
#pragma once

#include <toml++/toml.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/ground/complaint.h"
#include "tools/ground/quantity.h"

namespace twinspool {

// A word of the file, and what it means.
template <typename Choice>
struct Word {
    std::string_view text;
    Choice choice;
};

class TomlReader {
   public:
    TomlReader(const toml::table& table, const std::string& file) : table_(table), file_(file) {}

    template <typename... Args>
    void complain(const toml::source_position& where, fmt::format_string<Args...> format,
                  Args&&... args) {
        if (complaint_) return;
        complaint_ = bad_input("{}:{}:{}: {}", file_, where.line, where.column,
                               fmt::format(format, std::forward<Args>(args)...));
    }

    // Nothing if the key is not there or its value is not a string (then there is a complaint).
    std::optional<std::string> text(std::string_view key) {
        known_.emplace_back(key);
        const toml::node* node = table_.get(key);
        if (node == nullptr) return std::nullopt;
        const auto* value = node->as_string();
        if (value == nullptr) {
            complain(node->source().begin, "{} must be a string in quotes, not {}", key,
                     type_word(*node));
            return std::nullopt;
        }
        return value->get();
    }

    template <typename Choice, std::size_t n>
    void choice(std::string_view key, const Word<Choice> (&words)[n], Choice& into) {
        const auto value = text(key);
        if (!value) return;
        std::string known;
        for (const auto& word : words) {
            if (*value == word.text) {
                into = word.choice;
                return;
            }
            known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", word.text);
        }
        complain(position(key), "{} is \"{}\", but must be one of {}", key, *value, known);
    }

    void duration(std::string_view key, Nanoseconds least, Nanoseconds most, Nanoseconds& into) {
        const auto value = text(key);
        if (!value) return;
        const auto parsed = parse_duration(*value);
        if (!parsed)
            complain(position(key), "{} is \"{}\", which is no duration like {}", key, *value,
                     kDurationExample);
        else if (*parsed < least || *parsed > most)
            complain(position(key), "{} is \"{}\", but must be from {} to {}", key, *value,
                     spell_duration(least), spell_duration(most));
        else
            into = *parsed;
    }

    void size(std::string_view key, std::uint64_t& into, std::uint64_t least = 0) {
        const auto value = text(key);
        if (!value) return;
        const auto parsed = parse_size(*value);
        if (!parsed)
            complain(position(key), "{} is \"{}\", which is no size like {}", key, *value,
                     kSizeExample);
        else if (*parsed < least)
            complain(position(key), "{} is \"{}\", but must be at least {}", key, *value,
                     spell_size(least));
        else
            into = *parsed;
    }

    // A command for the shell.
    void shell_command(std::string_view key, std::string& into) {
        auto value = text(key);
        if (!value) return;
        if (value->find('\0') != std::string::npos)
            complain(position(key), "{} holds a zero byte, which no command can", key);
        else
            into = std::move(*value);
    }

    // [key]: `read` is called with a reader of its own, whose complaint is ours.
    template <typename Read>
    void table(std::string_view key, Read read) {
        known_.emplace_back(key);
        const toml::node* node = table_.get(key);
        if (node == nullptr) return;
        const auto* inner = node->as_table();
        if (inner == nullptr) {
            complain(node->source().begin, "{} must be written as [{}], not as {}", key, key,
                     type_word(*node));
            return;
        }
        read_inner(*inner, read);
    }

    // [[key]]: `read` is called for each, with a reader of its own, whose complaint is ours.
    template <typename Read>
    void tables(std::string_view key, Read read) {
        known_.emplace_back(key);
        const toml::node* node = table_.get(key);
        if (node == nullptr) return;
        const auto* array = node->as_array();
        if (array == nullptr) {
            complain(node->source().begin, "{} must be written as [[{}]], not as {}", key, key,
                     type_word(*node));
            return;
        }
        for (const toml::node& element : *array) {
            const auto* table = element.as_table();
            if (table == nullptr)
                complain(element.source().begin, "each {} must be a table [[{}]], not {}", key, key,
                         type_word(element));
            else
                read_inner(*table, read);
        }
    }

    // The path that every table [[key]] must have; this is the reader of one.
    std::string path(std::string_view key) {
        auto path = text("path");
        if (!path)
            complain(table_.source().begin, "this [[{}]] has no path", key);
        else if (!path->starts_with('/'))
            complain(position("path"), "the path \"{}\" of a {} must be absolute", *path, key);
        return std::move(path).value_or("");
    }

    void number(std::string_view key, std::int64_t least, std::int64_t most, std::uint16_t& into) {
        known_.emplace_back(key);
        const toml::node* node = table_.get(key);
        if (node == nullptr) return;
        const auto* value = node->as_integer();
        if (value == nullptr)
            complain(node->source().begin, "{} must be an integer, not {}", key, type_word(*node));
        else if (value->get() < least || value->get() > most)
            complain(node->source().begin, "{} is {}, but must be from {} to {}", key, value->get(),
                     least, most);
        else
            into = static_cast<std::uint16_t>(value->get());
    }

    void yes_or_no(std::string_view key, bool& into) {
        known_.emplace_back(key);
        const toml::node* node = table_.get(key);
        if (node == nullptr) return;
        if (const auto* value = node->as_boolean())
            into = value->get();
        else
            complain(node->source().begin, "{} must be true or false, not {}", key,
                     type_word(*node));
    }

    [[nodiscard]] bool has(std::string_view key) const { return table_.contains(key); }

    [[nodiscard]] toml::source_position position(std::string_view key) const {
        const toml::node* node = table_.get(key);
        return node == nullptr ? table_.source().begin : node->source().begin;
    }

    [[nodiscard]] std::optional<Complaint> finish() {
        for (const auto& [key, value] : table_)
            if (std::find(known_.begin(), known_.end(), std::string{key.str()}) == known_.end())
                complain(key.source().begin, "unknown key \"{}\"", key.str());
        return std::move(complaint_);
    }

   private:
    static std::string_view type_word(const toml::node& node) {
        if (node.is_string()) return "a string";
        if (node.is_integer()) return "an integer";
        if (node.is_floating_point()) return "a floating-point number";
        if (node.is_boolean()) return "a boolean";
        if (node.is_array()) return "an array";
        if (node.is_table()) return "a table";
        return "a date or time";
    }

    template <typename Read>
    void read_inner(const toml::table& table, Read& read) {
        TomlReader reader(table, file_);
        read(reader);
        if (auto complaint = reader.finish(); complaint && !complaint_) complaint_ = complaint;
    }

    const toml::table& table_;
    const std::string& file_;
    std::vector<std::string> known_;
    std::optional<Complaint> complaint_;
};

}  // namespace twinspool
