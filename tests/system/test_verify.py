# SPDX-License-Identifier: Apache-2.0
"""verify: what somebody does to the replica tree behind our back is found, named and mended; what is
right is called so, however busy the volume is.
"""
import contextlib
import json
import os
import subprocess
import threading
import time

import machine
import pytest


def replica(volume, *names):
    return volume.standby / "tree" / str(volume.dir).lstrip("/") / "/".join(names)


def fill(volume):
    """One object for each way to damage it."""
    d = volume.dir
    for name in ("flipped", "cut", "longer", "mode", "owner", "time", "noted", "missing", "one", "two"):
        (d / name).write_bytes(os.urandom(50_000))
    os.setxattr(d / "noted", "user.note", b"value")
    (d / "linked").write_bytes(b"linked")
    os.link(d / "linked", d / "linked-too")
    os.symlink("here", d / "symlink")
    (d / "sub").mkdir()
    (d / "sub" / "inner").write_bytes(os.urandom(3_000_000))
    (d / "gone").mkdir()
    (d / "gone" / "deep").mkdir()
    (d / "gone" / "deep" / "file").write_bytes(b"deep")
    (d / "empty").write_bytes(b"")


def damage(volume):
    at = lambda *names: replica(volume, *names)
    with open(at("flipped"), "r+b") as file:
        file.seek(20_000)
        byte = file.read(1)
        file.seek(20_000)
        file.write(bytes([byte[0] ^ 1]))
    with open(at("sub", "inner"), "r+b") as file:
        file.seek(2_500_000)
        file.write(b"not what was there")
    os.truncate(at("cut"), 100)
    with open(at("longer"), "ab") as file:
        file.write(b"more")
    os.chmod(at("mode"), 0o600)
    os.chown(at("owner"), 12, 34)
    os.utime(at("time"), (1, 1))
    os.setxattr(at("noted"), "user.note", b"another")
    os.unlink(at("missing"))
    at("extra").write_bytes(b"extra")
    (at("extra-directory") / "below").mkdir(parents=True)
    os.rename(at("one"), at("swap"))
    os.rename(at("two"), at("one"))
    os.rename(at("swap"), at("two"))
    os.unlink(at("linked-too"))
    at("linked-too").write_bytes(b"linked")
    os.unlink(at("symlink"))
    os.symlink("there", at("symlink"))
    subprocess.run(["rm", "-r", at("gone")], check=True)


# Word and path below the directory, for what must be found at least.
EXPECTED = {
    ("content", "flipped"),
    ("content", "sub/inner"),
    ("size", "cut"),
    ("size", "longer"),
    ("attributes", "mode"),
    ("attributes", "owner"),
    ("attributes", "time"),
    ("xattr", "noted"),
    ("missing", "missing"),
    ("extra", "extra"),
    ("extra", "extra-directory"),
    ("other-object", "one"),
    ("other-object", "two"),
    ("other-object", "linked-too"),
    ("missing", "gone"),
    ("missing", "gone/deep"),
    ("missing", "gone/deep/file"),
}


def found(volume, result):
    listed = json.loads(result.out)["listed"]
    return {(each["kind"], os.path.relpath(each["path"], volume.dir)) for each in listed}


def verify(volume, *arguments, check=True, timeout=120):
    return volume.run("verify", volume.name, *arguments, check=check, timeout=timeout)


def test_verify_equal(make_volume):
    volume = make_volume().start()
    fill(volume)
    result = verify(volume)
    assert "no differences" in result.out, result
    last = volume.wait_until(lambda s: s["verify"]["last"], "a result")["verify"]["last"]
    assert last["differences"] == 0 and last["objects"] > 15 and not last["scheduled"], last
    volume.down()


def test_verify_finds_and_repairs(make_volume):
    volume = make_volume().start()
    fill(volume)
    volume.wait("applied")
    damage(volume)
    result = verify(volume, "--json", check=3)
    assert EXPECTED <= found(volume, result), (EXPECTED - found(volume, result), result.out)
    plain = verify(volume, check=3).out
    flipped = [line for line in plain.splitlines() if line.startswith("content") and "flipped" in line]
    assert flipped == [f"content       {volume.dir}/flipped  bytes 16384..32767"], plain
    repaired = verify(volume, "--repair", check=None)
    assert repaired.code == 0, str(repaired) + volume.log_file.read_text()[-4000:]
    assert "not repaired" not in repaired.out, repaired
    assert "no differences" in verify(volume).out
    for name in ("flipped", "cut", "longer", "one", "two", "missing", "linked-too", "sub/inner", "gone/deep/file"):
        assert replica(volume, name).read_bytes() == (volume.dir / name).read_bytes(), name
    assert os.readlink(replica(volume, "symlink")) == "here"
    assert not replica(volume, "extra").exists()
    assert replica(volume, "linked").stat().st_ino == replica(volume, "linked-too").stat().st_ino
    (volume.dir / "gone" / "deep" / "file").write_bytes(b"goes on")
    volume.wait("applied")
    volume.down()


def test_verify_of_a_path(make_volume):
    volume = make_volume().start()
    fill(volume)
    volume.wait("applied")
    damage(volume)
    result = verify(volume, "--path", volume.dir / "sub", "--json", check=3)
    assert found(volume, result) == {("content", "sub/inner"), ("attributes", "sub/inner")}, result
    result = verify(volume, "--path", volume.dir / "flipped", "--json", check=3)
    assert found(volume, result) == {("content", "flipped"), ("attributes", "flipped")}, result
    assert verify(volume, "--path", volume.dir / "never", check=2)
    assert verify(volume, "--path", "relative", check=2)
    assert verify(volume, "--rate", "fast", check=2)
    verify(volume, "--repair", check=0)
    volume.down()


@contextlib.contextmanager
def disk_away(volume):
    """A standby that only stands still would be replaced by another process at once."""
    pid, away = volume.standby_pid, volume.base / "away"
    volume.standby.rename(away)
    machine.kill(pid)
    try:
        yield
    finally:
        away.rename(volume.standby)


def test_verify_is_refused_when_it_cannot_be_answered(make_volume):
    volume = make_volume(standby_timeout="1s")
    volume.create()
    assert "not up" in verify(volume, check=3).text
    volume.up()
    volume.wait("in-sync")
    with disk_away(volume):
        (volume.dir / "file").write_bytes(b"x")
        volume.wait_state("degraded", timeout=60)
        assert "away" in verify(volume, check=3).text
    volume.wait("in-sync")
    volume.down()


def test_a_standby_that_dies_ends_the_verify(make_volume):
    volume = make_volume().start()
    for i in range(20):
        (volume.dir / str(i)).write_bytes(os.urandom(200_000))
    results = []
    asker = threading.Thread(
        target=lambda: results.append(verify(volume, "--rate", "200KiB", check=1))
    )
    asker.start()
    volume.wait_until(lambda s: s["verify"]["running"], "a verify")
    assert "running already" in verify(volume, check=3).text
    volume.kill_standby()
    asker.join(60)
    assert results and "did not come to its end" in results[0].text, results
    volume.wait("in-sync")
    verify(volume)
    volume.down()


def test_no_false_alarm_under_load(make_volume):
    volume = make_volume().start()
    stop = threading.Event()
    problems = []

    def deliver(number):
        home = volume.dir / f"box{number}"
        (home / "tmp").mkdir(parents=True)
        (home / "new").mkdir()
        log = open(home / "log", "a+b", buffering=0)
        count = 0
        try:
            while not stop.is_set():
                name = f"{count}.message"
                (home / "tmp" / name).write_bytes(os.urandom(5000))
                os.rename(home / "tmp" / name, home / "new" / name)
                os.setxattr(home / "new" / name, "user.flag", str(count).encode())
                os.chmod(home / "new" / name, 0o600 + count % 8)
                os.write(log.fileno(), os.urandom(300))
                os.pwrite(log.fileno(), os.urandom(100), 0)
                if count > 20:
                    os.unlink(home / "new" / f"{count - 20}.message")
                if count % 50 == 0:
                    os.fsync(log.fileno())
                    os.truncate(home / "log", 50)
                count += 1
        except OSError as error:
            problems.append(error)

    writers = [threading.Thread(target=deliver, args=(i,)) for i in range(3)]
    [writer.start() for writer in writers]
    try:
        for _ in range(4):
            result = verify(volume, check=None)
            assert result.code == 0, result
    finally:
        stop.set()
        [writer.join() for writer in writers]
    assert not problems, problems
    volume.wait("applied")
    verify(volume)
    volume.down()


def test_verify_by_the_daemon(make_volume):
    volume = make_volume(verify_every="1min")
    volume.create()
    volume.up()
    volume.wait("in-sync")
    status = volume.status()["verify"]
    assert status["every"] == "1min" and status["next"], status
    last = volume.wait_until(
        lambda s: s["verify"]["last"] and s["verify"]["last"]["scheduled"], "a verify", timeout=90
    )["verify"]["last"]
    assert last["differences"] == 0 and last["failure"] == "", last
    volume.down()


def away_beyond_the_limit(volume, write):
    """The standby is away until what it lacks is not kept for it any more."""
    with disk_away(volume):
        write()
        volume.wait_state("degraded", timeout=60)
        sent = volume.status()["standbys"][0]["sent_bytes"]
        for _ in range(3 * LIMIT // 2_000_000):
            (volume.dir / "churn").write_bytes(os.urandom(2_000_000))
        end = volume.status()["journal"]["appended_lsn"]
        (volume.dir / "churn").write_bytes(b"the end")
        volume.wait_until(
            lambda s: s["journal"]["checkpoint_lsn"] > end and s["journal"]["bytes"] <= LIMIT,
            "a journal within its limit",
            timeout=60,
        )
    return sent


LIMIT = 16 << 20


@pytest.mark.parametrize("killed", ["nobody", "standby", "primary"])
def test_resync_sends_what_differs(make_volume, killed):
    volume = make_volume(
        journal_limit=f"{LIMIT >> 20}MiB", checkpoint_every="1s", standby_timeout="1s"
    ).start()
    for i in range(40):
        (volume.dir / f"file{i}").write_bytes(os.urandom(1_000_000))
    (volume.dir / "goes").write_bytes(b"goes")
    volume.wait("applied")

    def write():
        with open(volume.dir / "file7", "r+b") as file:
            file.seek(500_000)
            file.write(b"changed while the standby was away")
        (volume.dir / "goes").unlink()
        (volume.dir / "comes").write_bytes(b"comes")

    sent = away_beyond_the_limit(volume, write)
    if killed == "standby":
        volume.wait_until(lambda s: s["standbys"][0]["connected"], "a standby")
        volume.kill_standby()
    if killed == "primary":
        volume.wait_until(lambda s: s["standbys"][0]["connected"], "a standby")
        volume.kill_all()
        volume.up()
    volume.wait("in-sync", timeout=120)
    status = volume.status()
    log = volume.log_file.read_text()
    assert "resyncing again" in log, log[-3000:]
    if killed == "nobody":
        assert status["seed"]["bytes_different"] < 4_000_000, status["seed"]
        assert status["standbys"][0]["sent_bytes"] - sent < 8_000_000, status["standbys"]
    assert not replica(volume, "goes").exists()
    verify(volume)
    for name in os.listdir(volume.dir):
        assert replica(volume, name).read_bytes() == (volume.dir / name).read_bytes(), name
    volume.down()
