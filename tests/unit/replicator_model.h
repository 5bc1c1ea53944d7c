// SPDX-License-Identifier: Apache-2.0
// Model: a file system in memory that logs what is done to it, as the primary would; also what the
// walker logs about changes made underneath. And the comparison with a replica tree on disk.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "journal/format/finding.h"
#include "journal/format/record.h"

namespace twinspool::test {

// Records with the bytes that they point into.
class Log {
   public:
    template <typename T>
    void add(const T& op) {
        auto& bytes = bytes_.emplace_back(encoded_size(op));
        encode(op, Lsn{records_.size() + 1}, std::span{bytes});
        auto record = decode_record(Bytes{bytes});
        TS_ASSERT(record.ok());
        records_.push_back(*record);
    }
    [[nodiscard]] std::size_t size() const { return records_.size(); }
    [[nodiscard]] const Record& operator[](std::size_t i) const { return records_[i]; }

   private:
    std::deque<std::vector<std::byte>> bytes_;
    std::vector<Record> records_;
};

struct Node {
    ObjectId id{};
    Attributes attributes;
    std::uint64_t device = 0;
    std::string target;
    std::string content;
    std::map<std::string, std::string> xattrs;
    std::map<std::string, ObjectId> entries;
    ObjectId parent{};  // directories
    std::uint32_t names = 0;
    bool told = true;
    [[nodiscard]] bool is(std::uint32_t type) const { return (attributes.mode & S_IFMT) == type; }
};

class Model {
   public:
    explicit Model(std::uint64_t seed);
    Log& log() { return log_; }
    void act();  // one random operation, logged
    // Random changes that nobody logs; then all that the walker has to say about them, with other
    // operations in between.
    void change_underneath(int changes);
    [[nodiscard]] std::size_t live_objects() const;

    // All that there is, as a resync tells it: contents by hash, with other operations in between.
    // The end of it is not said.
    void tell_anew();
    void seeded(std::uint32_t generation) { log_.add(SeededOp{.generation = generation}); }
    // What a resync, or a repair, logs for what a standby found; false: nothing.
    bool answer(const std::vector<Finding>& findings);
    // What a verify logs.
    void check_all();
    void check_object(ObjectId object, std::uint8_t exact = 0);
    void check_content(ObjectId object, std::uint8_t exact = 0);
    void check_entries(ObjectId directory, std::uint8_t exact = 0);

    // Everything as it is now, to be compared with later.
    struct Picture {
        std::map<ObjectId, Node> nodes;
        std::map<std::string, ObjectId> roots;
    };
    [[nodiscard]] Picture picture() const { return {nodes_, roots_}; }

    // What differs between this and the tree below `store`; empty: nothing.
    [[nodiscard]] std::string compare(const std::string& store) const;

   private:
    struct Place {
        ObjectId parent{};
        std::string name;
    };
    std::uint64_t below(std::uint64_t n) { return random_() % n; }
    FileTime new_time();
    std::string new_name() { return std::string(1, static_cast<char>('a' + below(7))); }
    ObjectId random_directory();
    std::vector<Place> places();
    Place random_place();
    ObjectId random_of(bool files_only);
    bool is_below(ObjectId directory, ObjectId ancestor);
    void put(const Place& at, ObjectId object);
    void take(const Place& at);
    void drop_if_gone(ObjectId object);
    bool hidden_link(ObjectId object);
    template <typename T>
    void tell(const T& op) {
        if (!silent_) log_.add(op);
    }

    void create();
    void link();
    void unlink();
    void rename();
    void write();
    void truncate();
    void allocate();
    void set_attributes();
    void set_xattr();
    void walk();
    void walk_directory(ObjectId directory);
    void adopt(const Place& at);
    void tell_content(Node& node);
    // While a walk goes on: what an operation touches is told of first, with what is above it.
    void know(ObjectId object);
    Place place_of(ObjectId object);
    void compare_object(const std::string& path, const Node& node, std::string& difference) const;
    void compare_directory(const std::string& path, const Node& node,
                           std::map<ObjectId, std::uint64_t>& inodes,
                           std::string& difference) const;

    std::mt19937_64 random_;
    Log log_;
    std::map<ObjectId, Node> nodes_;
    std::map<std::string, ObjectId> roots_;
    std::set<ObjectId> content_changed_;  // underneath
    std::uint64_t next_id_ = 2;
    bool silent_ = false;
    bool walking_ = false;
    bool by_hash_ = false;
    std::set<ObjectId> known_;   // in this walk
    std::set<ObjectId> walked_;  // directories
};

}  // namespace twinspool::test
