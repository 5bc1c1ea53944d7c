# SPDX-License-Identifier: Apache-2.0
"""Who is refused, and why: it is said in status and log of both sides, and nothing is changed on
either.
"""
import json
import os
import re
import shutil
import subprocess
import time

import machine
import pytest
import volume as volumes
from hosts import Host, checksums, connect
from load import Call, Deliveries, write_and_sync


def store_of(host):
    """What must stay as it was: all but what RocksDB writes about itself."""
    found = checksums(host.store)
    return {path: what for path, what in found.items() if not os.path.basename(path)[:3] == "LOG"}


def primary_tree(volume):
    below = volume.backing()
    return {os.path.relpath(path, below): what for path, what in checksums(below).items()}


def assert_refused(volume, host, here, there):
    """`here` and `there`: what status and log of the primary and of the standby host must say."""
    told = volume.wait_until(
        lambda status: re.search(here, status["standbys"][0].get("trouble") or ""), here
    )
    assert told["state"] != "in-sync" and not told["standbys"][0]["connected"]
    assert re.search(here, volume.primary.log()), volume.primary.log()
    seen = host.wait_until(lambda status: re.search(there, str(status)), there)
    assert seen["state"] != "in-sync"
    assert re.search(there, host.log()), host.log()


class Unchanged:
    """Neither the store nor the tree of the primary may differ at the end of the block."""

    def __init__(self, volume):
        self.volume = volume

    def __enter__(self):
        self.before = store_of(self.volume.host), primary_tree(self.volume)

    def __exit__(self, kind, *_):
        if kind is None:
            for before, after in zip(
                self.before, (store_of(self.volume.host), primary_tree(self.volume))
            ):
                assert sorted(before) == sorted(after)
                assert [path for path in before if before[path] != after[path]] == []


def begun(volume):
    """A volume with something on both sides, whose primary is down."""
    volume.start()
    for number in range(10):
        write_and_sync(volume.dir / str(number), os.urandom(2000))
    volume.assert_equal()
    volume.down()
    return volume


@pytest.fixture
def quiet(make_hosted):
    return begun(make_hosted(standby_timeout="1s"))


def again(volume):
    """With the cause gone all is well."""
    volume.wait_state("in-sync", timeout=30)
    write_and_sync(volume.dir / "after", b"x")
    volume.assert_equal()


def test_a_wrong_secret(quiet):
    host, secret = quiet.host, quiet.host.etc("vol.secret")
    host.down()
    right = secret.read_text()
    secret.write_text("ab" * 32 + "\n")
    host.start()
    with Unchanged(quiet):
        quiet.up(check=None)
        assert_refused(quiet, host, "secret", "secret|handshake|TLS|key")
        time.sleep(1)
    host.down()
    secret.write_text(right)
    host.start()
    again(quiet)


def test_another_volume(quiet, make_hosted):
    """The standby host serves another volume on that port."""
    other = make_hosted(name="other")
    other.create()
    host = quiet.host
    host.down()
    for ending in ("toml", "secret"):
        shutil.copy2(other.primary.etc(f"other.{ending}"), host.etc(f"other.{ending}"))
    text = host.etc("other.toml").read_text()
    host.etc("other.toml").write_text(text.replace(str(other.base), str(host.store.parent)))
    store = host.store.parent / "store-of-the-other"
    store.mkdir()
    text = host.etc("other.toml").read_text().replace(str(host.store), str(store))
    host.etc("other.toml").write_text(text)
    host.run("standby", "other", "--listen", f"{host.address}:4471")
    with Unchanged(quiet):
        quiet.up(check=None)
        told = quiet.wait_until(
            lambda status: "volume" in (status["standbys"][0].get("trouble") or ""), "the reason"
        )
        assert told["state"] != "in-sync"
        assert "volume" in quiet.primary.log()
        deadline = time.monotonic() + 10
        while "volume" not in host.run("status", "other", "--json", check=(0, 3)).out:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert re.search("another volume|volume", host.log())
    host.run("down", "other")
    host.start()
    again(quiet)


@pytest.mark.parametrize("version", ["1", "3"])
@pytest.mark.parametrize("side", ["primary", "standby"])
def test_another_version_of_the_protocol(quiet, version, side):
    host = quiet.host
    other = {"TWINSPOOL_WIRE_VERSION": version}
    if side == "standby":
        host.down()
        host.start(env=other)
    with Unchanged(quiet):
        quiet.run("up", "vol", env=other if side == "primary" else {}, check=None)
        why = rf"version {version}|version 2"
        assert_refused(quiet, host, why, why)
        assert "same Twinspool" in quiet.standby_status()["trouble"] + quiet.primary.log()
    if side == "standby":
        host.down()
        host.start()
    else:
        quiet.down(check=None, timeout=30)
        machine.kill(*quiet.primary.processes())
        quiet.up(check=(0, 3))
    again(quiet)


def test_a_forked_history(quiet):
    """The primary went on alone; then an older copy of its state was put back, and went on with the
    standby; then the newer one again. Two histories, and none is a prefix of the other.
    """
    host, state = quiet.host, quiet.state_dir
    old, newer = quiet.base / "state old", quiet.base / "state newer"
    shutil.copytree(state, old)
    host.down()
    quiet.up(check=(0, 3))
    write_and_sync(quiet.dir / "alone", b"x")
    quiet.wait_state("degraded")
    quiet.down(check=(0, 3))
    state.rename(newer)
    old.rename(state)
    # The older state gives the id of this file to another one.
    (quiet.dir / "alone").unlink()
    host.start()
    quiet.up()
    write_and_sync(quiet.dir / "with the standby", b"x")
    quiet.wait("applied")
    quiet.down()
    state.rename(old)
    newer.rename(state)
    with Unchanged(quiet):
        quiet.up(check=None)
        assert_refused(quiet, host, "fork", "fork")
    quiet.down(check=None, timeout=30)
    quiet.kill_all()
    host.start()
    # The rightful one is taken as before.
    state.rename(newer)
    old.rename(state)
    quiet.up(check=(0, 3))
    again(quiet)


class Rival(Host):
    """A second primary: a copy of the volume's state and tree on a host with mounts of its own, so
    that both have the same paths.
    """

    def __init__(self, volume):
        super().__init__(volume.base, "rival", volume.env)
        self.volume = volume
        connect(
            *(volume.host.network, "to-rival", ["10.45.0.1/24"]),
            *(self.network, "to-standby", ["10.45.0.2/24"]),
        )
        self.network.ip("route", "add", "10.44.0.0/24", "via", "10.45.0.1")
        for name in ("etc", "lib"):
            subprocess.run(["cp", "-a", volume.root / name, self.root], check=True)
        self.tree = volume.base / "rival's tree"
        subprocess.run(["cp", "-a", volume.dir, self.tree], check=True)
        script = (
            'mount -t tmpfs tmpfs /dev/shm && mount --bind "$1" "$2" && echo ready && '
            "exec sleep infinity"
        )
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
            + [self.tree, volume.dir],
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout.readline() == b"ready\n"
        self.prefix = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt"]

    def close(self):
        machine.kill(*self.processes())
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()
        self.network.close()


@pytest.fixture
def rival(quiet):
    made = Rival(quiet)
    yield made
    made.close()


def test_two_primaries_for_one_standby(quiet, rival):
    quiet.up()
    quiet.wait("in-sync")
    deliveries = Deliveries(quiet.dir, threads=2, pause=0.01)
    pid = quiet.host.pid
    rival.run("up", "vol", "--force", check=None)

    def told(status):
        return re.search("primary|fork", status["standbys"][0].get("trouble") or "")

    deadline = time.monotonic() + 20 * volumes.PATIENCE
    while True:
        found = rival.run("status", "vol", "--json", check=(0, 3))
        status = json.loads(found.out)
        if told(status):
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert status["state"] != "in-sync"
    assert re.search("primary|fork", rival.log())
    seen = quiet.host.wait_until(lambda status: status.get("refused"), "somebody refused")
    assert "10.45.0.2" in str(seen) and "10.45.0.2" in quiet.host.log()
    deliveries.stop()
    assert not deliveries.errors and quiet.state == "in-sync" and quiet.host.pid == pid
    quiet.assert_equal()
    deliveries.assert_in(quiet.dir, quiet.host.replica())


def test_the_rival_is_refused_also_when_the_primary_is_away(quiet, rival):
    """Its reign began elsewhere: once the standby has more than the copy knows, it has forked."""
    quiet.up()
    quiet.wait("in-sync")
    write_and_sync(quiet.dir / "more", b"x")
    quiet.wait("applied")
    quiet.down()
    before = store_of(quiet.host)
    rival.run("up", "vol", "--force", check=None)
    quiet.host.wait_until(lambda status: "fork" in str(status), "the reason", 20)
    assert "fork" in rival.log()
    machine.kill(*rival.processes())
    assert store_of(quiet.host) == before
    quiet.up()
    again(quiet)


def test_a_refused_primary_does_not_wait_for_ever(quiet):
    """Refused is lost: with `continue` commits go on alone, and the state says so."""
    host, secret = quiet.host, quiet.host.etc("vol.secret")
    host.down()
    secret.write_text("cd" * 32 + "\n")
    host.start()
    quiet.up(check=(0, 3))
    assert Call(write_and_sync, quiet.dir / "alone", b"x").result(20) == 0
    assert quiet.state == "degraded"
