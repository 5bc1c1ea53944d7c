// SPDX-License-Identifier: Apache-2.0
// Reconcile: after a kill, the operations that the dead process had noted but perhaps not logged.
// Each noted entry and object is looked at as it stands now, and that is logged: whether the
// operation took effect or not, the journal then says what is in the tree.
//
// Called once at start, before anything is served, on one thread. Killed half-way it is done again:
// the notes stay until what they name is durable.
#pragma once

#include "fuse/objects/volume.h"

namespace twinspool {

Status reconcile(Volume& volume);

}  // namespace twinspool
