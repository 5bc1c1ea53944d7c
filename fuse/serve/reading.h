// SPDX-License-Identifier: Apache-2.0
// Reading: the verbs that change nothing (but a lookup may tell the standbys of what it finds).
// Threads: any. No object's lock is taken, so nothing here waits for a change in progress.
#pragma once

#include "fuse/objects/volume.h"
#include "fuse/serve/answer.h"

namespace twinspool {

Answered look_up(Volume& volume, Turn& turn, const Request& request, ObjectId parent,
                 const char* name);
Answered get_attributes(Volume& volume, Turn& turn, const Request& request, ObjectId object);
// Ends as busy where it would have to wait for a disk and must not.
Answered read_data(Volume& volume, Turn& turn, const Request& request, ObjectId object,
                   std::size_t size, off_t offset);
Answered seek_data(Volume& volume, Turn& turn, const Request& request, ObjectId object,
                   off_t offset, int whence);
Answered read_link(Volume& volume, Turn& turn, const Request& request, ObjectId object);
Answered get_xattr(Volume& volume, Turn& turn, const Request& request, ObjectId object,
                   const char* name, std::size_t size);
Answered list_xattrs(Volume& volume, Turn& turn, const Request& request, ObjectId object,
                     std::size_t size);
Answered get_space(Volume& volume, Turn& turn, const Request& request, ObjectId object);

}  // namespace twinspool
