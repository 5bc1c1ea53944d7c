// SPDX-License-Identifier: Apache-2.0
#include "journal/delta/apply.h"

#include "journal/base/fault.h"
#include "journal/delta/apply_run.h"

namespace twinspool {

Result<ApplyCounters> apply(const Delta& delta, Tree& tree, ObjectIndex& index,
                            const ApplyOptions& options) {
    ApplyRun run{delta, tree, index, options};
    TS_FAULT(applier_begin);
    TS_TRY(run.place_entries());
    TS_FAULT(applier_placed);
    TS_TRY(run.remove_entries());
    TS_FAULT(applier_removed);
    TS_TRY(run.change_contents());
    TS_FAULT(applier_contents);
    TS_TRY(run.set_attributes());
    TS_TRY(run.empty_staging());
    TS_TRY(run.forget_the_gone());
    TS_TRY(run.set_directory_times());
    return run.counters();
}

}  // namespace twinspool
