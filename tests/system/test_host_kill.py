# SPDX-License-Identifier: Apache-2.0
"""Either host's process killed at every named fault point, in handshake, seeding, resync and
streaming; a power cut of the primary with a tail on the standby that it lacks.
"""
import fcntl
import os
import random
import struct
import subprocess
import time

import machine
import pytest
import volume as volumes
from load import Call, Deliveries, Load, write_and_sync

SEED = os.environ.get("TWINSPOOL_SEED") or str(random.randrange(10**9))
# All of them, each more than once: the standby's own are also killed as a local process in
# test_kill.py.
THOROUGH = "TWINSPOOL_HOST_KILL_ALL" in os.environ
EXT4_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSH = 2


def fault_points():
    try:
        listed = subprocess.run([volumes.PROGRAM, "--fault-points"], capture_output=True, text=True)
    except OSError:
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


ON_STANDBY = ("receiver_", "applier_", "standby_", "history_", "resync_")
# Which scene leads there; those of recovery and history are test_kill's and test_history's.
SCENES = {
    "handshake": ("sender_greeted", "sender_welcomed", "receiver_helloed"),
    "streaming": (
        *("mutation_noted", "mutation_acted", "mutation_logged"),
        *("writer_sealed", "writer_submitted", "writer_durable", "writer_new_segment"),
        *("commit_advanced", "checkpoint_synced"),
        *("receiver_written", "receiver_acked"),
        *("applier_begin", "applier_placed", "applier_removed", "applier_contents"),
        *("applier_synced", "applier_committed"),
    ),
    "seeding": (
        *("walker_told", "walker_finished", "receiver_started_over"),
        *("receiver_written", "applier_begin", "applier_synced", "applier_committed"),
    ),
    "resync": (
        *("receiver_resynced", "resync_begun", "resync_answered", "walker_told"),
        *("walker_finished", "applier_begin", "applier_contents", "applier_committed"),
    ),
    "loss": ("fence_succeeded", "alone_durable"),
}
# A primary that was killed is not cut, or not by more than a segment, in any test of whole hosts.
ELSEWHERE = ("recovery_", "history_", "mark_", "receiver_cut")


def known(scene):
    return [name for name in SCENES[scene] if name in fault_points()]


def is_on_standby(name):
    return name.startswith(("receiver_", "applier_", "resync_begun"))


def test_every_fault_point_has_a_scene(program):
    named = {name for names in SCENES.values() for name in names}
    left = [name for name in fault_points() if name not in named]
    assert [name for name in left if not name.startswith(ELSEWHERE)] == []
    assert [name for name in named if name not in fault_points()] == []


class Victim:
    """Started with a fault point; `died` once it has been reached."""

    def __init__(self, volume, point):
        self.volume, self.point = volume, point
        self.name = point.split(":")[0]

    def start(self):
        if is_on_standby(self.name):
            self.volume.host.kill()
            self.volume.host.start(fault=self.point, check=None)
        else:
            machine.kill(*self.volume.primary.processes())
            self.volume.up(fault=self.point, check=None)
        return self

    def died(self):
        if is_on_standby(self.name):
            return not self.volume.host.processes()
        return not self.volume.primary.processes()

    def wait(self, seconds):
        deadline = time.monotonic() + seconds * volumes.PATIENCE
        while not self.died():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def revive(self):
        """Both sides run, without a fault point."""
        if is_on_standby(self.name):
            self.volume.host.kill()
            self.volume.host.start()
        else:
            machine.kill(*self.volume.primary.processes())
        self.volume.up(check=(0, 3))


@pytest.fixture(scope="module")
def shared(make_shared_hosted):
    print(f"TWINSPOOL_SEED={SEED}")
    volume = make_shared_hosted(standby_timeout="2s", checkpoint_every="300ms").start()
    yield volume
    volume.wait_state("in-sync", timeout=30)
    volume.down()
    assert volume.compare() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", known("streaming") + known("handshake"))
def test_killed_while_streaming(shared, fresh, name):
    volume = shared
    chance = random.Random(f"{SEED}.{name}")
    rare = name in SCENES["handshake"] or name in ("writer_new_segment", "checkpoint_synced")
    # The applier takes few and large strides, and rests in between.
    latest = 2 if rare else 4 if name.startswith("applier") else 20
    victim = Victim(volume, f"{name}:{chance.randrange(1, latest)}")
    print(f"TWINSPOOL_SEED={SEED} {victim.point}")
    volume.up(check=(0, 3))
    load = Load(volume, fresh(), SEED, writers=2)
    try:
        victim.start()
        if not victim.died():
            load.start()
            if name == "writer_new_segment":
                Call(write_and_sync, volume.dir / "large", os.urandom(6 << 20))
            assert victim.wait(40), f"nothing reaches {victim.point}"
            if is_on_standby(name):
                load.stop()
            else:
                load.join()
        victim.revive()
        load.settle()
        volume.wait_state("in-sync", timeout=30)
        for home, _ in load.homes:
            volume.assert_equal(below=home.name)
    finally:
        load.close()


# Seeding: an empty store, and deliveries meanwhile.


@pytest.mark.slow
@pytest.mark.parametrize("name", known("seeding"))
def test_killed_while_seeding(shared, name):
    volume, host = shared, shared.host
    nth = 1 if name in ("walker_finished", "receiver_started_over") else 2
    victim = Victim(volume, f"{name}:{nth}")
    home = volume.dir / f"seeding.{name}"
    volume.up(check=(0, 3))
    home.mkdir()
    for number in range(50):
        (home / str(number)).write_bytes(os.urandom(20_000))
    volume.wait_state("in-sync", timeout=30)
    host.kill()
    host.store.rename(volume.base / f"store before {name}")
    host.store.mkdir()
    deliveries = Deliveries(home, threads=1, pause=0.01)
    if is_on_standby(name):
        victim.start()
    else:
        machine.kill(*volume.primary.processes())
        deliveries.stop()
        host.start()
        victim.start()
    assert victim.wait(30), f"nothing reaches {victim.point}"
    if is_on_standby(name):
        assert volume.state != "in-sync"
    else:
        assert host.state != "in-sync"
    victim.revive()
    volume.wait_state("in-sync", timeout=60)
    deliveries.stop()
    volume.assert_equal(below=home.name)
    deliveries.assert_in(home, host.replica() / home.name)


# Resync: the journal no longer reaches back to where the standby is.


@pytest.fixture(scope="module")
def small(make_shared_hosted):
    volume = make_shared_hosted(standby_timeout="1s", journal_limit="16MiB")
    for number in range(40):
        (volume.dir / str(number)).write_bytes(os.urandom(100_000))
    volume.start()
    yield volume
    volume.wait_state("in-sync", timeout=30)
    volume.down()
    assert volume.compare() == []


@pytest.mark.slow
@pytest.mark.parametrize("name", known("resync"))
def test_killed_while_resyncing(small, name):
    volume, host = small, small.host
    victim = Victim(volume, f"{name}:1")
    volume.up(check=(0, 3))
    volume.wait_state("in-sync", timeout=30)
    host.kill()
    write_and_sync(volume.dir / "alone", name.encode())
    volume.wait_state("degraded")
    for _ in range(5):
        write_and_sync(volume.dir / "churn", os.urandom(5 << 20))
    for number in range(0, 40, 7):
        with open(volume.dir / str(number), "r+b") as file:
            file.seek(50_000)
            file.write(os.urandom(1000))
    if is_on_standby(name):
        victim.start()
    else:
        machine.kill(*volume.primary.processes())
        volume.up(fault=victim.point, check=None)
        host.start()
    assert victim.wait(30), f"nothing reaches {victim.point}"
    victim.revive()
    volume.wait_state("in-sync", timeout=60)
    volume.assert_equal()
    assert "before-resync-" not in host.run("list", "vol", check=(0, 3)).out


# Loss.


@pytest.mark.slow
@pytest.mark.parametrize("name", known("loss"))
def test_killed_while_going_alone(make_hosted, name):
    volume = make_hosted(standby_timeout="1s")
    volume.create()
    volume.configure(fence_peer="true")
    volume.host.start()
    volume.up(fault=name)
    volume.wait("in-sync")
    deliveries = Deliveries(volume.dir, threads=2)
    time.sleep(0.2)
    victim = Victim(volume, name)
    with volume.host.unplugged():
        assert victim.wait(15), f"nothing reaches {name}"
        deliveries.stop()
        volume.up(check=(0, 3), timeout=90)
        # Whether alone or not, the state says which, and nothing is acknowledged before.
        assert volume.state != "in-sync"
        write_and_sync(volume.dir / "later", b"x")
        assert volume.state == "degraded"
        for path, content in deliveries.acknowledged.items():
            assert (volume.dir / "new" / path).read_bytes() == content
    volume.wait_state("in-sync", timeout=30)
    volume.assert_equal()
    deliveries.assert_in(volume.host.replica())


# Power.


def power_cut(volume, disk):
    """Nothing that is not on the disk now will be there; what the standby had before stays its."""
    fd = os.open(disk.path, os.O_RDONLY)
    fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
    os.close(fd)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_tail_that_a_power_cut_took_from_the_primary_is_cut_back(disk, make_hosted, kind):
    volume = make_hosted(standby_timeout="2s")
    place = disk(volume.root / "lib", 1 << 30, kind)
    volume.start()
    for number in range(20):
        write_and_sync(volume.dir / str(number), os.urandom(3000))
    volume.wait("applied")
    with volume.host.stopped():
        # Long enough for the frame to be in the standby's socket, and nowhere on the primary.
        power_cut(volume, place)
        lost = Call(write_and_sync, volume.dir / "not acknowledged", b"x" * 3000)
        lost.join(1)
    lost.join(10)
    assert not lost.returned or lost.error, "acknowledged without a disk"
    machine.kill(*volume.primary.processes())
    lost.join(10)
    machine.unmount_below(volume.dir)
    volume.tail().unlink(missing_ok=True)
    machine.unmount_below(volume.run_dir)
    subprocess.run(["umount", "-l", place.path], check=True)
    subprocess.run(["mount", place.device, place.path], check=True)
    (volume.dir / "not acknowledged").unlink(missing_ok=True)
    volume.up(check=(0, 3))
    volume.wait_state("in-sync", timeout=30)
    assert "were lost by the primary, and go" in volume.host.log()
    write_and_sync(volume.dir / "after", b"x")
    volume.assert_equal()
    assert "fork" not in volume.log()
