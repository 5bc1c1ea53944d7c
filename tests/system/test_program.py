# SPDX-License-Identifier: Apache-2.0
"""The command line: what each command does, its exit codes, and that bad input changes nothing."""
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import machine
import pytest
import volume as volumes
from volume import run

HEADER = 4096  # of a segment
COMMANDS = ["create", "remove", "up", "down", "status", "wait", "standby", "journal dump"] + [
    "snapshot",
    "list",
    "destroy",
]


def everything(directory):
    """Names, sizes and contents below a directory: what "changes nothing" is measured by."""
    return {
        path: path.read_bytes()
        if path.is_file() and path.stat().st_size < 1 << 20
        else path.lstat().st_mode
        for path in sorted(Path(directory).rglob("*"))
    }


def listed(volume):
    return [part for directory in volume.directories for part in ("--dir", directory)]


# What stands alone.


def test_version_is_printed(program):
    assert re.match(r"twinspool \d+\.\d+", run("--version").out)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(program, command):
    text = run(*command.split(), "--help").out
    assert "xample" in text and f"twinspool {command}" in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["up"],
        ["create", "vol"],
        ["wait", "vol", "--for", "tea"],
        ["status", "--frobnicate"],
        ["wait", "vol", "--timeout", "soon"],
    ],
)
def test_usage_errors_are_2(program, fresh, arguments):
    result = run(*arguments, root=fresh(), check=2)
    assert result.err.strip()


@pytest.mark.parametrize("command", ["up", "down", "status", "remove", "wait", "standby"])
def test_a_volume_that_does_not_exist_is_named(program, fresh, command):
    extra = {"wait": ["--for", "applied"], "standby": ["--once"]}.get(command, [])
    assert "nowhere" in run(command, "nowhere", *extra, root=fresh(), check=2).err


# The life of a volume.


def test_create_writes_the_configuration_and_touches_no_data(make_volume):
    volume = make_volume()
    (volume.dir / "mail").write_text("old")
    volume.create()
    assert volume.config_file.is_file()
    assert [path.name for path in volume.dir.iterdir()] == ["mail"]
    assert not machine.is_mounted(volume.dir)


def test_everything_is_where_twinspool_root_says(make_volume):
    volume = make_volume().start()
    assert volume.config_file.is_file()
    assert list((volume.state_dir / "journal").glob("*.seg"))
    assert list((volume.standby / "journal").glob("*.seg"))
    assert volume.run_dir.is_dir() and volume.backing().is_dir()
    assert (volume.run_dir.stat().st_mode & 0o077) == 0, "the backing trees are for root only"
    volume.wait("applied")
    assert volume.replica().is_dir()
    for place in ("etc", "var/lib", "run"):
        assert not Path("/", place, "twinspool", volume.name).exists()


def test_status_json_has_every_field(volume):
    (volume.dir / "file").write_text("x")
    volume.wait("applied")
    status = volume.status()
    assert (
        status["volume"] == volume.name
        and status["role"] == "primary"
        and status["state"] == "in-sync"
    )
    assert status["mode"] == "fsync" and status["epoch"] >= 1 and machine.alive(status["pid"])
    assert status["transport"] == volumes.TRANSPORT
    assert [directory["path"] for directory in status["directories"]] == [str(volume.dir)]
    journal, standby, seed = status["journal"], status["standbys"][0], status["seed"]
    assert (
        journal["appended_lsn"] >= journal["durable_lsn"] >= journal["checkpoint_lsn"]
        and journal["bytes"] > 0
        and journal["frames"] > 0
    )
    assert (
        standby["target"] == str(volume.standby)
        and standby["connected"]
        and machine.alive(standby["pid"])
    )
    assert standby["durable_lsn"] >= standby["applied_lsn"] > 0
    assert {
        "lag_records",
        "lag_bytes",
        "lag_seconds",
        "sent_records",
        "sent_bytes",
    } <= standby.keys()
    assert (
        seed["objects_done"] == seed["objects_total"] and seed["bytes_done"] == seed["bytes_total"]
    )


def test_status_is_0_only_when_in_sync(make_volume):
    volume = make_volume()
    volume.create()
    assert json.loads(volume.run("status", volume.name, "--json", check=3).out)["state"] == "down"
    volume.up()
    volume.wait("in-sync")
    volume.run("status", volume.name, check=0)
    volume.kill_primary()
    assert json.loads(volume.run("status", volume.name, "--json", check=3).out)["state"] in (
        "down",
        "failed",
    )


def test_status_without_a_volume_lists_all(make_volume):
    volume = make_volume().start()
    other = make_volume(base=volume.base, directories=("other",), standby="standby2", name="other")
    other.create()
    states = {
        one["volume"]: one["state"]
        for one in json.loads(volume.run("status", "--json", check=3).out)
    }
    assert states == {"vol": "in-sync", "other": "down"}


def test_status_is_read_at_a_glance(volume):
    (volume.dir / "file").write_text("x")
    volume.wait("applied")
    line = volume.run("status", volume.name).out.splitlines()[0]
    assert re.search(
        rf"{volume.name}\s+primary in-sync .*connected, queued/sent \d+/\d+", line
    ), line


def test_up_lets_go_of_what_it_was_given(make_volume):
    """A script that reads the output of `up`, or ends with it, must not wait for the daemon."""
    volume = make_volume()
    volume.create()
    done = subprocess.run(
        [volumes.PROGRAM, "up", volume.name],
        env=dict(os.environ, TWINSPOOL_ROOT=str(volume.root)),
        cwd=volume.base,
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    for pid in volume.processes():
        assert os.getsid(pid) != os.getsid(0), "it would get the terminal's signals"
        assert os.readlink(f"/proc/{pid}/cwd") == "/", "it would keep a file system busy"


def test_a_second_up_and_a_second_down_say_so(volume):
    assert "already" in volume.up().text
    volume.down()
    assert not machine.is_mounted(volume.dir)
    assert "down" in volume.down().text


def test_after_down_both_trees_are_plain_and_equal(volume):
    (volume.dir / "a").mkdir()
    (volume.dir / "a/file").write_text("content")
    volume.down()
    assert not machine.mounts_below(volume.base) and not volume.processes()
    assert (
        (volume.dir / "a/file").read_text()
        == (volume.replica() / "a/file").read_text()
        == "content"
    )
    assert volume.compare() == []


def test_an_edit_holds_from_the_next_up_on(volume):
    text, other = volume.config_file.read_text(), volume.base / "other"
    other.mkdir()
    edits = text.replace(str(volume.standby), str(other)), "mode =\n" + text
    for number, edit in enumerate(edits):
        volume.config_file.write_text(edit)
        volume.kill_standby()
        (volume.dir / str(number)).write_text("x")
        volume.wait("applied")
        volume.wait("in-sync")
        volume.run("status", volume.name)
        assert "already" in volume.up().text
        assert not list(other.iterdir())
    volume.down()
    assert volume.compare() == []
    assert "1:" in volume.up(check=2).err


def test_several_directories_are_one_volume(make_volume):
    volume = make_volume(directories=("spool", "db")).start()
    for directory in volume.directories:
        (directory / "file").write_text(directory.name)
    assert os.stat(volume.directories[0]).st_dev == os.stat(volume.directories[1]).st_dev
    volume.assert_equal()
    volume.down()
    assert volume.compare() == []


def test_directories_on_two_file_systems_are_one_volume(disk, make_volume):
    volume = make_volume()
    disk(volume.base / "other", 320 << 20, "xfs")
    volume.directories.append(volume.base / "other" / "db")
    volume.directories[1].mkdir()
    volume.start()
    for directory in volume.directories:
        (directory / "file").write_text(directory.name)
    with pytest.raises(OSError):
        os.link(volume.directories[0] / "file", volume.directories[1] / "link")
    volume.assert_equal()


def test_remove_wants_the_volume_down(volume):
    volume.run("remove", volume.name, check=(1, 2))
    assert volume.config_file.exists() and volume.state == "in-sync"


def test_remove_forgets_the_volume_and_leaves_both_trees(volume):
    (volume.dir / "file").write_text("kept")
    volume.down()
    volume.run("remove", volume.name)
    assert not volume.config_file.exists() and not list(volume.state_dir.glob("journal/*.seg"))
    assert (volume.dir / "file").read_text() == (volume.replica() / "file").read_text() == "kept"
    volume.run("status", volume.name, check=2)


def test_foreground_stays_until_sigterm_and_unmounts(make_volume):
    foreground_ends_with(make_volume, signal.SIGTERM)


def test_foreground_stays_until_sigint_and_unmounts(make_volume):
    foreground_ends_with(make_volume, signal.SIGINT)


def foreground_ends_with(make_volume, number):
    volume = make_volume()
    volume.create()
    process = subprocess.Popen(
        [volumes.PROGRAM, "up", volume.name, "--foreground"],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(os.environ, TWINSPOOL_ROOT=str(volume.root)),
    )
    volume.wait_state("in-sync")
    (volume.dir / "file").write_text("x")
    process.send_signal(number)
    assert process.wait(30) == 0
    assert not machine.is_mounted(volume.dir) and volume.compare() == []


def test_sigterm_to_the_daemon_is_down(volume):
    (volume.dir / "file").write_text("x")
    pids = volume.processes()
    os.kill(volume.primary_pid, signal.SIGTERM)
    machine.wait_ended(*pids)
    machine.wait_ended(*volume.processes())  # the `down` that it has started
    assert not machine.mounts_below(volume.base) and volume.compare() == []


def test_wait_fixes_its_position_at_the_call(volume):
    with volume.stopped_standby():
        (volume.dir / "file").write_text("x")
        begin = time.monotonic()
        volume.run("wait", volume.name, "--for", "applied", "--timeout", "1", check=3)
        assert 0.8 < time.monotonic() - begin < 8
    volume.wait("durable")
    volume.wait("applied")
    assert (volume.replica() / "file").read_text() == "x"


def test_wait_says_when_the_volume_is_down(make_volume):
    volume = make_volume()
    volume.create()
    assert volume.run(
        "wait", volume.name, "--for", "in-sync", "--timeout", "1", check=None
    ).code in (1, 3)


def test_the_standby_commits_only_while_the_volume_is_down(volume):
    volume.run("standby", volume.name, "--once", check=(1, 2))
    volume.down()
    volume.run("standby", volume.name, "--once")
    volume.run("standby", volume.name, "--once", "--tail")
    assert volume.compare() == []


# The journal.


def test_journal_dump_prints_the_records(volume):
    (volume.dir / "a name to find").write_text("x")
    os.setxattr(volume.dir / "a name to find", "user.colour", b"blue")
    volume.wait("durable")
    volume.down()
    for place in (volume.state_dir, volume.standby):
        text = run("journal", "dump", *sorted((place / "journal").glob("*.seg"))).out
        assert "a name to find" in text and "user.colour" in text


def test_both_sides_hold_the_same_bytes(volume):
    for number in range(50):
        (volume.dir / str(number)).write_text("x" * number)
    volume.wait("applied")
    volume.down()
    ours, theirs = (
        sorted((place / "journal").glob("*.seg")) for place in (volume.state_dir, volume.standby)
    )
    for one, other in zip(ours, theirs):
        # The header says which side it is.
        assert one.name == other.name
        assert one.read_bytes()[HEADER:].rstrip(b"\0") == other.read_bytes()[HEADER:].rstrip(b"\0")
    assert used_bytes(ours[0]) > HEADER


def a_used_segment(volume):
    return max((volume.state_dir / "journal").glob("*.seg"), key=used_bytes)


def used_bytes(segment):
    """Up to where a segment was written: it is filled with zeros beyond."""
    return len(segment.read_bytes().rstrip(b"\0"))


def middle(segment):
    """Within the first bytes of a block: frames begin there, and between them is padding."""
    return used_bytes(segment) // 2 // 4096 * 4096 + 40


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


@pytest.mark.parametrize(
    "damage", ["flip early", "flip in the middle", "truncate", "header", "empty"]
)
def test_journal_dump_names_the_place_of_damage(volume, damage):
    for number in range(400):
        with open(volume.dir / str(number), "wb") as file:
            file.write(os.urandom(2000))
            os.fsync(file.fileno())
    volume.down()
    segment = a_used_segment(volume)
    used = used_bytes(segment)
    if damage == "truncate":
        os.truncate(segment, used // 2)
    elif damage == "empty":
        os.truncate(segment, 0)
    else:
        flip(
            segment,
            {"flip early": HEADER + 100, "flip in the middle": middle(segment), "header": 3}[
                damage
            ],
        )
    result = run("journal", "dump", segment, check=1)
    assert segment.name in result.err and re.search(r"\d", result.err.replace(segment.name, ""))


def test_up_refuses_a_damaged_journal_and_names_the_place(volume):
    for number in range(400):
        with open(volume.dir / str(number), "wb") as file:
            file.write(os.urandom(2000))
            os.fsync(file.fileno())
    volume.kill_all()
    segment = a_used_segment(volume)
    flip(segment, middle(segment))
    assert segment.name in volume.up(check=1).err


def test_up_refuses_a_segment_of_another_volume(make_volume):
    volume, other = make_volume().start(), make_volume().start()
    for one in (volume, other):
        (one.dir / "file").write_text("x")
        one.down()
    segment = a_used_segment(volume)
    segment.write_bytes(a_used_segment(other).read_bytes())
    assert segment.name in volume.up(check=1).err
    assert not machine.is_mounted(volume.dir)


def test_journal_dump_of_something_else_is_refused(program, fresh):
    stranger = fresh() / "stranger.seg"
    stranger.write_bytes(b"not a segment at all\n" * 1000)
    assert "stranger.seg" in run("journal", "dump", stranger, check=1).err
    assert (
        "missing.seg" in run("journal", "dump", stranger.parent / "missing.seg", check=(1, 2)).err
    )


# Bad input.


def refuses(volume, *arguments, names=""):
    """`create` says a sentence with that name in it, exits 2 and changes nothing."""
    volume.standby.mkdir(exist_ok=True)
    before = everything(volume.base)
    result = volume.run("create", *arguments, check=2)
    assert str(names) in result.err and len(result.err.split()) > 3, result
    assert everything(volume.base) == before, result
    return result.err


def test_a_missing_directory_is_refused(make_volume):
    volume = make_volume()
    refuses(
        volume,
        "vol",
        "--dir",
        volume.base / "missing",
        "--standby",
        volume.standby,
        names="missing",
    )


def test_a_file_for_a_directory_is_refused(make_volume):
    volume = make_volume()
    (volume.base / "file").write_text("x")
    refuses(volume, "vol", "--dir", volume.base / "file", "--standby", volume.standby, names="file")


def test_a_directory_given_twice_is_refused(make_volume):
    volume = make_volume()
    refuses(
        volume,
        "vol",
        *listed(volume),
        *listed(volume),
        "--standby",
        volume.standby,
        names=volume.dir,
    )
    (volume.base / "alias").symlink_to(volume.dir)
    refuses(
        volume, "vol", *listed(volume), "--dir", volume.base / "alias", "--standby", volume.standby
    )


def test_a_directory_inside_another_is_refused(make_volume):
    volume = make_volume(directories=("dir", "dir/inside"))
    refuses(volume, "vol", *listed(volume), "--standby", volume.standby, names="inside")
    refuses(
        volume,
        "vol",
        *listed(volume)[2:],
        *listed(volume)[:2],
        "--standby",
        volume.standby,
        names="inside",
    )


def test_a_directory_inside_the_standby_or_around_it_is_refused(make_volume):
    volume = make_volume()
    (volume.dir / "standby").mkdir()
    (volume.standby / "dir").mkdir(parents=True)
    refuses(volume, "vol", *listed(volume), "--standby", volume.dir / "standby", names="standby")
    refuses(
        volume, "vol", "--dir", volume.standby / "dir", "--standby", volume.standby, names="standby"
    )
    refuses(volume, "vol", *listed(volume), "--standby", volume.dir, names=volume.dir)


def test_a_directory_inside_the_state_directory_or_around_it_is_refused(make_volume):
    volume = make_volume()
    (volume.root / "lib/vol/dir").mkdir(parents=True)
    refuses(volume, "vol", "--dir", volume.root / "lib/vol/dir", "--standby", volume.standby)
    refuses(volume, "vol", "--dir", volume.root, "--standby", volume.standby)


def test_a_directory_of_another_volume_is_refused(make_volume):
    volume = make_volume()
    volume.create()
    (volume.base / "standby2").mkdir()
    refuses(
        volume, "second", *listed(volume), "--standby", volume.base / "standby2", names=volume.dir
    )
    (volume.dir / "inside").mkdir()
    refuses(volume, "second", "--dir", volume.dir / "inside", "--standby", volume.base / "standby2")


def test_a_standby_of_another_volume_is_refused(make_volume):
    volume = make_volume().start()
    volume.down()
    (volume.base / "other").mkdir()
    refuses(
        volume,
        "second",
        "--dir",
        volume.base / "other",
        "--standby",
        volume.standby,
        names="standby",
    )


def test_a_file_system_without_trusted_xattrs_is_refused(make_volume):
    volume = make_volume()
    subprocess.run(["mount", "-t", "ramfs", "none", volume.dir], check=True)
    refuses(volume, "vol", *listed(volume), "--standby", volume.standby, names=volume.dir)


def test_a_standby_that_is_not_empty_is_refused(make_volume):
    volume = make_volume()
    volume.standby.mkdir()
    (volume.standby / "file").write_text("somebody's")
    refuses(volume, "vol", *listed(volume), "--standby", volume.standby, names="standby")


def test_a_standby_that_is_not_a_directory_is_refused(make_volume):
    volume = make_volume()
    (volume.base / "file").write_text("x")
    refuses(volume, "vol", *listed(volume), "--standby", volume.base / "file", names="file")


def test_a_name_that_exists_is_refused(make_volume):
    volume = make_volume()
    volume.create()
    (volume.base / "other").mkdir(), (volume.base / "standby2").mkdir()
    refuses(
        volume,
        "vol",
        "--dir",
        volume.base / "other",
        "--standby",
        volume.base / "standby2",
        names="vol",
    )


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".", "a b", "a@b", "-x", "ü", "x" * 300, "a\nb", "../../vol"]
)
def test_odd_names_are_refused(make_volume, name):
    volume = make_volume()
    before = everything(volume.base)
    volume.run("create", *listed(volume), "--standby", volume.standby, "--", name, check=2)
    assert everything(volume.base) == before


def test_an_unknown_mode_is_refused(make_volume):
    volume = make_volume()
    refuses(
        volume,
        "vol",
        *listed(volume),
        "--standby",
        volume.standby,
        "--mode",
        "sometimes",
        names="sometimes",
    )


@pytest.mark.parametrize(
    "line, column, word",
    [
        ('colour = "blue"', 1, "colour"),
        ("linger = 2", 10, "linger"),
        ('linger = "2 fortnights"', 10, "linger"),
        ('journal_limit = "many"', 17, "journal_limit"),
        ('mode = "sometimes"', 8, "mode"),
        ("standby_timeout = true", 19, "standby_timeout"),
        ("mode = ", None, ""),
        ('mode = "fsync', None, ""),
    ],
)
def test_configuration_errors_name_line_and_column(make_volume, line, column, word):
    volume = make_volume()
    volume.create()
    text = [
        text
        for text in volume.config_file.read_text().splitlines()
        if word == "" or not text.startswith(word)
    ]
    text = (
        [text for text in text if not text.startswith("mode")] if line.startswith("mode") else text
    )
    volume.config_file.write_text("\n".join([line, *text]) + "\n")
    before = everything(volume.base)
    err = volume.up(check=2).err
    assert word in err
    assert re.search(
        rf"\b1:{column if column else '[0-9]+'}\b|line 1, column {column if column else '[0-9]+'}",
        err,
    ), err
    assert everything(volume.base) == before and not machine.is_mounted(volume.dir)


def test_an_edited_standby_that_is_not_empty_is_refused(make_volume):
    volume = make_volume().start()
    volume.down()
    other = make_volume(base=volume.base, directories=("dir2",), standby="standby2", name="other")
    other.start()
    other.down()
    (volume.base / "full").mkdir()
    (volume.base / "full/file").write_text("somebody's")
    text = volume.config_file.read_text()
    for place in (volume.base / "full", other.standby, volume.base / "full/file"):
        volume.config_file.write_text(text.replace(str(volume.standby), str(place)))
        before = everything(volume.base)
        assert str(place) in volume.up(check=2).err
        assert everything(volume.base) == before and not machine.is_mounted(volume.dir)
    (volume.base / "empty").mkdir()
    volume.config_file.write_text(text.replace(str(volume.standby), str(volume.base / "empty")))
    volume.up()
    volume.wait("in-sync")


# Several commands at once.


@contextlib.contextmanager
def another_command(volume):
    """Holds the volume's lock, as a command does."""
    volume.run_dir.mkdir(parents=True, exist_ok=True)
    with open(volume.run_dir / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def begun(volume, *arguments, **options):
    """A command that goes on while the test does."""
    return subprocess.Popen(
        [volumes.PROGRAM, *map(str, arguments)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, TWINSPOOL_ROOT=str(volume.root)),
        **options,
    )


def ended(process, code):
    err = process.communicate(timeout=30 * volumes.PATIENCE)[1]
    assert process.returncode == code, err
    return err


def is_waiting(process):
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    return True


@pytest.mark.parametrize("command", ["up", "down", "remove", "standby --once"])
def test_a_volume_that_was_removed_meanwhile_does_not_exist(make_volume, command):
    volume = make_volume()
    volume.create()
    word, *options = command.split()
    with another_command(volume):
        process = begun(volume, word, volume.name, *options)
        assert is_waiting(process)
        volume.config_file.unlink()
        shutil.rmtree(volume.run_dir)
    assert "there is no volume" in ended(process, 2)
    assert not machine.is_mounted(volume.dir)


def test_a_lock_that_was_removed_keeps_nobody_out(make_volume):
    volume = make_volume()
    volume.create()
    with contextlib.ExitStack() as successor:
        with another_command(volume):
            process = begun(volume, "up", volume.name)
            assert is_waiting(process)
            shutil.rmtree(volume.run_dir)
            successor.enter_context(another_command(volume))
        assert is_waiting(process) and not machine.is_mounted(volume.dir)
    ended(process, 0)
    assert machine.is_mounted(volume.dir)


def test_of_two_creates_at_once_one_wins_and_the_other_changes_nothing(make_volume):
    volume = make_volume(directories=("one", "other"))
    with another_command(volume):
        processes = [
            begun(volume, "create", "vol", "--dir", path, "--standby", f"{path}-standby")
            for path in volume.directories
        ]
        assert all(map(is_waiting, processes))
        assert not any(Path(f"{path}-standby").exists() for path in volume.directories)
    errors = [process.communicate(timeout=30)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2], errors
    lost = [process.returncode for process in processes].index(2)
    assert "exists already" in errors[lost]
    assert not Path(f"{volume.directories[lost]}-standby").exists()
    assert f"{volume.directories[1 - lost]}-standby" in volume.config_file.read_text()
    volume.run("status", "vol", check=3)


def test_creates_of_one_standby_at_once_leave_it_to_one(make_volume):
    volume = make_volume()
    processes = [
        begun(volume, "create", "vol", *listed(volume), "--standby", volume.standby)
        for _ in range(8)
    ]
    errors = [process.communicate(timeout=30)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0] + [2] * 7, errors
    assert sum("exists already" in text for text in errors) == 7
    assert volume.tail().stem in (volume.standby / "volume").read_text()
    volume.run("remove", "vol")
    assert not volume.run_dir.exists()


# Signals.


def waits_for_the_standby(volume, **options):
    """An `up` that has mounted and waits for a standby that is away."""
    volume.create()
    volume.standby.rename(volume.base / "away")
    process = begun(volume, "up", volume.name, **options)
    while not machine.is_mounted(volume.dir):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_only_the_waiting_for_the_standby(make_volume, number):
    volume = make_volume(standby_timeout="60s")
    process = waits_for_the_standby(volume)
    process.send_signal(number)
    assert "is up" in ended(process, 3)
    assert machine.is_mounted(volume.dir) and volume.status()["state"] != "down"
    (volume.base / "away").rename(volume.standby)
    volume.wait("in-sync")


def test_what_nohup_ignores_stays_ignored(make_volume):
    volume = make_volume(standby_timeout="2s")
    process = waits_for_the_standby(
        volume, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    process.send_signal(signal.SIGHUP)
    assert "could not be reached" in ended(process, 3)


def handles_sigterm(process):
    text = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*([0-9a-f]+)", text, re.M)[1], 16)
    return caught & (1 << (signal.SIGTERM - 1)) != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_down_that_has_recovered_ends_by_a_signal(make_volume, number):
    volume = make_volume(mode="async", standby_timeout="60s", linger="1s").start()
    with volume.stopped_standby():
        for name in range(400):
            (volume.dir / str(name)).write_bytes(os.urandom(1 << 16))
        volume.kill_all()
    process = begun(volume, "down", volume.name)
    for recovering in (True, False):
        while handles_sigterm(process) is not recovering:
            assert process.poll() is None, process.communicate()[1]
    process.send_signal(number)
    assert process.wait(30 * volumes.PATIENCE) == -number
    volume.down()
    assert volume.compare() == []


# Who else is there.


def test_up_refuses_while_a_file_is_open_underneath_and_names_the_program(make_volume):
    volume = make_volume()
    (volume.dir / "open").write_text("x")
    volume.create()
    with open(volume.dir / "open") as holder:
        process = subprocess.Popen(["sleep", "1000"], stdin=holder)
        try:
            result = volume.up(check=1)
            assert str(process.pid) in result.err and "sleep" in result.err
            assert not machine.is_mounted(volume.dir)
            volume.up("--force")
            assert machine.is_mounted(volume.dir)
        finally:
            process.kill(), process.wait()


def test_up_refuses_while_a_program_works_below_the_directory(make_volume):
    volume = make_volume()
    (volume.dir / "below").mkdir()
    volume.create()
    process = subprocess.Popen(["sleep", "1000"], cwd=volume.dir / "below")
    try:
        assert str(process.pid) in volume.up(check=1).err
    finally:
        process.kill(), process.wait()


def test_a_busy_down_names_the_program_and_stays_up(volume):
    (volume.dir / "below").mkdir()
    process = subprocess.Popen(["sleep", "1000"], cwd=volume.dir / "below")
    try:
        result = volume.down(check=(1, 3))
        assert str(process.pid) in result.text and "sleep" in result.text
        assert machine.is_mounted(volume.dir) and volume.state == "in-sync"
        (volume.dir / "below/file").write_text("still served")
    finally:
        process.kill(), process.wait()
    volume.down()
    assert volume.compare() == []


def test_down_says_when_the_standby_cannot_apply(make_volume):
    volume = make_volume(standby_timeout="2s").start()
    pid = volume.standby_pid
    volume.standby.rename(volume.base / "away")
    machine.kill(pid)
    (volume.dir / "file").write_text("x")
    assert "standby" in volume.down(check=3).text
    assert not machine.mounts_below(volume.base) and (volume.dir / "file").read_text() == "x"
    (volume.base / "away").rename(volume.standby)
    volume.up()
    volume.wait("in-sync")
    volume.assert_equal()


def test_up_with_a_standby_that_cannot_be_reached_is_degraded(make_volume):
    volume = make_volume(standby_timeout="2s")
    volume.create()
    volume.up()
    volume.wait("in-sync")
    volume.down()
    volume.standby.rename(volume.base / "away")
    begin = time.monotonic()
    volume.up(check=3)
    assert time.monotonic() - begin >= 1.9
    assert machine.is_mounted(volume.dir) and volume.state == "degraded"


def test_up_warns_of_a_file_system_without_a_journal(disk, make_volume):
    volume = make_volume()
    other = make_volume(base=volume.base, name="other", standby="standby2", directories=("dir2",))
    disk(volume.base / "plain", 64 << 20, mkfs_options=["-O", "^has_journal"])
    disk(volume.base / "safe", 64 << 20)
    for one, place in ((volume, "plain"), (other, "safe")):
        one.directories = [one.base / place / "dir"]
        one.dir.mkdir()
        one.create()
    assert "journal" in volume.up().err
    assert "journal" not in other.up().err


def test_the_control_socket_is_for_root_only(volume):
    sockets = [path for path in volume.run_dir.rglob("*") if path.is_socket()]
    for path in sockets:
        assert path.stat().st_mode & 0o077 == 0
    assert sockets, "no control socket in the run directory"
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(str(sockets[0]))
            os._exit(1)
        except OSError:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
