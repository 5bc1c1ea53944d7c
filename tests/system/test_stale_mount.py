# SPDX-License-Identifier: Apache-2.0
"""A killed daemon leaves a stale mount; the next `up` replaces it and nobody gets past the overlay.
"""
import os
import subprocess
import threading
import time

import machine
import pytest
import volume as volumes


class Opener(threading.Thread):
    """Opens a path again and again and keeps what it reached: an errno, or the st_dev of what it
    opened.
    """

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.reached, self.ended = path, {}, threading.Event()
        self.start()

    def run(self):
        while not self.ended.is_set():
            try:
                fd = os.open(self.path, os.O_RDONLY)
                found = "device", os.fstat(fd).st_dev
                os.close(fd)
            except OSError as error:
                found = "errno", error.errno
            self.reached[found] = self.reached.get(found, 0) + 1

    def end(self):
        self.ended.set()
        self.join(30)
        return self.reached


def overlays_over(directory):
    return [kind for point, kind, _ in machine.mounts() if point == str(directory)]


def test_a_dead_daemon_is_enotconn_and_never_the_backing_tree(volume):
    volume.kill_all()
    try:
        os.listdir(volume.dir)
        raise AssertionError("the backing tree is open to everybody")
    except OSError as error:
        assert error.errno in volumes.DEATH
    assert machine.is_mounted(volume.dir)


def test_nobody_gets_past_the_overlay_while_up_replaces_it(make_volume):
    volume = make_volume(directories=("spool", "db")).start()
    for directory in volume.directories:
        (directory / "file").write_text("x")
    underneath = os.stat(volume.backing()).st_dev
    for _ in range(8):
        volume.kill_all()
        openers = [
            Opener(path)
            for directory in volume.directories
            for path in (directory, directory / "file")
        ]
        time.sleep(0.02)
        volume.up()
        time.sleep(0.05)
        for opener in openers:
            reached = opener.end()
            assert ("device", underneath) not in reached, reached
            assert {number for what, number in reached if what == "errno"} <= set(volumes.DEATH)
            assert any(what == "device" for what, _ in reached), "it came up"
        assert [len(overlays_over(directory)) for directory in volume.directories] == [1, 1]
    volume.wait("in-sync")
    volume.assert_equal()
    volume.down()
    assert not machine.mounts_below(volume.base)


def test_down_of_a_killed_volume_recovers_it_first(volume):
    (volume.dir / "file").write_text("written, not synced")
    volume.kill_all()
    volume.down()
    assert not machine.mounts_below(volume.base) and not volume.processes()
    assert (volume.dir / "file").read_text() == "written, not synced"
    assert volume.compare() == []


def test_the_directory_itself_stays_as_it_was(make_volume):
    volume = make_volume()
    os.chown(volume.dir, 1000, 1000), volume.dir.chmod(0o2775)
    before = volume.dir.stat()
    volume.start()
    for end in (volume.kill_all, volume.kill_primary, volume.down):
        end()
        volume.up()
        after = volume.dir.stat()
        for what in ("st_mode", "st_uid", "st_gid", "st_mtime_ns"):
            assert getattr(after, what) == getattr(before, what), what
    volume.wait("in-sync")
    volume.assert_equal()


def test_only_the_primary_killed(volume):
    (volume.dir / "file").write_text("x")
    volume.kill_primary()
    volume.up()
    assert (volume.dir / "file").read_text() == "x"
    assert len(overlays_over(volume.dir)) == 1
    volume.wait("in-sync")
    volume.assert_equal()


def test_a_program_that_sits_in_the_stale_mount_does_not_stop_up(volume):
    (volume.dir / "below").mkdir()
    (volume.dir / "below/file").write_text("x")
    with open(volume.dir / "below/file") as held:
        process = subprocess.Popen(["sleep", "1000"], cwd=volume.dir / "below", stdin=held)
        try:
            volume.kill_all()
            volume.up()
            assert (volume.dir / "below/file").read_text() == "x"
            assert len(overlays_over(volume.dir)) == 1
        finally:
            process.kill(), process.wait()
    volume.down()
    assert not machine.mounts_below(volume.base)


def test_up_interrupted_half_way_leaves_no_way_past(volume):
    """`up` itself is killed: what the next one finds may be anything but an open backing tree."""
    (volume.dir / "file").write_text("x")
    underneath = os.stat(volume.backing()).st_dev
    for milliseconds in (5, 20, 50, 100, 150, 200):
        volume.kill_all()
        opener = Opener(volume.dir / "file")
        killer = threading.Timer(milliseconds / 1000, lambda: machine.kill(*volume.processes()))
        killer.start()
        volume.up(check=None)
        killer.join()
        assert ("device", underneath) not in opener.end()
    volume.kill_all()
    volume.up()
    volume.wait("in-sync")
    volume.assert_equal()


def test_an_up_that_was_killed_is_completed_by_the_next(make_volume):
    """Only the command dies; its daemon may be serving already. What is changed in a directory that
    is still bare then is found.
    """
    volume = make_volume(directories=("spool", "db")).start()
    (volume.dir / "file").write_text("x")
    for milliseconds in (5, 20, 50, 100, 150, 200):
        volume.down()
        command = subprocess.Popen(
            [volumes.PROGRAM, "up", volume.name],
            env=dict(os.environ, TWINSPOOL_ROOT=str(volume.root)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(milliseconds / 1000)
        command.kill(), command.wait()
        if not overlays_over(volume.dir):
            (volume.dir / f"bare {milliseconds}").write_text("underneath")
        volume.up()
        assert [len(overlays_over(directory)) for directory in volume.directories] == [1, 1]
        assert (volume.dir / "file").read_text() == "x"
    volume.wait("in-sync")
    volume.assert_equal()


def holder_of(path, command=("sleep", "300")):
    """A process that has it open, and does nothing."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.DEVNULL)
    finally:
        os.close(fd)


def test_up_waits_for_processes_of_its_own_that_come_and_go(make_volume):
    """As a daemon's child between fork and exec, which has what the daemon had open."""
    volume = make_volume()
    volume.create()
    watcher = holder_of(
        volume.dir,
        ("env", f"TWINSPOOL_ROOT={volume.root}", volumes.PROGRAM, "status", "--watch", "vol"),
    )
    end = threading.Timer(0.7, watcher.kill)
    end.start()
    try:
        assert volume.up().seconds > 0.3
    finally:
        end.join()
        watcher.wait()


def test_who_comes_while_up_is_at_work_is_found_and_nothing_hangs(volume):
    """The second look finds who opened a file after the first; the overlay stays, as dead as it was."""
    (volume.dir / "file").write_text("x")
    backing = volume.backing() / "file"
    pid_file = volume.root / "run" / "vol" / "daemon.pid"
    for _ in range(30):
        volume.kill_all()
        before = pid_file.read_text()
        up = subprocess.Popen(
            [volumes.PROGRAM, "up", "vol"],
            env=dict(os.environ, TWINSPOOL_ROOT=str(volume.root)),
            stderr=subprocess.PIPE,
            text=True,
        )
        while pid_file.read_text() in ("", before) and up.poll() is None:
            pass
        with holder_of(backing) as holder:
            begin = time.monotonic()
            said = up.communicate(timeout=60)[1]
            took = time.monotonic() - begin
            holder.kill()
        if "write past the overlay" in said and f"({holder.pid})" in said:
            break
    assert up.returncode == 1 and took < 5, (up.returncode, took, said)
    with pytest.raises(OSError) as death:
        os.listdir(volume.dir)
    assert death.value.errno in volumes.DEATH
    volume.up()
    assert (volume.dir / "file").read_text() == "x"
