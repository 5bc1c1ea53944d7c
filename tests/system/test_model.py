# SPDX-License-Identifier: Apache-2.0
"""Long random sequences of operations from several threads, against a plain directory as the model.
"""
import os
import random
import threading
import time

import model
import pytest

SECONDS = float(os.environ.get("TWINSPOOL_MODEL_SECONDS", "40"))
SEED = os.environ.get("TWINSPOOL_SEED") or str(random.randrange(10**9))
THREADS = 4


def play(volume, plain, seed, seconds, users=True):
    """Each thread has a tree of its own, and all have one together, where they take turns."""
    turn, pairs = threading.Lock(), []
    for number in range(THREADS):
        for name, lock in ((f"own{number}", None), ("shared", turn)):
            for root in (volume.dir, plain):
                (root / name).mkdir(exist_ok=True)
                (root / name).chmod(0o777)
            script = model.Script(f"{seed}.{number}.{name}", users=users)
            pairs.append(model.Pair(volume.dir / name, plain / name, script, lock))
    end = time.monotonic() + seconds
    ended = threading.Event()

    def work(own, shared):
        while time.monotonic() < end and not ended.is_set():
            for pair in (own, own, own, shared):
                if not pair.step():
                    ended.set()
                    return

    threads = [
        threading.Thread(target=work, args=pairs[number : number + 2])
        for number in range(0, len(pairs), 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pair in pairs:
        pair.close()
    again = f"TWINSPOOL_SEED={seed}"
    print(f"{again}: {sum(pair.steps for pair in pairs)} operations")
    wrong = [pair.wrong for pair in pairs if pair.wrong]
    assert not wrong, again + "\n" + "\n".join(wrong)
    assert model.differences(model.picture(plain), model.picture(volume.dir))[:20] == [], again
    volume.assert_equal()


@pytest.mark.slow
@pytest.mark.limit(SECONDS + 120)
def test_the_overlay_does_what_the_plain_directory_does(volume, fresh):
    play(volume, fresh(), SEED, SECONDS)
    volume.down()
    assert volume.compare() == []


@pytest.mark.slow
@pytest.mark.limit(SECONDS + 120)
@pytest.mark.parametrize("transport", ["io_uring", "dev"])
def test_it_does_so_in_mode_every_too(make_volume, fresh, transport):
    play(make_volume(mode="every", transport=transport).start(), fresh(), SEED, SECONDS / 4)


@pytest.mark.slow
@pytest.mark.limit(SECONDS + 120)
def test_it_does_so_while_being_seeded(make_volume, fresh):
    """What the walker has not reached yet is changed, renamed and removed under it."""
    volume, plain = make_volume(), fresh()
    for name in [f"own{number}" for number in range(THREADS)] + ["shared"]:
        for root in (volume.dir, plain):
            (root / name).mkdir(mode=0o777)
        pair = model.Pair(
            volume.dir / name, plain / name, model.Script(f"{SEED}.{name}", users=False)
        )
        while pair.steps < 3000:
            assert pair.step(), pair.wrong
        pair.close()
    volume.create()
    volume.up()
    play(volume, plain, f"{SEED}.seeding", SECONDS / 4)
    volume.wait("in-sync")
    volume.assert_equal()
