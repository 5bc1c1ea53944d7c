// SPDX-License-Identifier: Apache-2.0
// Change: the frame around each change of the tree: the gate, the objects' locks, the note for the
// next start, and the end of all three. Act, then log, happens between noted() and logged(). At the
// end, if it acted, the kernel is told that what it keeps of the objects' attributes is old, before
// the change is answered. Lives on the stack of one thread; used by fuse/serve/mutation only.
#pragma once

#include <string_view>

#include "fuse/objects/volume.h"
#include "fuse/tell/finder.h"

namespace twinspool {

class Change {
   public:
    Change(Volume& volume, Turn& turn)
        : volume_(volume), turn_(turn), note_(volume.journal.note_for_this_thread()) {}
    ~Change();
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

    // The gate, then the locks. EROFS if the journal cannot be written any more.
    Ending begin(std::initializer_list<Inode*> objects);

    // What the next start must look at if this process dies from here on.
    Change& note(const Inode& parent, std::string_view name, ObjectId fresh = kNoObject);
    Change& note(const Inode& object);
    // Of the noted object. Its name goes where an entry's would, which is not counted.
    Change& note_xattr(std::string_view name);
    Change& note_range(std::uint64_t offset, std::uint64_t length);

    // Who tells the kernel that the locked objects' attributes have changed.
    enum class Outdates : std::uint8_t { kWeNow, kWeLater, kKernelItself };
    Change& outdates(Outdates who) {
        outdates_ = who;
        return *this;
    }

    void noted();   // before acting
    void acted();   // after it, or not at all if acting failed
    void logged();  // the records are appended

   private:
    static NotedObject noted_object(const Inode& inode);
    Volume& volume_;
    Turn& turn_;
    Note& note_;
    ObjectLocks locks_;
    Outdates outdates_ = Outdates::kWeNow;
    bool inside_ = false;
    bool acted_ = false;
};

}  // namespace twinspool
