# SPDX-License-Identifier: Apache-2.0
"""A bad network between two hosts: cut and restored in the middle of load, delayed, slow, and one
that damages what it carries. Nothing acknowledged is lost, and nothing wrong is ever in the
replica.
"""
import os
import random
import time

import pytest
import volume as volumes
from hosts import standby_has
from load import Call, Deliveries, Load, write_and_sync
from proxy import DAMAGES, DOWNSTREAM, UPSTREAM

ROUNDS = int(os.environ.get("TWINSPOOL_LINK_ROUNDS", "16"))
STORM_SECONDS = float(os.environ.get("TWINSPOOL_STORM_SECONDS", "4"))
SEED = os.environ.get("TWINSPOOL_SEED") or str(random.randrange(10**9))
CUTS = "fin", "rst", "silent", "cable"


def assert_claim_holds(volume, deliveries, word="in-sync"):
    """If the state says that there are two copies, then of everything that was acknowledged before
    it was asked. Returns whether it did.
    """
    names = deliveries.names()[-300:]
    if volume.state != word:
        return False
    missing = set(names) - standby_has(volume.host, names)
    assert not missing, f"{len(missing)} of {len(names)} have one copy while it says {word}"
    return True


def cut(volume, how, seconds):
    if how == "cable":
        with volume.host.unplugged():
            time.sleep(seconds)
    elif how == "silent":
        # The connections that there are die in silence; a new one would come through.
        volume.proxy.cut("silent")
        time.sleep(seconds)
        volume.proxy.cut("rst")
    else:
        with volume.proxy.unplugged(how):
            time.sleep(seconds)


@pytest.mark.slow
@pytest.mark.limit(120 + 4 * ROUNDS)
def test_cut_and_restored_in_the_middle_of_load(make_hosted, fresh):
    print(f"TWINSPOOL_SEED={SEED}")
    chance = random.Random(SEED)
    volume = make_hosted(proxy=True, seed=SEED, standby_timeout="1s", checkpoint_every="300ms")
    volume.start()
    load = Load(volume, fresh(), SEED, writers=2, pause=0.002).start()
    deliveries = Deliveries(volume.dir, threads=2, seed=SEED)
    degraded = claims = 0
    try:
        for number in range(ROUNDS):
            how = chance.choice(CUTS)
            seconds = chance.choice((0.05, 0.3, 0.9, 2.5)) * chance.random()
            print(f"round {number}: {how} for {seconds:.2f} s", flush=True)
            cut(volume, how, seconds)
            degraded += volume.state == "degraded"
            claims += assert_claim_holds(volume, deliveries)
            if number % 3 == 2:
                volume.wait_state("in-sync", timeout=30)
                assert assert_claim_holds(volume, deliveries) or volume.state != "in-sync"
        volume.wait_state("in-sync", timeout=30)
        deliveries.stop()
        load.stop()
        load.settle()
        claims += assert_claim_holds(volume, deliveries)
        assert claims, "it never said in-sync"
        assert not deliveries.errors
        print(f"{len(deliveries.acknowledged)} deliveries, degraded {degraded} times")
        volume.assert_equal()
        deliveries.assert_in(volume.dir, volume.host.replica())
    finally:
        load.close()


@pytest.mark.slow
def test_cut_while_both_die_nothing_acknowledged_in_sync_is_lost(make_hosted):
    """The primary's disk is gone at a moment when it said in-sync: the standby has everything."""
    volume = make_hosted(proxy=True, seed=SEED, standby_timeout="1s").start()
    for number in range(3):
        deliveries = Deliveries(volume.dir, threads=3, tag=f"m{number}")
        time.sleep(0.3)
        volume.proxy.cut(CUTS[number])
        if CUTS[number] == "silent":
            volume.wait_state("degraded", "in-sync", timeout=10)
            volume.proxy.cut("rst")
        volume.wait_state("in-sync", timeout=20)
        names, said = deliveries.names(), volume.state
        volume.kill_all()
        deliveries.stop()
        volume.host.run("standby", "vol", "--once", "--tail")
        if said == "in-sync":
            there = os.listdir(volume.host.replica() / "new")
            assert set(names) <= set(there)
        volume.host.start()
        volume.up(check=(0, 3))
        volume.wait_state("in-sync", timeout=30)
        volume.assert_equal()
        deliveries.assert_in(volume.dir, volume.host.replica())


def test_a_slow_and_distant_standby_is_in_sync(make_hosted):
    volume = make_hosted(proxy=True)
    volume.proxy.delay = 0.025
    volume.start()
    begin = time.monotonic()
    write_and_sync(volume.dir / "file", b"x")
    assert time.monotonic() - begin > 0.045, "an fsync is a round trip"
    deliveries = Deliveries(volume.dir, threads=8)
    time.sleep(2)
    volume.proxy.rate = 200_000
    time.sleep(2)
    volume.proxy.rate = None
    deliveries.stop()
    assert volume.state == "in-sync" and "degraded" not in volume.log()
    volume.assert_equal()
    deliveries.assert_in(volume.host.replica())


# Damage. TLS has to catch it, and, with TLS off in the test build, the frames' checksums.


@pytest.fixture(scope="module", params=["tls", "plaintext"])
def damaged(request, make_shared_hosted):
    env = {"TWINSPOOL_PLAINTEXT": "1"} if request.param == "plaintext" else {}
    volume = make_shared_hosted(proxy=True, seed=SEED, standby_timeout="3s", env=env)
    (volume.dir / request.param).mkdir()
    volume.start()
    print(f"TWINSPOOL_SEED={SEED}")
    yield volume
    volume.proxy.storm(0)
    volume.wait_state("in-sync", timeout=30)
    volume.down()
    assert volume.compare() == []


@pytest.mark.parametrize("way", [DOWNSTREAM, UPSTREAM])
@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_on_the_way_ends_the_link_and_nothing_else(damaged, kind, way):
    volume = damaged
    # Downstream a chunk that holds a frame, and not only its first bytes.
    least = 600 if way == DOWNSTREAM else 1
    home = volume.dir / f"{kind} {way}"
    home.mkdir()
    deliveries = Deliveries(home, threads=2, tag=kind)
    accepted = volume.proxy.accepted
    fault = volume.proxy.damage(kind, way, least)
    assert fault.done.wait(20), "nothing of that size came by"
    if (volume.dir / "tls").exists():
        volume.wait_until(lambda _: volume.proxy.accepted > accepted, "TLS has seen it", 20)
    time.sleep(0.3)
    deliveries.stop()
    volume.wait_state("in-sync", timeout=30)
    assert not deliveries.errors
    volume.assert_equal()
    deliveries.assert_in(home, volume.host.replica() / home.name)


@pytest.mark.slow
def test_a_storm_of_damage(damaged):
    volume = damaged
    home = volume.dir / "storm"
    home.mkdir()
    deliveries = Deliveries(home, threads=3, tag="storm", seed=SEED)
    volume.proxy.storm(0.02, least=200)
    end = time.monotonic() + STORM_SECONDS
    while time.monotonic() < end:
        time.sleep(0.25)
        assert_claim_holds_below(volume, deliveries, home)
    volume.proxy.storm(0)
    volume.proxy.cut("rst")
    deliveries.stop()
    volume.wait_state("in-sync", timeout=30)
    print(f"{len(volume.proxy.done)} damages, {volume.proxy.accepted} links")
    volume.assert_equal()
    deliveries.assert_in(home, volume.host.replica() / "storm")


def assert_claim_holds_below(volume, deliveries, home):
    """Whatever is in the replica is what was delivered: never a byte of something else."""
    replica = volume.host.replica() / home.name / "new"
    if not replica.exists():
        return
    for name in os.listdir(replica)[-50:]:
        content = deliveries.acknowledged.get(name)
        assert content is None or (replica / name).read_bytes() == content


def test_damage_in_the_handshake(make_hosted):
    """Of TLS, and of the greeting behind it."""
    volume = make_hosted(proxy=True, seed=SEED, standby_timeout="2s").start()
    write_and_sync(volume.dir / "file", b"x")
    for kind in DAMAGES:
        for way in (DOWNSTREAM, UPSTREAM):
            fault = volume.proxy.damage(kind, way)
            volume.proxy.cut("fin")
            assert fault.done.wait(20)
    volume.wait_state("in-sync", timeout=40)
    write_and_sync(volume.dir / "after", b"x")
    volume.assert_equal()


# A standby whose bytes differ is told at once.


def test_a_flipped_byte_in_the_standbys_journal_is_told_at_once(make_hosted):
    """In the data of a write: its frame is sound but for the checksum that the ack is made of."""
    volume = make_hosted(standby_timeout="4s").start()
    volume.host.kill()
    ahead = volume.status()["journal"]["appended_lsn"] + 20
    volume.host.start(env={"TWINSPOOL_FLIP": str(ahead)})
    volume.wait_state("in-sync")

    def overwrite():
        fd = os.open(volume.dir / "file", os.O_CREAT | os.O_RDWR)
        for _ in range(40):
            os.pwrite(fd, os.urandom(4096), 0)
            os.fsync(fd)
        os.close(fd)

    call = Call(overwrite)
    told = volume.wait_until(
        lambda status: "differ" in (status["standbys"][0].get("trouble") or ""), "told", 20
    )
    assert told["state"] != "in-sync"
    assert "differ" in volume.primary.log() and "differ" in volume.host.log()
    assert call.result() == 0
    # What it has is put right: from the last frame on whose bytes both agree.
    volume.wait_state("in-sync", timeout=30)
    volume.assert_equal()


def test_an_fsync_in_flight_returns_once_when_the_link_is_cut(make_hosted):
    volume = make_hosted(proxy=True, standby_timeout="60s").start()
    for how in ("fin", "rst"):
        volume.proxy.silent = True
        pending = [Call(write_and_sync, volume.dir / f"{how}{n}", b"x" * 500) for n in range(16)]
        time.sleep(0.5)
        assert not any(call.returned for call in pending)
        volume.proxy.cut(how)
        volume.proxy.silent = False
        assert [call.result(volumes.PATIENCE * 30) for call in pending] == [0] * 16
    volume.wait_state("in-sync")
    volume.assert_equal()
