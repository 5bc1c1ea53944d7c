# SPDX-License-Identifier: Apache-2.0
"""History is kept through anything: whenever the standby is killed, every living snapshot still is
what a plain copy of the volume was at its moment; and what had to be given up is said to be broken.
"""
import os
import random
import subprocess
import time

import images
import machine
import pytest
import volume as volumes
from load import Call, Load, write_and_sync

SECONDS = float(os.environ.get("TWINSPOOL_HISTORY_SECONDS", "60"))
SEED = os.environ.get("TWINSPOOL_SEED") or str(random.randrange(10**9))
ALIVE = 5  # snapshots at a time
ON_A_FULL_DISK = "history_gave_up"  # has a test of its own


def fault_points():
    try:
        listed = subprocess.run([volumes.PROGRAM, "--fault-points"], capture_output=True, text=True)
    except OSError:
        return []
    names = [name for name in listed.stdout.split() if name.startswith("history_")]
    return [name for name in names if name != ON_A_FULL_DISK]


class Copies:
    """Load on a volume, snapshots while the writers pause, and a plain copy for each.

    A command that was cut short leaves it open whether its snapshot is there (`perhaps`); if it is,
    it must be right.
    """

    def __init__(self, volume, plain):
        self.volume, self.place = volume, volume.base / "copies"
        self.place.mkdir()
        self.copies, self.perhaps, self.number = {}, set(), 0
        self.load = Load(volume, plain, SEED)

    def pause(self):
        self.load.stop()
        self.load.settle()

    def take(self, **options):
        self.pause()
        self.number += 1
        name = f"s{self.number}"
        self.perhaps.add(name)
        taking = Call(lambda: images.take(self.volume, name, check=None, **options))
        taking.join(15)
        self.copies[name] = images.Copy(self.volume.backing(), self.place / name)
        if taking.returned and taking.value.report:
            self.perhaps.discard(name)
        self.load.start()
        return taking

    def destroy(self, name, **options):
        self.perhaps.add(name)
        destroying = Call(lambda: images.destroy(self.volume, name, check=None, **options))
        destroying.join(15)
        if destroying.returned and destroying.value.code == 0:
            self.perhaps.discard(name)
            self.forget(name)
        return destroying

    def forget(self, name):
        self.copies.pop(name).remove()

    def check(self):
        listed = images.listed(self.volume)
        for name in self.perhaps - listed.keys():
            self.forget(name)
        self.perhaps.clear()
        # Fails if a snapshot was lost, or one that was destroyed is back.
        assert set(listed) == set(self.copies), f"seed {SEED}"
        assert not any(row["broken"] or row["incomplete"] for row in listed.values()), listed
        for name, copy in self.copies.items():
            with images.mounted(self.volume, name) as shown:
                found = copy.differences(shown.of())
            # Fails if a change was applied whose before-image was not durable, if one was kept
            # twice and the later won, or if a kept file went too early.
            assert found == [], f"seed {SEED}, {name}:\n" + "\n".join(found)


@pytest.fixture
def copies(make_volume, fresh):
    volume = make_volume(standby_timeout="10s", checkpoint_every="300ms").start()
    copies = Copies(volume, fresh())
    print(f"TWINSPOOL_SEED={SEED}")
    yield copies
    copies.load.close()


@pytest.mark.slow
@pytest.mark.limit(SECONDS + 120)
def test_snapshots_survive_a_standby_killed_at_random_moments(copies):
    volume, chance = copies.volume, random.Random(SEED)
    end, rounds = time.monotonic() + SECONDS, 0
    copies.load.start()
    while time.monotonic() < end:
        rounds += 1
        if len(copies.copies) < ALIVE:
            copies.take()
        for _ in range(chance.randrange(1, 4)):
            time.sleep(0.3 * chance.random())
            volume.kill_standby()
        if len(copies.copies) == ALIVE:
            # The kill may meet the purge of what only this snapshot needed.
            copies.destroy(chance.choice(list(copies.copies)))
            volume.kill_standby()
        volume.wait("in-sync")
        copies.check()
        print(f"TWINSPOOL_SEED={SEED} round {rounds}: {copies.load.steps} operations", flush=True)
    copies.pause()
    for name in list(copies.copies):
        copies.destroy(name)
        copies.check()
    volume.assert_equal()
    assert rounds >= 5


def test_fault_points_of_the_history_are_listed(program):
    assert fault_points(), "a test build lists its fault points"


@pytest.mark.slow
@pytest.mark.limit(240)
@pytest.mark.parametrize("name", fault_points())
def test_snapshots_survive_a_standby_killed_at_the_fault_point(copies, name):
    volume, chance = copies.volume, random.Random(f"{SEED}.{name}")
    reached = False
    copies.load.start()
    for nth in (1, chance.randrange(2, 8)):
        while len(copies.copies) < 3:
            time.sleep(0.3)
            copies.take()
        copies.pause()
        volume.down()
        fault = f"{name}:{nth}"
        logged = len(volume.log_file.read_bytes())
        volume.up(check=None, fault=fault)
        copies.load.start()
        reached = run_into(copies, fault, logged) or reached
        volume.kill_all()
        copies.load.join()
        volume.up()
        copies.load.settle()
        volume.wait("in-sync")
        copies.check()  # at rest: a tree that grows while it is compared is never done
        copies.load.start()
    copies.pause()
    volume.assert_equal()
    assert reached, f"nothing reaches the fault point {name}"


def run_into(copies, fault, logged, seconds=20):
    """Takes and destroys snapshots under load until a process has died of the fault: the standby,
    as the daemon says that starts it again, or a command.
    """
    volume, end, env = copies.volume, time.monotonic() + seconds, {"TWINSPOOL_FAULT": fault}

    def died(command=None):
        by_itself = command and command.returned and command.value and command.value.code == -9
        return by_itself or b"hear from the standby" in volume.log_file.read_bytes()[logged:]

    while time.monotonic() < end:
        time.sleep(0.3)
        if died():
            return True
        copies.take()
        if died() or died(copies.destroy(next(iter(copies.copies)), env=env)):
            return True
    return False


# A standby disk that fills.

FILES, FILE = 16, 4 << 20


def overwrite(volume):
    for number in range(FILES):
        write_and_sync(volume.dir / f"file{number}", os.urandom(FILE))


def refused(volume, name):
    """A broken snapshot is refused in one sentence, and nothing is left of the attempt."""
    place = volume.base / "refused"
    for command, arguments in (("mount", [place]), ("restore", [place / "new"]), ("export", [])):
        place.mkdir()
        done = volume.run(command, f"{volume.name}@{name}", *arguments, check=1)
        assert name in done.err and "broken" in done.err, str(done)
        assert done.out == "", str(done)
        assert not machine.mounts_below(place) and not os.listdir(place)
        place.rmdir()


@pytest.mark.slow
@pytest.mark.limit(400)
def test_a_full_standby_disk_costs_history_and_not_the_replica(disk, make_volume):
    volume = make_volume(standby_timeout="10s")
    place = disk(volume.base / "disk", 300 << 20)
    volume.standby = place.path / "standby"
    volume.start()
    overwrite(volume)
    copies = {}
    for number in range(8):
        name = f"s{number}"
        images.take(volume, name)
        copies[name] = images.Copy(volume.backing(), volume.base / name)
        overwrite(volume)
        # Fails if a replica stands still because its disk is full of history.
        volume.wait("applied", timeout=120)
        volume.wait_state("in-sync", timeout=60)
        assert volume.compare() == []
        check_what_is_whole(volume, copies)
    listed = images.listed(volume)
    broken = [name for name, row in listed.items() if row["broken"]]
    assert broken, f"the disk was never full: {place.free()} bytes are free"
    for name in broken:
        refused(volume, name)
    assert "broken" in volume.run("status", volume.name, check=(0, 3)).text
    for name in broken:
        images.destroy(volume, name)
    assert not any(row["broken"] for row in images.listed(volume).values())
    images.take(volume, "after")
    copies["after"] = images.Copy(volume.backing(), volume.base / "after")
    write_and_sync(volume.dir / "file0", b"changed")
    check_what_is_whole(volume, copies)
    assert not images.listed(volume)["after"]["broken"]
    volume.assert_equal()


@pytest.mark.slow
@pytest.mark.limit(300)
def test_a_standby_killed_while_it_gives_up_history_goes_on(disk, make_volume):
    volume = make_volume()
    place = disk(volume.base / "disk", 300 << 20)
    volume.standby = place.path / "standby"
    volume.create()
    volume.up(fault=ON_A_FULL_DISK)
    volume.wait("in-sync")
    for number in range(8):
        overwrite(volume)
        # Applied, so that it is history that fills the disk and not the journal, which would end the
        # standby in another way.
        volume.run("wait", "vol", "--for", "applied", "--timeout", "30", check=None)
        if "hear from the standby" in volume.log():
            break
        images.take(volume, f"s{number}", check=None)
    else:
        pytest.fail(f"nothing reaches the fault point: {place.free()} bytes are free")
    volume.wait_state("in-sync", timeout=60)
    volume.assert_equal()
    broken = [name for name, row in images.listed(volume).items() if row["broken"]]
    assert broken, "they were said to be broken before the kill"
    for name in broken:
        refused(volume, name)
    images.take(volume, "after")
    copy = images.Copy(volume.backing(), volume.base / "after")
    write_and_sync(volume.dir / "file0", b"changed")
    check_what_is_whole(volume, {"after": copy})


def check_what_is_whole(volume, copies):
    """Fails if an image that is not called broken lacks a before-image that found no room."""
    for name, row in images.listed(volume).items():
        if not row["broken"]:
            with images.mounted(volume, name) as shown:
                assert copies[name].differences(shown.of()) == [], name
