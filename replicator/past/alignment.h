// SPDX-License-Identifier: Apache-2.0
// Alignment: makes what stands at a place the same as an object of an image with everything below
// it, or only says what would have to change. What is the same already is not touched, so that
// doing it again after an end in the middle does the rest.
//
// What is not in the image goes before anything comes. Where somebody may be looking
// (Readers::kSome) a file is made whole under a name of its own, read back, and renamed over the
// old one; that name follows from the file's, so what a killed run leaves is found by the next. An
// inode with several names is never changed, only kept or replaced: its other names may be
// something else in the image.
// Memory: names of the directories on the path, and all objects with several names.
// Errors name the path. EINTR comes from `on_step` only, as if the process had been killed there;
// ECANCELED: `interrupted` said so. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "journal/base/result.h"
#include "journal/delta/image.h"
#include "replicator/past/target_tree.h"
#include "replicator/store/content.h"

namespace twinspool {

struct RestoreChange {
    enum class Kind : std::uint8_t { kMade, kRemoved, kChanged };
    Kind kind{};
    std::string path;
    std::uint64_t bytes = 0;  // of content that is written anew
    friend bool operator==(const RestoreChange&, const RestoreChange&) = default;
};

struct RestoreCounters {
    std::uint64_t objects = 0;  // that were looked at
    std::uint64_t bytes = 0;    // that were written
    std::uint64_t made = 0;
    std::uint64_t removed = 0;
    std::uint64_t changed = 0;
    [[nodiscard]] std::uint64_t changes() const { return made + removed + changed; }
};

enum class Readers : std::uint8_t { kNone, kSome };
enum class Acting : std::uint8_t { kAct, kOnlySay };

struct AlignmentOptions {
    Acting acting = Acting::kAct;
    Readers readers = Readers::kSome;
    std::function<void(const RestoreChange&)> on_change;  // before it is done
    std::function<void(const RestoreCounters&, const std::string& path)> on_progress;
    std::function<bool()> interrupted;
    std::function<Status()> on_step;  // before each system call that changes the disk
};

class Alignment {
   public:
    Alignment(Image& image, AlignmentOptions options);

    // The directory that is open at `fd`, called `path`: its attributes, and all that is in it.
    // `fd` is borrowed until the Alignment's end.
    Status root(int fd, ObjectId object, const std::string& path);
    // One entry of the open directory called `path` (-1: there is none yet, and nothing is done).
    // What else stands there is not looked at; `siblings` are the names that others have in the
    // image.
    Status entry(int fd, const std::string& path, const std::vector<ImageEntry>& siblings,
                 const ImageEntry& entry);

    [[nodiscard]] const RestoreCounters& counters() const { return counters_; }
    // What did not become as it should although no call failed: paths, with what is wrong.
    [[nodiscard]] const std::vector<std::string>& differences() const { return differences_; }
    [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }
    [[nodiscard]] const std::string& path() const { return path_; }

   private:
    using Inode = std::pair<dev_t, ino_t>;
    struct Folder {
        int fd = -1;  // -1: would have to be made
        const std::vector<ImageEntry>& entries;
    };
    // Where the first name of an object with several was put.
    struct Place {
        int base = -1;
        std::string below;  // from there
        Inode inode;        // {0, 0}: would be made
    };
    enum class Likeness : std::uint8_t { kSame, kAttributes, kDifferent };
    class Step;

    Status fill(int fd, ObjectId object);
    Status check_filled(const Folder& folder);
    Status put(const Folder& folder, const ImageEntry& entry);
    Status put_directory(const Folder& folder, const std::string& name, const Wanted& wanted,
                         std::optional<Occupant> occupant);
    Status put_other(const Folder& folder, const std::string& name, const Wanted& wanted,
                     std::optional<Occupant> occupant);
    Status put_link(const Folder& folder, const std::string& name, const Wanted& wanted,
                    std::optional<Occupant> occupant);
    Status replace(const Folder& folder, const std::string& name, const Wanted& wanted,
                   const Occupant* occupant);
    Result<Fd> make(const Folder& folder, const std::string& name, const Wanted& wanted);
    Status make_content(int fd, const Wanted& wanted);
    Result<Fd> open_place(const Place& place);
    Status remove(int fd, const std::string& name);
    Status remove_content(int fd, const std::string& name);
    Status finish_attributes(int fd, const Wanted& wanted, WithMtime with_mtime);

    Result<Likeness> compare(const Wanted& wanted, const Occupant& occupant);
    Result<bool> same_content(const Wanted& wanted, const Occupant& occupant);
    [[nodiscard]] std::uint64_t names_left(const Occupant& occupant) const;
    [[nodiscard]] bool may_stand_for(const Wanted& wanted, const Occupant& occupant) const;
    void remember(const Wanted& wanted, const Inode& inode);
    void release(const Occupant& occupant);

    [[nodiscard]] std::string aside(const Folder& folder, const std::string& name) const;
    [[nodiscard]] bool acts() const { return options_.acting == Acting::kAct; }
    [[nodiscard]] bool is_read() const { return options_.readers == Readers::kSome; }
    Status step();
    Status go_on();
    ChunkDone chunks(std::uint64_t& counter);
    void announce(RestoreChange::Kind kind, std::uint64_t bytes);
    Status named(const Status& status) const;

    Image& image_;
    AlignmentOptions options_;
    int base_ = -1;  // where path_ begins to be walked
    std::string path_;
    std::size_t base_length_ = 0;
    std::size_t depth_ = 0;
    RestoreCounters counters_;
    std::vector<std::string> differences_;
    std::vector<std::string> warnings_;
    std::map<ObjectId, Place> places_;
    std::map<Inode, ObjectId> kept_;           // inodes with several names, and what each now is
    std::map<Inode, std::uint64_t> released_;  // names that would be gone (kOnlySay)
};

}  // namespace twinspool
