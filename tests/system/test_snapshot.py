# SPDX-License-Identifier: Apache-2.0
"""Taking, listing and destroying snapshots: what the commands say, what they refuse, and that a mark
stands where it must. What is in an image is for others to look at.
"""
import contextlib
import fcntl
import json
import mmap
import os
import re
import signal
import subprocess
import threading
import time
from datetime import datetime, timezone

import machine
import pytest
import volume as volumes
from load import Call

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def snapshot(volume, name, *arguments, **options):
    return volume.run("snapshot", f"{volume.name}@{name}", *arguments, **options)


def taken(volume, name, *arguments):
    return json.loads(snapshot(volume, name, "--json", *arguments).out)


def listed(volume, **options):
    return json.loads(volume.run("list", volume.name, "--json", **options).out)


def names(volume):
    return [one["name"] for one in listed(volume)]


def records(volume, directory=None):
    """(Lsn, word, the rest) of every record of a journal."""
    segments = sorted((directory or volume.state_dir / "journal").glob("*.seg"))
    lines = volume.run("journal", "dump", *segments).out.splitlines()
    found = [re.match(r"(\d+) (\w+)(.*)", line) for line in lines]
    return [(int(line[1]), line[2], line[3]) for line in found if line]


def hook_table(**keys):
    return "\n[snapshot]\n" + "".join(f"{key} = {json.dumps(keys[key])}\n" for key in keys)


@pytest.fixture
def hooked(make_volume):
    """Makes volumes with a [snapshot] table."""

    def make(**keys):
        volume = make_volume()
        volume.create()
        with open(volume.config_file, "a") as file:
            file.write(hook_table(**keys))
        volume.up()
        volume.wait("in-sync")
        return volume

    return make


# What is printed.


def test_a_snapshot_is_taken_and_listed(volume):
    (volume.dir / "mail").write_text("x")
    begin = datetime.now(timezone.utc).replace(microsecond=0)
    result = snapshot(volume, "monday")
    line = re.fullmatch(rf"vol@monday: lsn (\d+), ({TIME}), pause (\d+) us\n", result.out)
    assert line, result.out
    when = datetime.strptime(line[2], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert begin <= when <= datetime.now(timezone.utc)
    assert 0 < int(line[3]) < 10_000_000
    assert listed(volume) == [
        {
            "name": "monday",
            "lsn": int(line[1]),
            "time": line[2],
            "space": listed(volume)[0]["space"],
            "incomplete": False,
            "broken": False,
        }
    ]
    header, row = volume.run("list", "vol").out.splitlines()
    assert header.split() == ["NAME", "LSN", "TIME", "SPACE"]
    assert row.split()[:3] == ["monday", line[1], line[2]]


def test_json_has_name_lsn_time_and_pause(volume):
    found = taken(volume, "monday")
    assert found.keys() == {"name", "lsn", "time", "pause_us"}
    assert found["name"] == "monday" and found["lsn"] > 0 and found["pause_us"] > 0
    assert re.fullmatch(TIME, found["time"])


def test_the_mark_is_durable_on_both_sides(volume):
    lsn = taken(volume, "monday")["lsn"]
    for journal in (None, volume.standby / "journal"):
        assert [(lsn, "mark")] == [
            (at, word) for at, word, rest in records(volume, journal) if '"monday"' in rest
        ]


def test_they_are_listed_in_the_order_of_their_positions(volume):
    assert names(volume) == []
    assert "no snapshot" in volume.run("list", "vol").out
    marks = [taken(volume, name)["lsn"] for name in ("b", "a", "c")]
    assert marks == sorted(marks)
    assert [(one["name"], one["lsn"]) for one in listed(volume)] == list(zip("bac", marks))


def test_space_is_what_destroying_frees(volume):
    file = volume.dir / "file"
    file.write_bytes(os.urandom(1 << 20))
    snapshot(volume, "full")
    assert listed(volume)[0]["space"] < 1 << 16, "taking one costs nothing"
    file.unlink()
    volume.wait("applied")
    assert listed(volume)[0]["space"] >= 1 << 20


# What is refused, and changes nothing.


@pytest.mark.parametrize(
    "point",
    ["vol", "vol@", "@x", "vol@9a", "vol@2026-08-20T03:00", "vol@-a", "vol@lsn:5", "vol@latest"]
    + ["vol@a/b", "vol@a:/x", "vol@a:", "vol@a@b", "vol@a b", "vol@a\nb", "vol@\u00e4", "vol@a%"]
    + ["vol@" + "a" * 65, "../vol@x", "", "vol@diff-temporary-1"],
)
def test_what_cannot_be_a_name_is_refused(volume, point):
    before = records(volume)
    result = volume.run("snapshot", point, check=2)
    assert result.err.startswith("twinspool: ") and not result.out
    assert records(volume) == before and names(volume) == []


def test_bytes_that_are_no_text_are_refused(volume):
    done = subprocess.run(
        [volumes.PROGRAM, "snapshot", b"vol@\xff\xfe"],
        env=dict(os.environ, TWINSPOOL_ROOT=str(volume.root)),
        capture_output=True,
    )
    assert done.returncode == 2 and done.stderr


def test_the_longest_name_is_taken(volume):
    for name in ("a" * 64, ".", "_", "hourly-20261122T0900Z"):
        snapshot(volume, name)
        assert names(volume)[-1] == name


def test_a_name_that_lives_is_refused(volume):
    first = taken(volume, "monday")
    assert "already" in snapshot(volume, "monday", check=2).err
    assert [one["lsn"] for one in listed(volume)] == [first["lsn"]]
    volume.run("destroy", "vol@monday")
    assert taken(volume, "monday")["lsn"] > first["lsn"]


@pytest.mark.parametrize("command", ["snapshot", "destroy", "list"])
def test_a_volume_that_does_not_exist_is_named(volume, command):
    point = "nowhere" if command == "list" else "nowhere@x"
    assert "nowhere" in volume.run(command, point, check=2).err


def test_a_volume_that_is_down_says_what_to_do(volume):
    snapshot(volume, "monday")
    volume.down()
    assert "twinspool up vol" in snapshot(volume, "tuesday", check=1).err
    assert "twinspool up vol" in volume.run("destroy", "vol@monday", check=1).err
    assert names(volume) == ["monday"], "what there is can be seen all the same"
    volume.up()
    volume.wait("in-sync")
    assert names(volume) == ["monday"]


def test_list_before_the_first_up_says_why_there_is_nothing(make_volume):
    volume = make_volume()
    volume.create()
    assert "nothing yet" in volume.run("list", "vol", check=3).err


# Not everything is on the standby.


def test_while_seeding_it_is_refused_or_incomplete(make_volume, fresh):
    trace = fresh() / "trace"
    volume = make_volume()
    volume.create()
    with open(volume.config_file, "a") as file:
        file.write(hook_table(before=f"touch {trace}"))
    block = os.urandom(1 << 20)
    for number in range(600):
        (volume.dir / f"file{number}").write_bytes(block)
    volume.up()
    result = snapshot(volume, "early", check=3)
    assert "--incomplete" in result.err and not trace.exists() and names(volume) == []
    found = taken(volume, "early", "--incomplete")
    assert volume.state == "seeding", "the seed was too quick for this test"
    assert found["incomplete"] is True and trace.exists()
    assert [(one["name"], one["incomplete"]) for one in listed(volume)] == [("early", True)]
    assert "incomplete" in volume.run("list", "vol").out
    volume.wait("in-sync")
    assert "incomplete" not in taken(volume, "late", "--incomplete")
    assert [one["incomplete"] for one in listed(volume)] == [True, False]


def test_without_a_standby_it_is_refused(make_volume):
    volume = make_volume(standby_timeout="500ms")
    volume.start()
    (volume.standby / "volume").rename(volume.standby / "away")
    (volume.standby / "foreign").write_text("")
    volume.kill_standby()
    volume.wait_state("degraded")
    before = records(volume)
    result = snapshot(volume, "alone", check=3)
    assert "standby" in result.err and result.seconds < 10
    result = snapshot(volume, "alone", "--incomplete", check=3)
    assert [record for record in records(volume)[len(before) :] if record[1] == "mark"] == []
    assert volume.run("list", "vol", check=(0, 3)).code == 0, "what is applied can be seen"


def test_a_standby_that_hangs_is_not_waited_for_forever(make_volume):
    """A process that hangs is given up and replaced, and the mark reaches the one that replaces it."""
    volume = make_volume(standby_timeout="1s")
    volume.start()
    with volume.stopped_standby() as hung:
        result = snapshot(volume, "hung")
        assert 0.9 < result.seconds < 45
        assert volume.standby_pid not in (0, hung)
    assert names(volume) == ["hung"]


@pytest.mark.parametrize("mode", ["every", "async"])
def test_in_the_other_modes_it_is_on_the_standby_too(make_volume, mode):
    volume = make_volume(mode=mode)
    volume.create()
    volume.up()
    volume.wait("in-sync")
    (volume.dir / "mail").write_text("x")
    lsn = taken(volume, "monday")["lsn"]
    found = records(volume, volume.standby / "journal")
    assert (lsn, "mark") in [(at, word) for at, word, _ in found]
    assert names(volume) == ["monday"]


# Where the mark stands.


def test_stores_through_mmap_are_in_it(make_volume):
    volume = make_volume(directories=("one", "two")).start()
    views, kept = [], []
    for index, directory in enumerate(volume.directories):
        file = open(directory / "database", "w+b")
        file.truncate(32 << 20)
        views.append(mmap.mmap(file.fileno(), 0))
        kept.append(file)
    for turn in range(1, 5):
        for view in views:
            for page in range(0, len(view), 4096):
                view[page] = turn
        lsn = taken(volume, f"turn{turn}")["lsn"]
        for index in range(2):
            data = (volume.backing(index) / "database").read_bytes()
            assert set(data[::4096]) == {turn}, "it was not waited for"
        written = [at for at, word, _ in records(volume) if word == "write"]
        assert max(written) < lsn
    for view, file in zip(views, kept):
        view.close(), file.close()


class Counter(threading.Thread):
    """Appends to two files in turn, and says how far it is."""

    def __init__(self, directories):
        super().__init__(daemon=True)
        self.files = [
            os.open(directory / "counter", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            for directory in directories
        ]
        self.begun, self.done, self.ended = [0, 0], [0, 0], threading.Event()
        self.start()

    def run(self):
        while not self.ended.is_set():
            for index in range(2):
                self.begun[index] += 1
                os.write(self.files[index], b"x")
                self.done[index] += 1

    def stop(self):
        self.ended.set()
        self.join(30)
        for file in self.files:
            os.close(file)


@pytest.mark.parametrize("apart", [False, True])
def test_it_is_one_position_over_all_directories(make_volume, disk, fresh, apart):
    base = fresh()
    if apart:
        disk(base / "second", 64 << 20)
        volume = make_volume(base=base, directories=("first", "second/dir"))
    else:
        volume = make_volume(base=base, directories=("first", "third"))
    volume.start()
    counter = Counter(volume.directories)
    marks = []
    try:
        for number in range(20):
            before = list(counter.done)
            lsn = taken(volume, f"number{number}")["lsn"]
            marks.append((lsn, before, list(counter.begun)))
    finally:
        counter.stop()
    ids = [f"#{os.stat(directory / 'counter').st_ino:x} " for directory in volume.directories]
    written = [[at for at, word, rest in records(volume) if word == "write" and one in rest] for one in ids]
    assert all(written)
    for lsn, before, after in marks:
        count = [sum(at < lsn for at in one) for one in written]
        assert before[0] <= count[0] <= after[0] and before[1] <= count[1] <= after[1]
        assert count[1] <= count[0] <= count[1] + 1


# The commands around it.


def test_hooks_run_around_the_mark_and_know_what_for(hooked, fresh):
    trace = fresh() / "trace"
    say = f'echo "%s $TWINSPOOL_VOLUME $TWINSPOOL_SNAPSHOT" >> {trace}'
    volume = hooked(before=f"{say % 'before'}; echo noise", after=say % "after")
    result = snapshot(volume, "monday", "--json")
    assert trace.read_text().splitlines() == ["before vol monday", "after vol monday"]
    assert json.loads(result.out)["name"] == "monday", "what they print is kept apart"
    assert "noise" in result.err


def test_before_can_still_change_the_volume(make_volume):
    volume = make_volume()
    volume.create()
    dump = volume.dir / "dump"
    with open(volume.config_file, "a") as file:
        file.write(hook_table(before=f"echo made > {dump}"))
    volume.up()
    volume.wait("in-sync")
    lsn = taken(volume, "monday")["lsn"]
    assert dump.read_text() == "made\n"
    assert max(at for at, word, _ in records(volume) if word == "write") < lsn


@pytest.mark.parametrize("failure", ["exit 3", "kill -9 $$", "/nonexistent/command", "sleep 600"])
def test_before_that_fails_stops_it(hooked, fresh, failure):
    trace = fresh() / "trace"
    volume = hooked(before=failure, after=f"echo after >> {trace}", hook_timeout="1s")
    result = snapshot(volume, "monday", check=1)
    assert "`before`" in result.err and result.seconds < 20
    assert names(volume) == []
    assert trace.read_text() == "after\n", "`after` undoes what `before` may have done"


def test_before_that_fails_need_not_stop_it(hooked):
    volume = hooked(before="exit 3", on_before_failure="continue")
    assert "`before`" in snapshot(volume, "monday").err
    assert names(volume) == ["monday"]


def test_after_that_fails_is_said(hooked):
    volume = hooked(after="sleep 600", hook_timeout="500ms")
    result = snapshot(volume, "monday", check=1)
    assert "`after`" in result.err and "vol@monday" in result.out
    assert names(volume) == ["monday"]


def test_after_runs_when_the_mark_fails(make_volume, fresh):
    trace = fresh() / "trace"
    volume = make_volume()
    volume.create()
    with open(volume.config_file, "a") as file:
        # The daemon dies between the checks and the mark.
        file.write(
            hook_table(before="kill -9 $(cat $TWINSPOOL_ROOT/run/vol/daemon.pid)", after=f"touch {trace}")
        )
    volume.up()
    volume.wait("in-sync")
    snapshot(volume, "monday", check=1)
    assert trace.exists()
    volume.up()
    volume.wait("in-sync")
    assert names(volume) == []


def test_a_group_that_hangs_is_killed_as_a_whole(hooked, fresh):
    pid = fresh() / "pid"
    volume = hooked(before=f"sleep 600 & echo $! > {pid}; wait", hook_timeout="1s")
    snapshot(volume, "monday", check=1)
    machine.wait_ended(int(pid.read_text()))


def test_what_before_leaves_running_holds_nobody_up(hooked, fresh):
    """As a client that keeps a lock; it is there until `after`, and has our output open."""
    pid = fresh() / "pid"
    volume = hooked(
        before=f"sleep 600 & echo $! > {pid}", after=f"kill $(cat {pid})", hook_timeout="20s"
    )
    done = subprocess.run(
        [volumes.PROGRAM, "snapshot", "vol@monday"],
        env=dict(os.environ, TWINSPOOL_ROOT=str(volume.root)),
        capture_output=True,
        timeout=15,
    )
    assert done.returncode == 0, done.stderr
    machine.wait_ended(int(pid.read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_before_is_undone(hooked, fresh, number):
    ready, trace = fresh() / "ready", fresh() / "trace"
    volume = hooked(before=f"touch {ready}; sleep 600", after=f"touch {trace}")
    process = subprocess.Popen(
        [volumes.PROGRAM, "snapshot", "vol@monday"],
        env=dict(os.environ, TWINSPOOL_ROOT=str(volume.root)),
        stderr=subprocess.PIPE,
    )
    while not ready.exists():
        time.sleep(0.01)
    process.send_signal(number)
    assert b"interrupted" in process.communicate(timeout=20)[1]
    assert process.returncode == 1 and trace.exists() and names(volume) == []


# Destroying.


def test_a_destroyed_one_is_gone(volume):
    file = volume.dir / "file"
    for name in ("a", "b", "c"):
        file.write_text(name)
        snapshot(volume, name)
    volume.run("destroy", "vol@b")
    assert names(volume) == ["a", "c"]
    volume.run("destroy", "vol@latest")
    assert names(volume) == ["a"]
    volume.run("destroy", f"vol@lsn:{listed(volume)[0]['lsn']}")
    assert names(volume) == []
    assert "no snapshot" in volume.run("destroy", "vol@a", check=2).err
    volume.assert_equal()


def test_dry_run_destroys_nothing(volume):
    snapshot(volume, "monday")
    before = records(volume)
    assert "vol@monday" in volume.run("destroy", "vol@monday", "--dry-run").out
    assert records(volume) == before and names(volume) == ["monday"]


@contextlib.contextmanager
def held(volume, lsn):
    """As somebody does who reads it."""
    holds = volume.standby / "holds"
    holds.mkdir(exist_ok=True)
    with open(holds / str(lsn), "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def test_one_that_is_read_is_not_destroyed(volume):
    lsn = taken(volume, "monday")["lsn"]
    with held(volume, lsn):
        assert "in use" in volume.run("destroy", "vol@monday", check=1).err
        assert "in use" in volume.run("destroy", "vol@monday", "--dry-run", check=1).err
        assert names(volume) == ["monday"]
    volume.run("destroy", "vol@monday")


# Several at once, and kills.


def test_of_several_with_one_name_one_is_taken(volume):
    calls = [Call(lambda: snapshot(volume, "same", check=(0, 2))) for _ in range(6)]
    for call in calls:
        call.join(60)
    assert sorted(call.value.code for call in calls) == [0] + [2] * 5
    assert names(volume) == ["same"]


def test_several_shells_take_their_own(volume):
    calls = [Call(lambda n=n: taken(volume, f"number{n}")) for n in range(6)]
    for call in calls:
        call.join(60)
    found = {call.value["name"]: call.value["lsn"] for call in calls}
    assert {one["name"]: one["lsn"] for one in listed(volume)} == found
    assert len(set(found.values())) == 6


def test_a_killed_command_leaves_nothing_behind(volume):
    for number in range(12):
        process = subprocess.Popen(
            [volumes.PROGRAM, "snapshot", f"vol@number{number}"],
            env=dict(os.environ, TWINSPOOL_ROOT=str(volume.root)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(number * 0.008)
        process.kill()
        process.wait()
    found = names(volume)
    assert found == sorted(set(found), key=lambda name: int(name[6:]))
    snapshot(volume, "after")
    assert names(volume) == found + ["after"]
    assert list((volume.run_dir / "past").iterdir()) == [], "scratch directories of killed commands"


def test_it_outlives_every_process(volume):
    lsn = taken(volume, "monday")["lsn"]
    volume.kill_all()
    volume.up()
    volume.wait("in-sync")
    assert [(one["name"], one["lsn"]) for one in listed(volume)] == [("monday", lsn)]


def test_killed_with_the_mark_appended(make_volume):
    """The record is in the tail: the next start finds it, and nobody was told a lie."""
    volume = make_volume()
    volume.create()
    volume.up(fault="mark_appended")
    volume.wait("in-sync")
    assert "ended meanwhile" in snapshot(volume, "monday", check=1).err
    machine.wait_ended(*volume.processes())
    volume.up()
    volume.wait("in-sync")
    assert names(volume) == ["monday"]
    assert snapshot(volume, "monday", check=2)


def test_it_survives_a_standby_that_is_killed(volume):
    lsn = taken(volume, "monday")["lsn"]
    volume.kill_standby()
    volume.wait("in-sync")
    assert [one["lsn"] for one in listed(volume)] == [lsn]
    volume.run("destroy", "vol@monday")
    volume.kill_standby()
    volume.wait("in-sync")
    assert names(volume) == []


def test_going_down_meanwhile_harms_nothing(volume):
    for number in range(4):
        call = Call(lambda n=number: snapshot(volume, f"number{n}", check=None))
        time.sleep(0.02 * number)
        volume.down()
        call.join(60)
        assert call.value.code in (0, 1), call.value
        volume.up()
        volume.wait("in-sync")
        assert (f"number{number}" in names(volume)) == (call.value.code == 0)
