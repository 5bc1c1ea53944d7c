# SPDX-License-Identifier: Apache-2.0
"""A standby host that was away for longer than the journal reaches: it keeps its tree, and gets
only what differs. The primary's journal stays within its limit meanwhile.
"""
import os
import random
import time

import pytest
from load import Deliveries, Load, write_and_sync

TREE_MIB = int(os.environ.get("TWINSPOOL_RESYNC_MIB", "300"))
SEED = os.environ.get("TWINSPOOL_SEED") or str(random.randrange(10**9))
LIMIT_MIB = 32


def churn(volume, mib):
    """Journal, and nothing that stays."""
    for number in range(mib // 4):
        write_and_sync(volume.dir / "churn", os.urandom(4 << 20))
        bytes_now = volume.status()["journal"]["bytes"]
        assert bytes_now <= (LIMIT_MIB + 4) << 20, f"the journal has {bytes_now} bytes"
    (volume.dir / "churn").unlink()


def leave_behind(volume, mib=2 * LIMIT_MIB):
    """The standby host away until the journal has given it up."""
    volume.host.kill()
    write_and_sync(volume.dir / "alone", b"x")
    volume.wait_state("degraded")
    churn(volume, mib)


def big(make_hosted, **config):
    return make_hosted(standby_timeout="1s", journal_limit=f"{LIMIT_MIB}MiB", **config)


def letters(directory, count, size, seed):
    chance = random.Random(seed)
    for number in range(count):
        home = directory / f"box{number % 10}"
        home.mkdir(exist_ok=True)
        (home / f"{number}").write_bytes(chance.randbytes(size))


def wait_resynced(volume, timeout=60):
    volume.wait_state("in-sync", timeout=timeout)
    volume.host.wait_until(lambda status: status["state"] == "in-sync", "the standby is in sync")


@pytest.mark.slow
@pytest.mark.limit(200 + TREE_MIB // 4)
def test_only_what_differs_is_sent(make_hosted):
    volume = big(make_hosted)
    letters(volume.dir, TREE_MIB, 1 << 20, SEED)
    volume.create()
    volume.host.start()
    volume.up()
    volume.wait("in-sync", timeout=60 + TREE_MIB // 4)
    volume.wait("applied", timeout=60)
    leave_behind(volume)
    chance = random.Random(SEED)
    changed = TREE_MIB // 100 << 20
    for _ in range(changed // 65536):
        number = chance.randrange(TREE_MIB)
        with open(volume.dir / f"box{number % 10}" / f"{number}", "r+b") as file:
            file.seek(chance.randrange(15) * 65536)
            file.write(chance.randbytes(65536))
    before = volume.standby_status()["sent_bytes"]
    volume.host.start()
    begin = time.monotonic()
    wait_resynced(volume, timeout=60 + TREE_MIB // 4)
    sent = volume.standby_status()["sent_bytes"] - before
    print(
        f"{TREE_MIB} MiB, {changed >> 10} KiB changed, {sent >> 10} KiB sent "
        f"in {time.monotonic() - begin:.1f} s"
    )
    volume.assert_equal()
    assert sent < 2 * changed + (2 << 20)


def test_it_says_resyncing_and_keeps_what_it_had(make_hosted):
    volume = big(make_hosted)
    letters(volume.dir, 60, 1 << 20, SEED)
    volume.start()
    write_and_sync(volume.dir / "letter", b"old")
    volume.run("snapshot", "vol@named")
    volume.wait("applied")
    leave_behind(volume)
    write_and_sync(volume.dir / "letter", b"new")
    volume.configure(rate_limit="8MiB")
    volume.down(check=(0, 3))
    volume.up(check=(0, 3))
    host = volume.host
    host.start()
    host.wait_until(lambda status: status["state"] == "resyncing", "resyncing")
    listed = host.run("list", "vol").out
    assert "before-resync-" in listed and "named" in listed
    name = next(word for word in listed.split() if "before-resync-" in word).split("@")[-1]
    place = volume.base / "as it was"
    host.run("restore", f"vol@{name}:{volume.dir}", place)
    assert (place / "letter").read_bytes() == b"old"
    wait_resynced(volume)
    volume.assert_equal()
    listed = host.run("list", "vol").out
    assert "before-resync-" not in listed and "named" in listed
    place = volume.base / "named"
    host.run("restore", f"vol@named:{volume.dir}", place)
    assert (place / "letter").read_bytes() == b"old" and not (place / "alone").exists()


@pytest.mark.slow
def test_resync_while_everything_changes(make_hosted, fresh):
    volume = big(make_hosted)
    letters(volume.dir, 200, 40_000, SEED)
    volume.start()
    load = Load(volume, fresh(), SEED, writers=2, pause=0.001).start()
    try:
        time.sleep(1)
        volume.wait("applied")
        leave_behind(volume)
        deliveries = Deliveries(volume.dir, threads=2, seed=SEED)
        # What differs in every way: content, size, names, attributes, kinds, links.
        for number in range(0, 200, 10):
            os.unlink(volume.dir / "box0" / str(number))
        for number in range(1, 200, 10):
            os.truncate(volume.dir / "box1" / str(number), 100)
        for number in range(2, 200, 10):
            os.chmod(volume.dir / "box2" / str(number), 0o600)
            os.setxattr(volume.dir / "box2" / str(number), "user.seen", b"1")
        os.rename(volume.dir / "box3", volume.dir / "renamed")
        for number in range(4, 200, 10):
            os.link(volume.dir / "box4" / str(number), volume.dir / "box5" / f"link{number}")
        for number in range(6, 200, 10):
            os.unlink(volume.dir / "box6" / str(number))
            os.mkdir(volume.dir / "box6" / str(number))
        volume.host.start()
        wait_resynced(volume)
        deliveries.stop()
        load.stop()
        load.settle()
        volume.assert_equal()
        deliveries.assert_in(volume.dir, volume.host.replica())
    finally:
        load.close()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["primary", "standby", "both", "link"])
def test_a_resync_that_is_interrupted_goes_on(make_hosted, victim):
    volume = big(make_hosted, rate_limit="16MiB")
    letters(volume.dir, 48, 1 << 20, SEED)
    volume.start()
    leave_behind(volume)
    letters(volume.dir, 48, 4000, f"{SEED} again")
    host = volume.host
    host.start()
    host.wait_until(lambda status: status["state"] == "resyncing", "resyncing")
    deliveries = Deliveries(volume.dir, threads=1)
    time.sleep(0.7)
    if victim in ("standby", "both"):
        host.kill()
    if victim in ("primary", "both"):
        volume.kill_primary()
    if victim == "link":
        with host.unplugged():
            time.sleep(2)
    if victim in ("standby", "both"):
        host.start()
        assert host.state != "in-sync"
    if victim in ("primary", "both"):
        deliveries.stop()
        volume.up(check=(0, 3))
    wait_resynced(volume)
    deliveries.stop()
    volume.assert_equal()
    deliveries.assert_in(volume.dir, host.replica())
    assert "before-resync-" not in host.run("list", "vol", check=(0, 3)).out


def test_an_emptied_store_starts_over(hosted):
    host = hosted.host
    letters(hosted.dir, 30, 3000, SEED)
    hosted.wait("applied")
    host.down()
    host.store.rename(hosted.base / "away")
    host.store.mkdir()
    host.start()
    hosted.wait_state("in-sync", timeout=30)
    hosted.assert_equal()
