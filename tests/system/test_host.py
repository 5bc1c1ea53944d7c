# SPDX-License-Identifier: Apache-2.0
"""A volume with standbys on other hosts: set up, filled, waited for, lost, fenced, verified."""
import os
import threading
import time

import pytest
import volume as volumes
from load import Call, Deliveries, write_and_sync

PATIENCE = volumes.PATIENCE


def fill(directory, files, size=3000):
    for number in range(files):
        home = directory / f"box{number % 20}"
        home.mkdir(exist_ok=True)
        (home / f"{number}.eml").write_bytes(os.urandom(64) * (size // 64))


def test_what_a_person_types_makes_two_copies(make_hosted):
    volume = make_hosted(directories=("mail", "db"))
    fill(volume.dir, 50)
    created = volume.create()
    assert "scp" in created.out and "twinspool standby" in created.out
    secret = volume.primary.etc("vol.secret")
    assert len(secret.read_text().strip()) == 64 and secret.stat().st_mode & 0o777 == 0o600
    volume.host.start()
    volume.up()
    volume.wait("in-sync")
    write_and_sync(volume.directories[1] / "row", b"1")
    volume.assert_equal()
    here, there = volume.status(), volume.host.status()
    assert here["role"] == "primary" and there["role"] == "standby"
    assert here["state"] == there["state"] == "in-sync"
    assert volume.run("status", "vol").code == 0 and volume.host.run("status", "vol").code == 0
    volume.down()
    assert volume.compare() == []
    volume.host.wait_until(lambda status: status["state"] != "in-sync", "a standby alone")
    volume.host.down()
    assert volume.processes() == []


def test_it_goes_on_after_both_were_down(hosted):
    write_and_sync(hosted.dir / "first", b"x")
    for _ in range(2):
        hosted.down()
        hosted.host.down()
        hosted.host.start()
        hosted.up()
        hosted.wait("in-sync")
        write_and_sync(hosted.dir / "next", os.urandom(5000))
        hosted.assert_equal()


def test_over_ipv6(make_hosted):
    volume = make_hosted()
    host = volume.host
    host.called = f"[{host.address6}]:4480"
    volume.create()
    host.start("--listen", f"[{host.address6}]:4480")
    volume.up()
    volume.wait("in-sync")
    write_and_sync(volume.dir / "file", b"x" * 3000)
    volume.assert_equal()
    assert "fd44" in host.status()["from"]


def test_snapshots_are_read_on_the_standby_host(hosted):
    host = hosted.host
    write_and_sync(hosted.dir / "letter", b"old")
    hosted.run("snapshot", "vol@before")
    write_and_sync(hosted.dir / "letter", b"new")
    hosted.wait("applied")
    assert "before" in hosted.run("list", "vol").out
    assert "before" in host.run("list", "vol").out
    place = hosted.base / "restored"
    host.run("restore", f"vol@before:{hosted.dir}", place)
    assert (place / "letter").read_bytes() == b"old"
    seen = hosted.base / "seen"
    seen.mkdir()
    host.run("mount", "vol@before", seen)
    assert (seen / str(hosted.dir).lstrip("/") / "letter").read_bytes() == b"old"
    host.run("umount", seen)
    changed = host.run("log", f"vol:{hosted.dir}/letter").out
    assert "before" in changed


@pytest.mark.slow
def test_seeding_while_deliveries_run(make_hosted):
    volume = make_hosted()
    fill(volume.dir, 3000)
    volume.create()
    volume.host.start()
    volume.up()
    deliveries = Deliveries(volume.dir, threads=3, pause=0.005)
    volume.wait("in-sync", timeout=90)
    time.sleep(0.2)
    deliveries.stop()
    assert not deliveries.errors and len(deliveries.acknowledged) > 20
    assert max(deliveries.seconds) < 5 * PATIENCE, "a delivery stood still while seeding ran"
    volume.assert_equal()
    deliveries.assert_in(volume.dir, volume.host.replica())


def test_a_local_disk_and_a_host_together(make_hosted):
    volume = make_hosted(local=True, standby_timeout="60s").start()
    write_and_sync(volume.dir / "both", b"x")
    volume.assert_equal()
    with volume.host.stopped():
        call = Call(write_and_sync, volume.dir / "waits", b"x")
        call.join(1)
        assert not call.returned, "one of two standbys had it, and ack is all"
    assert call.result() == 0
    volume.assert_equal()


def test_ack_all_waits_for_each_of_two_hosts(make_hosted):
    volume = make_hosted(hosts=2, ack="all", standby_timeout="60s").start()
    for host in volume.hosts:
        with host.stopped():
            call = Call(write_and_sync, volume.dir / "waits", b"x")
            call.join(1)
            assert not call.returned
        assert call.result() == 0
    volume.assert_equal()


def test_ack_any_waits_for_one_of_two_hosts(make_hosted):
    volume = make_hosted(hosts=2, ack="any", standby_timeout="60s").start()
    for host in volume.hosts:
        with host.stopped():
            for number in range(20):
                assert Call(write_and_sync, volume.dir / f"{number}", b"x").result(10) == 0
        volume.wait("in-sync")
    first, second = volume.hosts
    with first.stopped(), second.stopped():
        call = Call(write_and_sync, volume.dir / "waits", b"x")
        call.join(1)
        assert not call.returned
    assert call.result() == 0
    volume.wait_equal()


def test_ack_any_with_one_lost_is_still_two_copies(make_hosted):
    volume = make_hosted(hosts=2, ack="any", standby_timeout="1s").start()
    lost, other = volume.hosts
    lost.kill()
    deliveries = Deliveries(volume.dir, threads=2)
    time.sleep(2.5)
    deliveries.stop()
    assert not deliveries.errors
    volume.wait("applied")
    deliveries.assert_in(other.replica())
    lost.start()
    volume.wait("in-sync")
    volume.wait_equal()


def test_a_standby_that_is_not_waited_for(make_hosted):
    volume = make_hosted(hosts=2, standby_timeout="60s")
    volume.create()
    volume.configure_standby(f'"{volume.hosts[1].address}"', wait=False)
    for host in volume.hosts:
        host.start()
    volume.up()
    volume.wait("in-sync")
    with volume.hosts[1].stopped():
        for number in range(20):
            assert Call(write_and_sync, volume.dir / f"{number}", b"x").result(10) == 0
    with volume.hosts[0].stopped():
        call = Call(write_and_sync, volume.dir / "waits", b"x")
        call.join(1)
        assert not call.returned
    assert call.result() == 0
    volume.wait_equal()


# Losing the standby.


def test_loss_is_found_within_the_timeout_and_the_return_too(make_hosted):
    volume = make_hosted(standby_timeout="2s").start()
    with volume.host.unplugged():
        begin = time.monotonic()
        call = Call(write_and_sync, volume.dir / "alone", b"x")
        volume.wait_state("degraded", timeout=10)
        assert call.result(5) == 0
        assert 1.5 < call.returned_at - begin < 4 * PATIENCE
        volume.host.wait_until(lambda status: status["state"] != "in-sync", "a lonely standby", 6)
    volume.wait_state("in-sync", timeout=20)
    volume.host.wait_until(lambda status: status["state"] == "in-sync", "in sync")
    volume.assert_equal()


def test_an_idle_volume_notices_too(make_hosted):
    volume = make_hosted(standby_timeout="2s").start()
    volume.wait("applied")
    with volume.host.unplugged():
        begin = time.monotonic()
        volume.wait_state("degraded", timeout=10)
        assert time.monotonic() - begin < 5 * PATIENCE
    volume.wait_state("in-sync", timeout=20)
    volume.assert_equal()


def test_frozen_without_a_standby_and_on_again(make_hosted):
    volume = make_hosted(standby_timeout="1s", on_standby_loss="freeze").start()
    with volume.host.unplugged():
        call = Call(write_and_sync, volume.dir / "frozen", b"x")
        call.join(4)
        assert not call.returned, "it went alone"
        status = volume.status()
        assert status["state"] != "in-sync" and not status["standbys"][0]["connected"]
        assert (volume.dir / "frozen").exists(), "only what waits for two copies waits"
    assert call.result() == 0
    volume.wait_state("in-sync", timeout=20)
    volume.assert_equal()


# Fencing: `fence_peer` has to succeed before a commit counts one copy.


def fenced(make_hosted, command, **config):
    volume = make_hosted(standby_timeout="1s", **config)
    volume.create()
    volume.configure(fence_peer=command.format(base=volume.base))
    volume.host.start()
    volume.up()
    volume.wait("in-sync")
    return volume


def test_alone_only_after_the_fence_has_succeeded(make_hosted):
    volume = fenced(
        make_hosted, "until test -e {base}/let; do sleep 0.05; done; touch {base}/fenced"
    )
    with volume.host.unplugged():
        call = Call(write_and_sync, volume.dir / "file", b"x")
        call.join(3)
        assert not call.returned, "it went alone unfenced"
        (volume.base / "let").touch()
        assert call.result(10) == 0
        assert (volume.base / "fenced").exists()
        volume.wait_state("degraded")
    volume.wait_state("in-sync", timeout=20)
    volume.assert_equal()


@pytest.mark.parametrize("command", ["echo no power switch >&2; exit 7", "sleep 600"])
def test_a_fence_that_fails_or_hangs_keeps_commits_waiting(make_hosted, command):
    volume = fenced(make_hosted, command, fence_timeout="1s")
    with volume.host.unplugged():
        call = Call(write_and_sync, volume.dir / "file", b"x")
        status = volume.wait_until(
            lambda status: "fence" in status["standbys"][0].get("trouble", ""), "the trouble told"
        )
        assert status["state"] != "in-sync"
        call.join(2)
        assert not call.returned, "it went alone unfenced"
        assert "fence" in volume.log()
    assert call.result() == 0
    volume.wait_state("in-sync", timeout=20)
    volume.assert_equal()


# Verify over the network.


def test_verify_finds_and_repairs_what_differs_on_the_host(hosted):
    fill(hosted.dir, 40)
    hosted.wait("applied")
    assert hosted.run("verify", "vol", timeout=60).code == 0
    replica = hosted.host.replica()
    victim = replica / "box3" / "3.eml"
    times = victim.stat()
    with open(victim, "r+b") as file:
        file.seek(1000)
        file.write(b"rotten")
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    (replica / "box5" / "5.eml").unlink()
    os.chmod(replica / "box6" / "6.eml", 0o600)
    found = hosted.run("verify", "vol", check=3)
    for name in ("box3/3.eml", "box5/5.eml", "box6/6.eml"):
        assert name in found.text, found
    assert "box4" not in found.text
    hosted.run("verify", "vol", "--repair", check=(0, 3))
    hosted.assert_equal()
    assert hosted.run("verify", "vol").code == 0


def test_verify_while_deliveries_run_reports_nothing(hosted):
    fill(hosted.dir, 300)
    deliveries = Deliveries(hosted.dir, threads=3)
    for _ in range(3):
        found = hosted.run("verify", "vol", timeout=60, check=(0, 3))
        assert found.code == 0, found
    deliveries.stop()
    hosted.assert_equal()
    deliveries.assert_in(hosted.dir, hosted.host.replica())


# Seen from outside.


def test_metrics_of_both_hosts(make_hosted):
    volume = make_hosted(metrics="127.0.0.1:9471").start()
    write_and_sync(volume.dir / "file", b"x")
    for network in (volume.primary.network, volume.host.network):
        pages = []

        def fetch():
            import urllib.request

            with network, urllib.request.urlopen("http://127.0.0.1:9471/metrics") as page:
                pages.append(page.read().decode())

        thread = threading.Thread(target=fetch)
        thread.start()
        thread.join(10)
        assert pages and "twinspool_" in pages[0] and 'volume="vol"' in pages[0]
