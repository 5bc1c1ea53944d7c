// SPDX-License-Identifier: Apache-2.0
#include "tools/command/cli.h"

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <functional>

#include "journal/base/fault.h"
#include "tools/command/commands.h"
#include "tools/ground/terminal.h"
#include "tools/machine/launch.h"

namespace twinspool {
namespace {

constexpr const char* kVolumeHelp = "Name of the volume";
constexpr const char* kPointHelp = "A snapshot: its name, latest, or lsn:N";

// Everything that can be written on the command line, and the command that was chosen.
struct CommandLine {
    CreateArguments create;
    std::string volume;
    UpArguments up;
    StatusArguments status;
    std::string status_volume;
    WaitArguments wait;
    StandbyArguments standby;
    MountArguments mount;
    std::string directory;
    SnapshotArguments snapshot;
    bool scheduled = false;  // the snapshot: by the daemon
    ListArguments list;
    DestroyArguments destroy;
    PruneArguments prune;
    RestoreArguments restore;
    DiffArguments diff;
    LogArguments log;
    VerifyArguments verify;
    std::string second;  // an argument that may be left out
    std::vector<std::string> files;
    StandbyDaemonArguments standby_daemon;
    StandbyProcessArguments standby_process;
    DaemonArguments daemon;
    ViewArguments view;
    std::function<Outcome<ExitCode>()> chosen;
};

CLI::App* command(CLI::App& app, CommandLine& line, const char* name, const char* help,
                  const char* example, std::function<Outcome<ExitCode>()> run) {
    CLI::App* sub = app.add_subcommand(name, help);
    if (*example != '\0') sub->footer(std::string{"Example:\n  "} + example);
    sub->callback([&line, run = std::move(run)] { line.chosen = run; });
    return sub;
}

void add_lifecycle(CLI::App& app, CommandLine& line) {
    CLI::App* create =
        command(app, line, "create", "Makes a volume: writes its configuration and its secret",
                "twinspool create mail --dir /var/spool/mail --standby /mnt/standby/mail\n"
                "  twinspool create mail --dir /var/spool/mail --standby mx2:/srv/standby/mail",
                [&line] { return run_create(line.create); });
    create->add_option("VOLUME", line.create.volume, kVolumeHelp)->required();
    create
        ->add_option("--dir", line.create.directories, "A directory of the volume; may be repeated")
        ->required()
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->type_name("PATH");
    create
        ->add_option("--standby", line.create.standbys,
                     "Where the copy is: a directory on another disk, or on another host as "
                     "HOST[:PORT]:/PATH ([V6][:PORT]:/PATH); may be repeated")
        ->required()
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->type_name("TARGET");
    create
        ->add_option("--mode", line.create.mode,
                     "When calls wait for both copies: fsync, every or async")
        ->capture_default_str()
        ->type_name("MODE");

    command(app, line, "remove", "Forgets a volume that is down; both trees are left as they are",
            "twinspool remove mail", [&line] { return run_remove(line.volume); })
        ->add_option("VOLUME", line.volume, kVolumeHelp)
        ->required();

    CLI::App* up = command(app, line, "up", "Mounts the overlay over the volume's directories",
                           "twinspool up mail", [&line] { return run_up(line.up); });
    up->add_option("VOLUME", line.up.volume, kVolumeHelp)->required();
    up->add_flag("--foreground", line.up.foreground, "Stay until the volume goes down");
    up->add_flag("--force", line.up.force,
                 "Even if programs use the directories or cannot see the mount");

    command(app, line, "down", "Flushes, waits for the standby, unmounts", "twinspool down mail",
            [&line] { return run_down(line.volume); })
        ->add_option("VOLUME", line.volume, kVolumeHelp)
        ->required();
}

void add_observation(CLI::App& app, CommandLine& line) {
    CLI::App* status = command(app, line, "status",
                               "Shows how volumes are; exit code 0 if all are in sync, 3 if not",
                               "twinspool status mail --json", [&line] {
                                   if (!line.status_volume.empty())
                                       line.status.volume = line.status_volume;
                                   return run_status(line.status);
                               });
    status->add_option("VOLUME", line.status_volume, "Name of the volume; all if left out");
    status->add_flag("--json", line.status.json, "For programs");
    status->add_flag("--watch", line.status.watch, "Shows it again every second");

    CLI::App* wait = command(
        app, line, "wait", "Waits until everything written before now is safe on the standby",
        "twinspool wait mail --for applied --timeout 300", [&line] { return run_wait(line.wait); });
    wait->add_option("VOLUME", line.wait.volume, kVolumeHelp)->required();
    wait->add_option("--for", line.wait.goal,
                     "durable: in both journals; applied: in the replica tree; in-sync: the state")
        ->required()
        ->check(CLI::IsMember({"durable", "applied", "in-sync"}));
    wait->add_option("--timeout", line.wait.timeout, "Seconds; exit code 3 when they are over")
        ->capture_default_str();
}

void add_views(CLI::App& app, CommandLine& line) {
    CLI::App* mount =
        command(app, line, "mount", "Shows a snapshot, read-only, below a directory",
                "twinspool mount mail@noon /mnt/noon", [&line] { return run_mount(line.mount); });
    mount->add_option("VOLUME@NAME", line.mount.point, kPointHelp)->required();
    mount->add_option("DIR", line.mount.directory, "An empty directory")->required();

    command(app, line, "umount", "Takes away what `twinspool mount` has mounted",
            "twinspool umount /mnt/noon", [&line] { return run_umount(line.directory); })
        ->add_option("DIR", line.directory, "Where it is mounted")
        ->required();
}

void add_snapshots(CLI::App& app, CommandLine& line) {
    CLI::App* snapshot =
        command(app, line, "snapshot", "Names the volume as it is now, without stopping anything",
                "twinspool snapshot mail@before-upgrade", [&line] {
                    return line.scheduled ? run_scheduled_snapshot(line.snapshot)
                                          : run_snapshot(line.snapshot);
                });
    snapshot->add_option("VOLUME@NAME", line.snapshot.point, "What it is called from now on")
        ->required();
    snapshot->add_flag("--json", line.snapshot.json, "For programs");
    snapshot->add_flag("--scheduled", line.scheduled)->group("");
    snapshot->add_flag("--incomplete", line.snapshot.incomplete,
                       "Also while the standby has not everything yet; it is listed as incomplete");

    CLI::App* list = command(app, line, "list", "Lists the snapshots of a volume, oldest first",
                             "twinspool list mail --json", [&line] { return run_list(line.list); });
    list->add_option("VOLUME", line.list.volume, kVolumeHelp)->required();
    list->add_flag("--json", line.list.json, "For programs");

    CLI::App* destroy = command(app, line, "destroy", "Forgets a snapshot and frees its space",
                                "twinspool destroy mail@before-upgrade",
                                [&line] { return run_destroy(line.destroy); });
    destroy->add_option("VOLUME@NAME", line.destroy.point, kPointHelp)->required();
    destroy->add_flag("--dry-run", line.destroy.dry_run, "Only says what would be done");

    CLI::App* prune = command(
        app, line, "prune", "Destroys those of the schedule's snapshots that `keep` does not keep",
        "twinspool prune mail --dry-run", [&line] { return run_prune(line.prune); });
    prune->add_option("VOLUME", line.prune.volume, kVolumeHelp)->required();
    prune->add_flag("--dry-run", line.prune.dry_run, "Only says what would be done");
}

std::optional<std::string> if_given(const std::string& text) {
    return text.empty() ? std::nullopt : std::optional{text};
}

void add_restore(CLI::App& app, CommandLine& line) {
    CLI::App* restore = command(
        app, line, "restore",
        "Brings back a snapshot, or one object of it with all below it: to a new place, where "
        "nothing is overwritten, or in place. In place, everything there ends as in the snapshot, "
        "also what was not there then: it goes. Stop the services that use that part; the rest of "
        "the volume keeps running. A snapshot before-restore-... is taken first",
        "twinspool restore mail@monday:/var/spool/mail/bob /var/spool/mail/bob.monday\n"
        "  twinspool restore mail@monday:/var/spool/mail/bob --in-place --dry-run",
        [&line] {
            line.restore.destination = if_given(line.second);
            return run_restore(line.restore);
        });
    restore->add_option("VOLUME@NAME[:/PATH]", line.restore.point, "What is to be brought back")
        ->required();
    restore->add_option("DEST", line.second,
                        "What it becomes; or a directory: it becomes an entry there. A whole "
                        "snapshot: a new or empty directory");
    restore->add_flag("--in-place", line.restore.in_place, "Over the running volume");
    restore->add_flag("--dry-run", line.restore.dry_run,
                      "Only lists what would be made (+), removed (-) and changed (M)");

    command(app, line, "export", "Writes a snapshot, or a part of it, as a tar to standard output",
            "twinspool export mail@monday:/var/spool/mail/bob | tar -x --xattrs --acls -C /tmp",
            [&line] { return run_export(line.restore.point); })
        ->add_option("VOLUME@NAME[:/PATH]", line.restore.point, "What is to be written")
        ->required();
}

void add_comparison(CLI::App& app, CommandLine& line) {
    CLI::App* diff = command(
        app, line, "diff",
        "Lists what was created (+), deleted (-), renamed (R) and changed (M) between two "
        "snapshots, or since one; exit code 0 whether or not anything was. The volume as it is now "
        "is looked at through a snapshot diff-temporary-..., which goes at the end",
        "twinspool diff mail@monday mail@tuesday", [&line] {
            line.diff.after = if_given(line.second);
            return run_diff(line.diff);
        });
    diff->add_option("VOLUME@A", line.diff.before, "The earlier one")->required();
    diff->add_option("VOLUME@B", line.second, "The later one; as it is now if left out");
    diff->add_flag("--json", line.diff.json, "For programs");

    CLI::App* log =
        command(app, line, "log", "Lists the snapshots in which a path is not as in the one before",
                "twinspool log mail:/var/spool/mail/bob", [&line] { return run_log(line.log); });
    log->add_option("VOLUME:/PATH", line.log.point, "As programs see it")->required();
    log->add_flag("--json", line.log.json, "For programs");
}

void add_verify(CLI::App& app, CommandLine& line) {
    CLI::App* verify = command(
        app, line, "verify",
        "Compares both sides of a volume by hash, with all attributes, while everything goes on. "
        "Exit code 0 if nothing differs, or all that differed is repaired; 3 if something differs, "
        "or it cannot be done now; 1 if it did not come to its end",
        "twinspool verify mail --repair --rate 50MiB", [&line] { return run_verify(line.verify); });
    verify->add_option("VOLUME", line.verify.volume, kVolumeHelp)->required();
    verify->add_flag("--repair", line.verify.repair,
                     "Brings the standby to what the primary has, and looks once more");
    verify->add_option("--path", line.verify.path, "Only this and what is below it")
        ->type_name("PATH");
    verify->add_option("--rate", line.verify.rate, "Read so much a second at most, like 50MiB")
        ->type_name("SIZE");
    verify->add_flag("--json", line.verify.json, "For programs");
}

void add_tools(CLI::App& app, CommandLine& line) {
    CLI::App* standby = command(
        app, line, "standby",
        "Makes this host a standby of a volume: listens for its primary, until `twinspool down`. "
        "Or, with --once, works on a standby of this machine while the volume is down",
        "twinspool standby mail\n  twinspool standby mail --once --tail", [&line] {
            line.standby.host = if_given(line.second);
            return run_standby(line.standby);
        });
    standby->add_option("VOLUME", line.standby.volume, kVolumeHelp)->required();
    standby
        ->add_option("--listen", line.standby.listen,
                     "Where to listen, instead of at any address and the port of its [[standby]]")
        ->type_name("ADDR[:PORT]");
    standby
        ->add_option("--host", line.second,
                     "Which [[standby]] of several this machine is, by its `host`")
        ->type_name("NAME");
    standby->add_flag("--foreground", line.standby.foreground, "Stay until it goes down");
    CLI::Option* once = standby->add_flag("--once", line.standby.once,
                                          "Recover it, apply what is committed, and end");
    standby
        ->add_flag("--tail", line.standby.tail,
                   "Apply also what is durable there beyond that, as a promotion would")
        ->needs(once);
    for (const char* other : {"--listen", "--host", "--foreground"})
        once->excludes(standby->get_option(other));

    CLI::App* journal = app.add_subcommand("journal", "Looks into the journal");
    journal->require_subcommand(1);
    command(*journal, line, "dump", "Prints the records of segments",
            "twinspool journal dump /var/lib/twinspool/mail/journal/*.seg",
            [&line] { return run_journal_dump(line.files); })
        ->add_option("FILE", line.files, "Segment files")
        ->required();
}

void add_hidden(CLI::App& app, CommandLine& line) {
    CLI::App* daemon = command(app, line, kDaemonCommand, "The daemon of a volume; started by up",
                               "", [&line] { return run_daemon(line.daemon); });
    daemon->group("");
    daemon->add_option("VOLUME", line.daemon.volume)->required();
    daemon->add_option("--ready-fd", line.daemon.ready_fd)->required();
    CLI::App* view = command(app, line, kViewCommand, "Serves what is mounted; started by mount",
                             "", [&line] { return run_view(line.view); });
    view->group("");
    view->add_option("VOLUME@NAME", line.view.point)->required();
    view->add_option("DIR", line.view.directory)->required();
    view->add_option("--ready-fd", line.view.ready_fd)->required();
    CLI::App* host = command(app, line, kStandbyDaemonCommand, "The daemon of a standby", "",
                             [&line] { return run_standby_daemon(line.standby_daemon); });
    host->group("");
    host->add_option("VOLUME", line.standby_daemon.volume)->required();
    host->add_option("--listen", line.standby_daemon.listen)->required();
    host->add_option("--ready-fd", line.standby_daemon.ready_fd)->required();
    CLI::App* standby =
        command(app, line, kStandbyProcessCommand, "The standby; started by the daemon", "",
                [&line] { return run_standby_process(line.standby_process); });
    standby->group("");
    standby->add_option("VOLUME", line.standby_process.volume)->required();
    standby->add_option("INDEX", line.standby_process.index);
}

int finish(const Outcome<ExitCode>& outcome) {
    if (outcome.ok()) return static_cast<int>(outcome.value());
    print_error(outcome.error().sentence);
    return static_cast<int>(outcome.error().code);
}

// CLI11 complains with exceptions; they end here.
int parse_and_run(CLI::App& app, CommandLine& line, int argc, char** argv) {
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp& help) {
        return app.exit(help);
    } catch (const CLI::CallForAllHelp& help) {
        return app.exit(help);
    } catch (const CLI::CallForVersion& version) {
        return app.exit(version);
    } catch (const CLI::ParseError& error) {
        print_error(fmt::format("{}; `twinspool --help` and `twinspool COMMAND --help` say more",
                                error.what()));
        return static_cast<int>(ExitCode::kUsage);
    }
    return finish(line.chosen());
}

// A descriptor that is opened for something else must not become standard output.
void fill_standard_descriptors() {
    for (int fd = ::open("/dev/null", O_RDWR); fd >= 0; fd = ::open("/dev/null", O_RDWR))
        if (fd > STDERR_FILENO) {
            ::close(fd);
            return;
        }
}

}  // namespace

int run_command_line(int argc, char** argv) {
    fill_standard_descriptors();
    CLI::App app{
        "Keeps a live second copy of directories, in order, as mail and databases write them",
        "twinspool"};
    CommandLine line;
    app.set_version_flag("--version", std::string{"twinspool "} + TWINSPOOL_VERSION);
    app.footer(
        "Example:\n"
        "  twinspool create mail --dir /var/spool/mail --standby /mnt/standby/mail\n"
        "  twinspool up mail\n"
        "  twinspool status mail\n"
        "Exit codes: 0 done, 1 failed, 2 usage or bad input, 3 degraded or not current.");
#ifdef TWINSPOOL_FAULTS
    app.add_flag_callback(
        "--fault-points", [&line] { line.chosen = run_fault_points; },
        "Prints the names for TWINSPOOL_FAULT=name[:nth]");
    app.require_subcommand(0, 1);
    line.chosen = [] {
        return Outcome<ExitCode>{bad_input("give a command; `twinspool --help` lists them")};
    };
#else
    app.require_subcommand(1);
#endif
    add_lifecycle(app, line);
    add_observation(app, line);
    add_views(app, line);
    add_snapshots(app, line);
    add_restore(app, line);
    add_comparison(app, line);
    add_verify(app, line);
    add_tools(app, line);
    add_hidden(app, line);
    return parse_and_run(app, line, argc, argv);
}

Outcome<ExitCode> run_fault_points() {
    for (int i = 0; i < fault_count(); ++i)
        print(fmt::format("{}\n", fault_name(static_cast<FaultPoint>(i))));
    return ExitCode::kDone;
}

}  // namespace twinspool
