// SPDX-License-Identifier: Apache-2.0
// AttributeCache: what the kernel keeps of objects' attributes. It keeps them without a time limit,
// and forgets them by itself when it has sent a change. But it takes those from an answer that was
// given before the change, and comes to it after, unless the object's *attribute version* has risen
// since it asked: and that it raises by itself only for some changes (fuse/README.md has the
// table). For all others we raise it, by a notification.
//
// Threads: any, none of the Overlay's locks held.
#pragma once

#include "journal/base/units.h"

namespace twinspool {

class AttributeCache {
   public:
    virtual ~AttributeCache() = default;
    // Before the change is answered, from its own request, which keeps the object in the kernel:
    // the kernel waits for an inode that it is taking apart.
    virtual void outdate(ObjectId object) = 0;
    // After the answer, from a thread for which no request waits. For a write-back, which may be
    // what the kernel waits for when it takes an inode apart.
    virtual void outdate_later(ObjectId object) = 0;
};

}  // namespace twinspool
