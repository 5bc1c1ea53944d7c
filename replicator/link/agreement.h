// SPDX-License-Identifier: Apache-2.0
// Agreement: where a primary and a standby go on, from what the standby says it has. The whole rule
// in one pure function:
//
//   nothing, nothing applied               → continue from record 1 if it is still there,
//                                            else start over
//   its tree is beyond all that is here    → refused: forked
//   no journal, but a tree                 → resync
//   a reign that is none of ours           → refused: forked
//   its end is behind what is left of that reign here, and it has applied, or knows to be
//   committed, more than that → refused: forked
//   what follows its end, or what is left of it here, is in our journal → continue, after cutting
//   back to there; it is not → resync
#pragma once

#include <string>
#include <vector>

#include "journal/base/result.h"
#include "journal/base/units.h"
#include "replicator/link/wire.h"

namespace twinspool {

struct OurHistory {
    const std::vector<Epoch>& epochs;
    Lsn oldest;  // first record that the journal still has
    Lsn appended;
};

struct Agreement {
    WelcomeKind kind{};
    Lsn end;  // kContinue: the last record that both have
};

// EBADMSG: refused; its text is a sentence for both sides.
Result<Agreement> agree_on(const Hello& hello, const OurHistory& ours);

}  // namespace twinspool
