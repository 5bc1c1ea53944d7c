// SPDX-License-Identifier: Apache-2.0
// Views: which snapshots of a volume are mounted. The process of each view keeps a file below
// run/VOLUME/views locked as long as it lives, which says where its mount is; the kernel lets go of
// the lock when the process dies. For commands and views; each record is one thread's.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "journal/base/fd.h"
#include "journal/base/units.h"
#include "tools/ground/complaint.h"
#include "tools/ground/paths.h"

namespace twinspool {

struct ViewPlace {
    dev_t device = 0;    // of the mount; 0: it is just being made
    std::string source;  // VOLUME@NAME
    std::string path;    // where it was mounted
};

// The record of this process; it goes with it.
class ViewRecord {
   public:
    static Outcome<ViewRecord> begin(const VolumePaths& paths);
    ViewRecord(ViewRecord&& other) noexcept = default;
    ViewRecord& operator=(ViewRecord&&) = delete;
    ~ViewRecord();
    Verdict tell(const ViewPlace& place);

   private:
    ViewRecord(std::string path, Fd file) : path_(std::move(path)), file_(std::move(file)) {}
    std::string path_;
    Fd file_;
};

struct LivingView {
    pid_t pid = 0;
    Fd process;  // a pidfd
    ViewPlace place;
};

// Records of dead ones are removed on the way.
Outcome<std::vector<LivingView>> living_views(const VolumePaths& paths);

// For what would take away what they show.
Verdict check_no_views(const VolumePaths& paths);

// Until nothing is left of its process; false on time-out.
bool wait_for_end(const LivingView& view, Nanoseconds timeout);

}  // namespace twinspool
