// SPDX-License-Identifier: Apache-2.0
// Fault points: named places where a test build kills its own process, as a power switch would.
// TWINSPOOL_FAULT=name[:nth] chooses one (the nth passage, 1 by default). In builds without
// TWINSPOOL_FAULTS the macro is nothing. Every name stands once in the list below, in the order in
// which a record meets them; one name per call site.
#pragma once

#include <string_view>

#define TWINSPOOL_FAULT_POINTS(X)                                                                \
    X(mutation_noted)        /* the note is written, nothing acted yet */                        \
    X(mutation_acted)        /* the backing tree has changed, nothing logged yet */              \
    X(mutation_logged)       /* the record is in the frame, no reply yet */                      \
    X(mark_appended)         /* a snapshot's mark is in the frame, the gate still closed */      \
    X(writer_sealed)         /* the frame is encoded in the tail, not submitted */               \
    X(writer_submitted)      /* local write in flight, links have been told */                   \
    X(writer_durable)        /* the local write is complete, nobody has been answered */         \
    X(writer_new_segment)    /* a new segment's header is written, no frame in it */             \
    X(commit_advanced)       /* the watermark has moved, replies not sent */                     \
    X(alone_durable)         /* "alone since" is durable, commit does not count one copy yet */  \
    X(checkpoint_synced)     /* backing file systems are synced, checkpoint not recorded */      \
    X(recovery_replayed)     /* sealed frames of the tail are in the segment again */            \
    X(recovery_noted)        /* noted operations are logged again, mount not up */               \
    X(walker_told)           /* an object is told, its content not yet */                        \
    X(resync_answered)       /* a standby has said what differs, nothing is logged of it yet */  \
    X(walker_finished)       /* the walk is complete, "seeded" not logged */                     \
    X(sender_greeted)        /* the standby has been called, and has not answered */             \
    X(sender_welcomed)       /* the standby has been told where to go on, no frame is sent */    \
    X(receiver_helloed)      /* the primary has been told what is here, nothing is agreed */     \
    X(receiver_cut)          /* a segment behind the cut is gone, not all of them */             \
    X(receiver_started_over) /* the store is empty and begun anew, no frame in it */             \
    X(receiver_resynced)     /* the position is the new one, the old segments are still there */ \
    X(fence_succeeded)       /* the peer is fenced, "alone since" is not durable */              \
    X(receiver_written)      /* the frame is in the standby's segment, ack not sent */           \
    X(receiver_acked)        /* the ack is sent */                                               \
    X(applier_begin)         /* the delta is worked out, the tree is untouched */                \
    X(applier_placed)        /* new entries placed, removals not done */                         \
    X(applier_removed)       /* removals done, contents not */                                   \
    X(applier_contents)      /* contents done, attributes and times not */                       \
    X(applier_synced)        /* the tree is synced, the catalogue not committed */               \
    X(applier_committed)     /* the catalogue is committed, applied position not announced */    \
    X(resync_begun)          /* the catalogue says that a resync has begun, nothing else does */ \
    X(history_kept)          /* before-images are written, not synced, the tree is untouched */  \
    X(history_synced)        /* before-images are durable, the tree is untouched */              \
    X(history_purged)        /* a part of what nobody needs is gone, not all */                  \
    X(history_gave_up)       /* snapshots are said to be broken, their history is still there */

namespace twinspool {

enum class FaultPoint : unsigned char {
#define X(name) name,
    TWINSPOOL_FAULT_POINTS(X)
#undef X
};

[[nodiscard]] std::string_view fault_name(FaultPoint point);
[[nodiscard]] int fault_count();

// Kills the process (SIGKILL) if the environment chose this point and this is the nth passage.
void pass_fault_point(FaultPoint point);

}  // namespace twinspool

#ifdef TWINSPOOL_FAULTS
#define TS_FAULT(name) ::twinspool::pass_fault_point(::twinspool::FaultPoint::name)
#else
#define TS_FAULT(name) static_cast<void>(0)
#endif
