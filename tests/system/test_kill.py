# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of the primary, the standby or both, at random moments and at every fault point, under
load.

Afterwards nothing that a program was told is lost, synced or not, and the trees are equal.
"""
import os
import random
import signal
import subprocess
import time

import machine
import pytest
import volume as volumes
from load import Call, Load

SECONDS = float(os.environ.get("TWINSPOOL_KILL_SECONDS", "90"))
SEED = os.environ.get("TWINSPOOL_SEED") or str(random.randrange(10**9))

ELSEWHERE = (
    *("history_", "mark_", "fence_", "resync_"),
    *("receiver_cut", "receiver_resynced", "receiver_started_over"),
)


def fault_points():
    """What the test build lists; known when the tests are collected, so that each is a test. Those of
    snapshots are test_history's and test_snapshot's, those that need a fence, a resync or a cut
    test_host_kill's.
    """
    try:
        listed = subprocess.run([volumes.PROGRAM, "--fault-points"], capture_output=True, text=True)
    except OSError:
        return []
    names = listed.stdout.split() if listed.returncode == 0 else []
    return [name for name in names if not name.startswith(ELSEWHERE)]


@pytest.fixture(scope="module")
def shared(make_shared_volume, fresh):
    """One volume for all rounds, so that each also begins with what the one before left."""
    # Often a new segment, often a checkpoint: what is rare in life shall not be rare here.
    volume = make_shared_volume(standby_timeout="2s", checkpoint_every="300ms").start()
    print(f"TWINSPOOL_SEED={SEED}")
    yield volume
    volume.up(check=(0, 3))
    volume.wait("in-sync")
    volume.down()
    assert volume.compare() == []


@pytest.fixture
def load(shared, fresh):
    """Each test has writers of its own, so that what one got wrong is not held against the next."""
    shared.up(check=(0, 3))
    load = Load(shared, fresh(), SEED)
    yield load
    load.close()


def recover(volume, load):
    load.join()
    volume.up()
    load.settle()
    volume.wait("in-sync")
    volume.assert_equal()  # also what was there before: a seed tells of all of it


@pytest.mark.slow
@pytest.mark.limit(SECONDS + 120)
def test_killed_at_random_moments(shared, load):
    volume = shared
    chance = random.Random(SEED)
    end, rounds = time.monotonic() + SECONDS, 0
    volume.up(check=(0, 3))
    while time.monotonic() < end:
        rounds += 1
        load.start()
        time.sleep(chance.choice((0.02, 0.1, 0.5, 1.5)) * chance.random())
        victim = chance.choice(("primary", "standby", "both", "up", "twice"))
        print(
            f"TWINSPOOL_SEED={SEED} round {rounds}: {victim} after {load.steps} operations",
            flush=True,
        )
        if victim == "standby":
            volume.kill_standby()
            time.sleep(0.3 * chance.random())
            load.stop()
            load.settle()
            volume.wait("in-sync")
            for home, _ in load.homes:
                volume.assert_equal(below=home.name)
            continue
        if victim == "primary":
            volume.kill_primary()
        else:
            volume.kill_all()
        for _ in range({"up": 1, "twice": 3}.get(victim, 0)):
            call = Call(lambda: volume.up(check=None))
            time.sleep(0.4 * chance.random())
            machine.kill(*volume.processes())
            call.join(30)
        recover(volume, load)
    print(f"{rounds} rounds")
    assert rounds >= 10


def test_fault_points_are_listed(program):
    assert fault_points(), "a test build lists its fault points"


@pytest.mark.slow
@pytest.mark.parametrize("name", fault_points())
def test_killed_at_the_fault_point(shared, load, name):
    volume = shared
    chance = random.Random(f"{SEED}.{name}")
    reached = False
    # The third time only if need be: what happens once a segment may take its time to come.
    for nth, seconds in ((1, 4), (chance.randrange(2, 20), 4), (1, 30)):
        if reached and seconds > 4:
            break
        prepare(volume, load, name, nth)
        logged = len(volume.log_file.read_bytes())
        volume.up(check=None, fault=f"{name}:{nth}")
        died = run_into(volume, load, name, logged, seconds)
        reached = reached or died
        print(
            f"TWINSPOOL_SEED={SEED} {name}:{nth}: {'died' if died else 'not reached'} after {load.steps} operations"
        )
        volume.kill_all()
        recover(volume, load)
    assert reached, f"nothing reaches the fault point {name}"


def prepare(volume, load, name, nth):
    """Leaves what the next `up` has work with: a journal to recover, changes underneath, and for
    the walker a standby that has to be seeded.
    """
    volume.up(check=(0, 3))
    if name.startswith("walker"):
        volume.down()
        volume.standby.rename(volume.base / f"standby before {name}{nth}")
        volume.standby.mkdir()
        volume.up()
    if name.startswith("recovery"):
        volume.down()
        volume.up(check=None, fault="mutation_acted:200")  # an operation is in flight for sure
    load.start()
    if name.startswith("recovery"):
        load.join()
    time.sleep(0.1)
    volume.kill_all()
    load.join()
    for number in range(30):
        (volume.backing() / f"underneath {name}:{nth} {number}").write_text("new")


def run_into(volume, load, name, logged, seconds):
    """Load, then `down`, until a process of the volume has died; the daemon says so of a standby,
    which it starts again.
    """

    def standby_died():
        return b"hear from the standby" in volume.log_file.read_bytes()[logged:]

    if not volume.processes() or standby_died():
        return True
    primary = volume.primary_pid
    try:
        load.settle()
    except OSError:
        return True  # looking was enough
    load.start()
    if name.startswith("alone"):
        os.kill(volume.standby_pid, signal.SIGSTOP)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not machine.alive(primary) or standby_died():
            return True
        time.sleep(0.05)
    load.close()
    volume.down(check=None, timeout=60)
    return standby_died()
