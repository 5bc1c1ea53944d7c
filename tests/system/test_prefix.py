# SPDX-License-Identifier: Apache-2.0
"""A snapshot is a prefix: it holds everything that was acknowledged before its command was given,
and nothing begun after it ended, over two directories on two file systems; whatever was killed, and
whichever other snapshots have been destroyed since.
"""
import os
import random
import time

import images
import machine
import pytest
import steps
from load import Call

SEED = os.environ.get("TWINSPOOL_SEED") or str(random.randrange(10**9))
SNAPSHOTS = 36


class Run:
    """The writers, the snapshots taken of them, and what each snapshot showed when it was new."""

    def __init__(self, volume):
        self.volume, self.moments, self.seen = volume, {}, {}
        self.states = [steps.States(script) for script in steps.SCRIPTS]
        self.writers = [
            steps.Writer(script, [directory / script.__name__ for directory in volume.directories])
            for script in steps.SCRIPTS
        ]
        for writer in self.writers:
            writer.start()

    def go_on(self):
        """After the death of the daemon. Fails if a writer lost what it was told."""
        self.writers = [writer.again() for writer in self.writers]

    def stop(self):
        for writer in self.writers:
            writer.stop()

    def take(self, name, **options):
        moment = images.take(self.volume, name, self.writers, **options)
        if moment.report:
            self.moments[name] = moment
        return moment

    @staticmethod
    def look(shown):
        return [
            steps.picture([shown.of(index) / script.__name__ for index in (0, 1)])
            for script in steps.SCRIPTS
        ]

    def check_new(self, name, shown):
        """To be called in the order in which the snapshots were taken."""
        moment, seen = self.moments[name], self.look(shown)
        for index, (states, picture) in enumerate(zip(self.states, seen)):
            # Too few steps: something acknowledged is missing. Too many: something was begun after
            # the end. A number that no step count explains: a mixture of two moments, a torn or a
            # lost write, a name or an attribute of another time, or an image older than the one
            # before it. The pair of counters is one of the scripts, over both directories.
            assert states.find(
                picture, moment.least[index], moment.most[index]
            ), f"{moment}: {states.script.__name__}: {states.distance(picture)}"
        self.seen[name] = [steps.digest(picture) for picture in seen]

    def check_again(self, name, shown):
        # Fails if an image has changed: an overwrite that kept no before-image, a before-image that
        # went with another snapshot.
        now = [steps.digest(picture) for picture in self.look(shown)]
        assert now == self.seen[name], f"{self.moments[name]} has changed"

    def counters(self, shown):
        """What the pair script has written into both directories: the plainest of the checks."""
        return [
            int.from_bytes((shown.of(index) / "pair/counter").read_bytes(), "little")
            for index in (0, 1)
        ]

    def check_mounted(self, name, check):
        with images.mounted(self.volume, name) as shown:
            # Fails if the two directories are not cut at one instant.
            first, second = self.counters(shown)
            assert second <= first <= second + 1
            check(name, shown)


@pytest.fixture
def volume(disk, make_volume, fresh):
    base = fresh()
    for name, kind in (("mail", "ext4"), ("db", "xfs")):
        disk(base / name, 400 << 20, kind)
    volume = make_volume(base=base, directories=("mail/spool", "db/data"), standby_timeout="20s")
    return volume.start()


@pytest.mark.slow
@pytest.mark.limit(400)
def test_every_snapshot_is_a_prefix(volume):
    print(f"TWINSPOOL_SEED={SEED}")
    chance = random.Random(SEED)
    run = Run(volume)
    time.sleep(1)
    for number in range(SNAPSHOTS):
        name = f"s{number}"
        if number == SNAPSHOTS // 3:
            kill_the_daemon_during_a_snapshot(run, name, chance)
        elif number == SNAPSHOTS * 2 // 3:
            kill_the_standby_during_a_snapshot(run, name, chance)
        else:
            run.take(name)
        if name in run.moments:
            run.check_mounted(name, run.check_new)
        time.sleep(0.2 * chance.random())
    for writer in run.writers:  # Fails if a writer stood still, and the checks with it.
        assert writer.acknowledged > 1000 and writer.wrong is None
    destroy_some(run, chance)
    run.stop()
    # Fails if what is listed is not what there is.
    assert list(images.listed(volume)) == list(run.moments)
    for name in run.moments:
        run.check_mounted(name, run.check_again)
    for name in chance.sample(list(run.moments), 3):
        # Fails if restoring reads otherwise than the view does.
        run.check_again(name, images.restored(volume, name))
    volume.assert_equal()


def destroy_some(run, chance):
    """In any order, while everything goes on; the neighbours are looked at after each."""
    for _ in range(len(run.moments) * 2 // 3):
        name = chance.choice(list(run.moments))
        names = list(run.moments)
        place = names.index(name)
        images.destroy(run.volume, name)
        del run.moments[name]
        for neighbour in names[max(0, place - 1) : place] + names[place + 1 : place + 2]:
            run.check_mounted(neighbour, run.check_again)


def kill_the_daemon_during_a_snapshot(run, name, chance):
    volume = run.volume
    taking = Call(lambda: run.take(name, check=None))
    time.sleep(0.1 * chance.random())
    volume.kill_primary()
    assert taking.result(60) == 0
    volume.up()
    run.go_on()
    volume.wait("in-sync")
    hold_to_what_was_said(run, taking.value)


def kill_the_standby_during_a_snapshot(run, name, chance):
    standby = run.volume.standby_pid
    # 3: the standby is away. It may have the mark all the same.
    taking = Call(lambda: run.take(name, check=(0, 3)))
    time.sleep(0.1 * chance.random())
    machine.kill(standby)
    assert taking.result(60) == 0
    run.volume.wait("in-sync")
    hold_to_what_was_said(run, taking.value)


def hold_to_what_was_said(run, moment):
    there = moment.name in images.listed(run.volume)
    # Fails if a snapshot that was reported is gone.
    assert there or moment.report is None
    if there:  # its mark may be durable although nobody was told; then it must be right
        run.moments[moment.name] = moment


def test_in_mode_async_a_snapshot_is_a_prefix_too(make_volume):
    volume = make_volume(directories=("mail", "db"), mode="async").start()
    run = Run(volume)
    for number in range(6):
        time.sleep(0.2)
        run.take(f"s{number}")
        run.check_mounted(f"s{number}", run.check_new)
    run.stop()
    for name in run.moments:
        run.check_mounted(name, run.check_again)


@pytest.mark.plain
@pytest.mark.parametrize("script", steps.SCRIPTS)
def test_the_check_finds_what_is_missing_and_what_is_too_much(script, fresh):
    base = fresh()
    writer = steps.Writer(script, [base / "0", base / "1"])
    writer.start()
    while writer.acknowledged < 700 and writer.is_alive():
        time.sleep(0.01)
    writer.settle()
    seen, done = steps.picture(writer.homes), writer.acknowledged
    assert steps.States(script).find(seen, done - 20, done + 20)
    assert not steps.States(script).find(seen, done + 5, done + 20), "acknowledged, and missing"
    assert not steps.States(script).find(seen, done - 20, done - 5), "begun later, and there"


@pytest.mark.plain
def test_the_check_finds_a_mixture_of_two_moments():
    early, late = steps.States(steps.pair), steps.States(steps.pair)
    early.go_to(500), late.go_to(520)
    mixed = {path: what for path, what in early.model.files.items() if path.startswith("0/")}
    mixed |= {path: what for path, what in late.model.files.items() if path.startswith("1/")}
    assert not steps.States(steps.pair).find(mixed, 0, 1000)
