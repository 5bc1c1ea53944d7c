# SPDX-License-Identifier: Apache-2.0
"""fsync means two copies; what happens when one side is lost, slow or full."""
import errno
import fcntl
import mmap
import os
import shutil
import struct
import threading
import time

import calls
import machine
import pytest
from volume import DEATH
from load import Call, write_and_sync

EXT4_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSH = 2


def sync_file(path):
    write_and_sync(path, b"x" * 2048)


def sync_data(path):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, b"x")
    os.fdatasync(fd)


def write_o_sync(path):
    os.write(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_SYNC, 0o644), b"x")


def sync_mapping(path):
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    os.ftruncate(fd, 4096)
    view = mmap.mmap(fd, 4096)
    view[:1] = b"x"
    calls.msync(view)


def sync_directory(path):
    path.mkdir()
    os.fsync(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY))


WAYS = {
    "fsync": sync_file,
    "fdatasync": sync_data,
    "O_SYNC": write_o_sync,
    "msync": sync_mapping,
    "fsync of a directory": sync_directory,
}


@pytest.mark.parametrize("way", WAYS)
def test_it_waits_for_a_stopped_standby(make_volume, way):
    volume = make_volume(standby_timeout="60s").start()
    (volume.dir / "sub").mkdir()
    with volume.stopped_standby():
        call = Call(WAYS[way], volume.dir / "file")
        call.join(1.5)
        assert not call.returned, f"{way} returned with one copy"
        # Not beside the file: the kernel holds the lock of a directory that is being synced.
        (volume.dir / "sub/other").write_text("a write does not wait")
        assert (volume.dir / "sub/other").read_text()
    assert call.result() == 0
    volume.assert_equal()


def test_all_of_many_fsyncs_wait_and_all_return(make_volume):
    volume = make_volume(standby_timeout="60s").start()
    with volume.stopped_standby():
        pending = [
            Call(write_and_sync, volume.dir / str(number), b"x" * 3000) for number in range(64)
        ]
        time.sleep(1.5)
        assert not any(call.returned for call in pending)
    assert [call.result() for call in pending] == [0] * 64
    volume.assert_equal()


def test_in_mode_every_each_change_waits(make_volume):
    volume = make_volume(standby_timeout="60s", mode="every").start()
    (volume.dir / "old").write_text("x"), (volume.dir / "older").write_text("x")
    changes = [
        (os.mkdir, volume.dir / "dir"),
        (os.unlink, volume.dir / "old"),
        (os.truncate, volume.dir / "older", 0),
        (os.symlink, "x", volume.dir / "link"),
        (os.mknod, volume.dir / "file"),
    ]
    with volume.stopped_standby():
        pending = [Call(*change) for change in changes]
        time.sleep(1.5)
        assert not any(call.returned for call in pending)
    assert [call.result() for call in pending] == [0] * len(changes)
    os.rename(volume.dir / "dir", volume.dir / "renamed")
    volume.assert_equal()


def test_in_mode_async_fsync_does_not_wait_for_the_standby(make_volume):
    volume = make_volume(standby_timeout="60s", mode="async").start()
    with volume.stopped_standby():
        assert Call(sync_file, volume.dir / "file").result(5) == 0
    volume.assert_equal()


def test_no_fsync_returns_with_one_copy_before_the_state_says_so(make_volume):
    volume = make_volume(standby_timeout="3s").start()
    states = []

    def sync_and_look(number):
        write_and_sync(volume.dir / str(number), b"x")
        states.append(volume.state)

    with volume.stopped_standby():
        volume.standby.rename(volume.base / "away")  # the daemon will start another in vain
        begin = time.monotonic()
        pending = [Call(sync_and_look, number) for number in range(8)]
        assert [call.result() for call in pending] == [0] * 8
    assert set(states) == {"degraded"}
    assert min(call.returned_at for call in pending) - begin > 2.5
    assert "going on alone" in volume.log() and "degraded" in volume.log()
    assert Call(sync_file, volume.dir / "alone").result(5) == 0, "alone means that nobody waits"
    volume.run("status", volume.name, check=3)
    (volume.base / "away").rename(volume.standby)
    volume.wait_state("in-sync")
    volume.assert_equal()


def test_a_standby_that_hangs_is_replaced(make_volume):
    volume = make_volume(standby_timeout="2s").start()
    with volume.stopped_standby() as pid:
        assert Call(sync_file, volume.dir / "file").result() == 0
        status = volume.wait_state("in-sync")
        assert status["standbys"][0]["pid"] != pid and not machine.alive(pid)
    volume.assert_equal()


def test_a_killed_standby_is_back_at_once(volume):
    for _ in range(5):
        before = volume.standby_pid
        machine.kill(before)
        assert Call(sync_file, volume.dir / "file").result(10) == 0
        status = volume.wait_state("in-sync")
        assert status["standbys"][0]["pid"] != before
    assert "degraded" not in volume.log()
    volume.assert_equal()


# What was acknowledged is in both places.


class Synced:
    """Threads that write file after file, and know of which fsync has returned."""

    def __init__(self, directories, threads=4):
        self.directories, self.acknowledged, self.ended = directories, {}, threading.Event()
        self.threads = [
            threading.Thread(target=self.work, args=(number,), daemon=True)
            for number in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def work(self, thread):
        number = 0
        while not self.ended.is_set():
            number += 1
            path = self.directories[number % len(self.directories)] / f"{thread}.{number}"
            data = os.urandom(500) * (number % 8)
            try:
                write_and_sync(f"{path}.tmp", data)
                os.rename(f"{path}.tmp", path)
                fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
                os.fsync(fd)
                os.close(fd)
            except OSError:
                return
            self.acknowledged[path] = data

    def join(self):
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


def test_what_was_synced_is_in_the_replica_after_everything_was_killed(make_volume):
    volume = make_volume(directories=("mail", "db")).start()
    for seconds in (0.3, 1, 2):
        synced = Synced(volume.directories)
        time.sleep(seconds)
        volume.kill_all()
        synced.join()
        assert synced.acknowledged
        volume.run("standby", volume.name, "--once", "--tail")
        for path, data in synced.acknowledged.items():
            index = volume.directories.index(path.parent)
            assert (
                volume.replica(index) / path.name
            ).read_bytes() == data, f"{path} is lost on the standby"
        volume.up()
        for path, data in synced.acknowledged.items():
            assert path.read_bytes() == data, f"{path} is lost on the primary"
            path.unlink()
        volume.wait("in-sync")
        volume.assert_equal()


def test_the_replica_is_a_prefix_at_every_moment(make_volume):
    """One thread writes in turn into two directories: whatever the standby holds has no gap."""
    volume = make_volume(directories=("mail", "db")).start()
    for attempt in range(3):

        def work():
            for number in range(100_000):
                (volume.directories[number % 2] / f"{attempt}.{number:06}").write_bytes(
                    b"%d" % number
                )

        call = Call(work)
        time.sleep(0.5)
        volume.kill_all()
        assert call.result() in DEATH
        for options in ([], ["--tail"]):
            volume.run("standby", volume.name, "--once", *options)
            there = sorted(
                int(path.name[2:])
                for index in (0, 1)
                for path in volume.replica(index).glob(f"{attempt}.*")
            )
            assert there == list(range(len(there)))
        volume.up()
        volume.wait("in-sync")
        volume.assert_equal()


def test_the_replica_is_not_ahead_of_what_is_committed(make_volume):
    volume = make_volume(standby_timeout="60s").start()
    (volume.dir / "before").write_text("x")
    volume.wait("applied")
    with volume.stopped_standby():
        Call(sync_file, volume.dir / "after")
        time.sleep(0.5)
        volume.kill_all()
    volume.run("standby", volume.name, "--once")
    assert (volume.replica() / "before").exists()
    volume.up()
    assert (volume.dir / "after").exists(), "it was written, and kill -9 loses nothing"
    volume.wait("in-sync")
    volume.assert_equal()


# Losing the standby, and having it back.


def leave(volume, to="away"):
    """Takes the standby's directory away, as a disk that drops out, and ends the process on it."""
    pid = volume.standby_pid
    volume.standby.rename(volume.base / to)
    machine.kill(pid)


def test_a_standby_that_goes_is_said_to_be_gone_and_catches_up_by_itself(make_volume):
    volume = make_volume(standby_timeout="2s").start()
    leave(volume)
    assert Call(sync_file, volume.dir / "alone").result(20) == 0
    status = volume.wait_state("degraded")
    assert not status["standbys"][0]["connected"]
    for number in range(200):
        (volume.dir / str(number)).write_bytes(b"x" * number)
    (volume.base / "away").rename(volume.standby)
    volume.wait_state("in-sync", timeout=60)
    volume.assert_equal()


def test_a_degraded_volume_stays_so_over_down_and_up(make_volume):
    volume = make_volume(standby_timeout="1s").start()
    leave(volume)
    sync_file(volume.dir / "alone")
    volume.wait_state("degraded")
    volume.down(check=(0, 3))
    volume.kill_all()
    volume.up(check=3)
    assert (volume.dir / "alone").exists() and volume.state == "degraded"
    (volume.base / "away").rename(volume.standby)
    volume.wait_state("in-sync", timeout=60)
    volume.assert_equal()


def test_killed_while_degraded_nothing_is_lost(make_volume):
    volume = make_volume(standby_timeout="1s").start()
    leave(volume)
    sync_file(volume.dir / "first")
    volume.wait_state("degraded")
    synced = Synced([volume.dir])
    time.sleep(0.5)
    volume.kill_all()
    synced.join()
    (volume.base / "away").rename(volume.standby)
    volume.up(check=(0, 3))
    for path, data in synced.acknowledged.items():
        assert path.read_bytes() == data
    volume.wait_state("in-sync", timeout=60)
    volume.assert_equal()


def test_an_emptied_standby_is_seeded_again(make_volume):
    volume = make_volume(standby_timeout="2s").start()
    for number in range(50):
        (volume.dir / str(number)).write_bytes(os.urandom(5000))
    volume.wait("applied")
    leave(volume)
    volume.standby.mkdir()
    volume.wait_state("in-sync", timeout=60)
    volume.assert_equal()
    shutil.rmtree(volume.base / "away")


def test_an_emptied_standby_is_seeded_again_by_the_next_up(volume):
    for number in range(50):
        (volume.dir / str(number)).write_bytes(os.urandom(5000))
    volume.down()
    volume.standby.rename(volume.base / "away")
    volume.standby.mkdir()
    volume.up()
    volume.wait("in-sync")
    volume.assert_equal()


@pytest.mark.slow
@pytest.mark.limit(240)
def test_beyond_the_journal_limit_the_standby_is_dropped_and_seeded_again(make_volume):
    volume = make_volume(standby_timeout="1s", journal_limit="256MiB").start()
    leave(volume)
    sync_file(volume.dir / "alone")
    volume.wait_state("degraded")
    for number in range(10):
        write_and_sync(volume.dir / f"big{number % 3}", os.urandom(1 << 20) * 64)
        assert volume.status()["journal"]["bytes"] <= (256 + 64) << 20
    (volume.base / "away").rename(volume.standby)
    volume.wait_state("seeding", "in-sync", timeout=60)
    volume.wait_state("in-sync", timeout=120)
    volume.assert_equal()


@pytest.mark.slow
def test_a_full_standby_disk_is_a_lost_standby(disk, make_volume):
    volume = make_volume(standby_timeout="2s")
    place = disk(volume.base / "disk", 1 << 30)
    volume.standby = place.path / "standby"
    volume.start()
    filler = place.fill(leave=8 << 20)
    # More than that, and than what a standby keeps back for itself (16 MiB).
    for number in range(12):
        write_and_sync(volume.dir / str(number), os.urandom(1 << 20) * 4)
    volume.wait_state("degraded", timeout=60)
    assert "No space left" in volume.log()
    filler.unlink()
    volume.wait_state("in-sync", timeout=60)
    volume.assert_equal()


# Losing the journal.


def is_failed(volume):
    """State `failed`: fsync is EIO, changes are EROFS, reads go on."""
    volume.wait_state("failed")
    assert (volume.dir / "before").read_text() == "readable"
    assert os.listdir(volume.dir)
    for change in (
        lambda: (volume.dir / "new").write_text("x"),
        lambda: os.mkdir(volume.dir / "d"),
        lambda: os.unlink(volume.dir / "before"),
        lambda: os.truncate(volume.dir / "before", 0),
    ):
        with pytest.raises(OSError) as raised:
            change()
        assert raised.value.errno == errno.EROFS
    fd = os.open(volume.dir / "before", os.O_RDONLY)
    with pytest.raises(OSError) as raised:
        os.fsync(fd)
    os.close(fd)
    assert raised.value.errno == errno.EIO
    volume.run("status", volume.name, check=3)


def test_a_full_journal_disk_is_state_failed(disk, make_volume):
    volume = make_volume(standby_timeout="1s")
    place = disk(volume.root / "lib", 1 << 30)
    volume.start()
    (volume.dir / "before").write_text("readable")
    leave(volume)  # from here on nothing can be recycled
    sync_file(volume.dir / "alone")
    place.fill()

    def write_on():
        for number in range(64):
            write_and_sync(volume.dir / f"more{number}", os.urandom(1 << 20) * 16)

    assert Call(write_on).result(90) in (errno.EIO, errno.EROFS)
    is_failed(volume)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_broken_journal_disk_is_state_failed(disk, make_volume, kind):
    volume = make_volume()
    place = disk(volume.root / "lib", 1 << 30, kind)
    volume.start()
    (volume.dir / "before").write_text("readable")
    volume.wait("applied")
    fd = os.open(place.path, os.O_RDONLY)
    fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
    os.close(fd)
    assert Call(sync_file, volume.dir / "file").result(30) in (errno.EIO, errno.EROFS)
    is_failed(volume)
    assert "journal" in volume.down(check=1).err
    assert not machine.is_mounted(volume.dir)


def test_fsyncs_that_wait_get_eio_when_the_journal_breaks(disk, make_volume):
    volume = make_volume(standby_timeout="60s")
    place = disk(volume.root / "lib", 1 << 30)
    volume.start()
    (volume.dir / "before").write_text("readable")
    volume.wait("applied")
    with volume.stopped_standby():
        pending = [Call(write_and_sync, volume.dir / str(number), b"x") for number in range(4)]
        time.sleep(0.5)
        fd = os.open(place.path, os.O_RDONLY)
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        os.close(fd)
        (volume.dir / "after").write_text("x")
        assert [call.result() for call in pending] == [errno.EIO] * 4
    is_failed(volume)
