// SPDX-License-Identifier: Apache-2.0
// Verifying: the verifies of a daemon: those that `twinspool verify` asks for, and those that
// `verify_every` makes due. The last result is durable in the state directory; differences go to
// the log as errors.
//
// One that is due while the volume is not in sync is made up for once it is. A standby that is lost
// in the middle ends it. Threads: look() on the daemon's own; the rest any. Lock: `mutex_` protects
// everything that is not const.
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "tools/daemon/due.h"
#include "tools/daemon/reign.h"
#include "tools/ground/control.h"

namespace twinspool {

// "content", "missing" and so on; and where in the object, or how: may be empty.
std::string_view word_of(FindingKind kind);
std::string detail_of(const Difference& difference);

class Verifying {
   public:
    Verifying(Reign& reign, const VolumePaths& paths, Nanoseconds every, WallTime now);

    // Called every now and then.
    void look(WallTime now, VolumeState state);

    // Requests of the command: {path, repair, rate}; {number, from}; {number}.
    Json begin(const Json& request);
    [[nodiscard]] Json progress(const Json& request) const;
    Json cancel(const Json& request);

    // {every, next, running, last}.
    [[nodiscard]] Json status() const;

   private:
    void look_due(WallTime now, VolumeState state);
    void ended(const VerifyReport& report);

    Reign& reign_;
    const VolumePaths paths_;
    const Nanoseconds every_;

    mutable std::mutex mutex_;
    std::optional<Due> due_;
    bool owed_ = false;
    std::uint64_t scheduled_ = 0;  // number of the last one that was due
    std::uint64_t handled_ = 0;    // number of the last one whose end was seen
    Json last_;
};

}  // namespace twinspool
