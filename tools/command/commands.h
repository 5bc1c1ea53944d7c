// SPDX-License-Identifier: Apache-2.0
// The commands: one function for each, called by the command line with what was written there. Each
// prints what it has to say and returns the exit code; a Complaint is printed by the caller.
// Hidden ones run the standby process and views; the daemons are in daemon.h and standby_daemon.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "journal/base/units.h"
#include "tools/daemon/daemon.h"
#include "tools/daemon/standby_daemon.h"
#include "tools/ground/complaint.h"
#include "tools/ground/terminal.h"

namespace twinspool {

struct CreateArguments {
    std::string volume;
    std::vector<std::string> directories;
    std::vector<std::string> standbys;  // PATH or HOST[:PORT]:/PATH
    std::string mode = "fsync";
};
Outcome<ExitCode> run_create(const CreateArguments& arguments);

Outcome<ExitCode> run_remove(const std::string& volume);

struct UpArguments {
    std::string volume;
    bool foreground = false;
    bool force = false;
};
Outcome<ExitCode> run_up(const UpArguments& arguments);

Outcome<ExitCode> run_down(const std::string& volume);

struct StatusArguments {
    std::optional<std::string> volume;
    bool json = false;
    bool watch = false;
};
Outcome<ExitCode> run_status(const StatusArguments& arguments);

struct WaitArguments {
    std::string volume;
    std::string goal;
    std::string timeout = "60";  // seconds, or with a unit
};
Outcome<ExitCode> run_wait(const WaitArguments& arguments);

struct StandbyArguments {
    std::string volume;
    std::string listen;               // ADDR[:PORT]; empty: any address, the port of its entry
    std::optional<std::string> host;  // which [[standby]] this machine is
    bool foreground = false;
    bool once = false;
    bool tail = false;
};
Outcome<ExitCode> run_standby(const StandbyArguments& arguments);

struct MountArguments {
    std::string point;  // VOLUME@NAME
    std::string directory;
};
Outcome<ExitCode> run_mount(const MountArguments& arguments);

Outcome<ExitCode> run_umount(const std::string& directory);

struct SnapshotArguments {
    std::string point;
    bool json = false;
    bool incomplete = false;
};
Outcome<ExitCode> run_snapshot(const SnapshotArguments& arguments);
// Prunes afterwards; for the daemon.
Outcome<ExitCode> run_scheduled_snapshot(const SnapshotArguments& arguments);

struct ListArguments {
    std::string volume;
    bool json = false;
};
Outcome<ExitCode> run_list(const ListArguments& arguments);

struct DestroyArguments {
    std::string point;
    bool dry_run = false;
};
Outcome<ExitCode> run_destroy(const DestroyArguments& arguments);

struct PruneArguments {
    std::string volume;
    bool dry_run = false;
};
Outcome<ExitCode> run_prune(const PruneArguments& arguments);

struct RestoreArguments {
    std::string point;
    std::optional<std::string> destination;
    bool in_place = false;
    bool dry_run = false;
};
Outcome<ExitCode> run_restore(const RestoreArguments& arguments);

struct DiffArguments {
    std::string before;
    std::optional<std::string> after;
    bool json = false;
};
Outcome<ExitCode> run_diff(const DiffArguments& arguments);

struct LogArguments {
    std::string point;
    bool json = false;
};
Outcome<ExitCode> run_log(const LogArguments& arguments);

struct VerifyArguments {
    std::string volume;
    std::string path;
    std::string rate;  // bytes a second, as sizes are written; empty: as configured
    bool repair = false;
    bool json = false;
};
Outcome<ExitCode> run_verify(const VerifyArguments& arguments);

Outcome<ExitCode> run_export(const std::string& point);

Outcome<ExitCode> run_journal_dump(const std::vector<std::string>& files);

Outcome<ExitCode> run_fault_points();

struct ViewArguments {
    std::string point;
    std::string directory;  // absolute
    int ready_fd = -1;
};
Outcome<ExitCode> run_view(const ViewArguments& arguments);

struct StandbyProcessArguments {
    std::string volume;
    std::size_t index = 0;  // place in the configuration
};
Outcome<ExitCode> run_standby_process(const StandbyProcessArguments& arguments);

}  // namespace twinspool
