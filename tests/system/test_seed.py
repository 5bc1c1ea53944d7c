# SPDX-License-Identifier: Apache-2.0
"""What is in a directory before the volume is, and what is changed underneath while it is down."""
import itertools
import json
import os
import random
import subprocess
import threading
import time

import calls
import pytest

USER = 1000


def plant(directory, files=300, seed=1):
    """A little of everything."""
    chance = random.Random(seed)
    for number in range(files):
        home = directory / f"d{number % 7}" / f"e{number % 3}"
        home.mkdir(parents=True, exist_ok=True)
        file = home / f"file {number}"
        file.write_bytes(chance.randbytes(chance.choice((0, 100, 5000, 70000))))
        os.chown(file, number % 3 * USER, 0)
        file.chmod(chance.choice((0o600, 0o644, 0o4755)))
        if number % 10 == 0:
            os.link(file, directory / f"link {number}")
            os.setxattr(file, "user.number", b"%d" % number)
        if number % 20 == 0:
            os.setxattr(file, calls.ACL_ACCESS, calls.acl(USER, 6))
            (home / f"symlink {number}").symlink_to(f"file {number}")
        os.utime(file, ns=(number, 10**18 + number))
    os.mkfifo(directory / "fifo")
    with open(directory / "sparse", "wb") as sparse:
        sparse.truncate(1 << 32)
        os.pwrite(sparse.fileno(), b"far", (1 << 31) + 5)
    os.utime(directory / "d1", ns=(1, 10**18))


@pytest.fixture
def planted(make_volume):
    """Created over a directory that is not empty; not up yet."""
    volume = make_volume()
    plant(volume.dir)
    volume.create()
    return volume


def test_what_was_there_is_in_the_replica(planted):
    planted.up()
    planted.wait("in-sync")
    seed = planted.status()["seed"]
    assert seed["objects_done"] == seed["objects_total"] > 300
    planted.assert_equal()
    assert (planted.dir / "d1").stat().st_mtime_ns == 10**18


def test_seeding_changes_nothing_that_programs_see(planted):
    before = {path: path.lstat() for path in planted.dir.rglob("*")}
    planted.up()
    planted.wait("in-sync")
    for path, stat in before.items():
        after = path.lstat()
        for what in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_nlink"):
            assert getattr(after, what) == getattr(stat, what), (path, what)


def test_service_goes_on_while_it_is_seeded(planted):
    """Everything that a walker may meet: changed, renamed, removed, linked, exchanged before and
    after it.
    """
    ended, fresh = threading.Event(), itertools.count()

    def disturb(number):
        chance = random.Random(number)
        while not ended.is_set():
            home = planted.dir / f"d{chance.randrange(7)}"
            paths = [path for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
            path = chance.choice(paths)
            try:
                what = chance.randrange(6)
                if what == 0:
                    with open(path, "r+b") as file:
                        file.seek(chance.randrange(5000))
                        file.write(b"disturbed")
                elif what == 1:
                    path.rename(
                        planted.dir
                        / f"d{chance.randrange(7)}"
                        / f"renamed {number} {chance.randrange(50)}"
                    )
                elif what == 2 and len(paths) > 20:
                    path.unlink()
                elif what == 3:
                    os.link(path, planted.dir / f"another {number} {next(fresh)}")
                elif what == 4:
                    (home / f"new {number} {chance.randrange(20)}").write_bytes(
                        b"new" * chance.randrange(1000)
                    )
                else:
                    calls.renameat2(path, chance.choice(paths), calls.RENAME_EXCHANGE)
            except FileNotFoundError:
                pass  # the other thread was faster

    planted.up()
    threads = [threading.Thread(target=disturb, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    ended.set()
    for thread in threads:
        thread.join()
    planted.wait("in-sync")
    planted.assert_equal()


@pytest.mark.slow
def test_in_sync_is_never_said_before(planted):
    for number in range(12):
        (planted.dir / f"big {number}").write_bytes(os.urandom(16 << 20))
    planted.up()
    done, states = 0, []
    while True:
        status = planted.status()
        states.append(status["state"])
        seed = status["seed"]
        assert done <= seed["objects_done"] <= seed["objects_total"]
        assert seed["bytes_done"] <= seed["bytes_total"]
        done = seed["objects_done"]
        if status["state"] == "in-sync":
            break
    assert "seeding" in states, "too fast to be seen"
    # Nobody writes: whoever is in sync has everything, and has it durable.
    assert status["standbys"][0]["durable_lsn"] == status["journal"]["appended_lsn"]
    planted.wait("applied")
    assert planted.compare() == []


@pytest.mark.slow
def test_a_killed_seed_goes_on_where_it_was(planted):
    for number in range(8):
        (planted.dir / f"big {number}").write_bytes(os.urandom(16 << 20))
    planted.up()
    for seconds in (0.05, 0.2, 0.4):
        time.sleep(seconds)
        planted.kill_all()
        planted.up()
    planted.wait("in-sync")
    seed = planted.status()["seed"]
    assert seed["objects_done"] == seed["objects_total"]
    planted.assert_equal()


@pytest.mark.slow
@pytest.mark.limit(300)
def test_a_small_write_to_an_old_large_file_is_not_held_up(make_volume):
    volume = make_volume()
    block = os.urandom(1 << 20)
    with open(volume.dir / "old", "wb") as file:
        for _ in range(1024):
            file.write(block)
    volume.create()
    volume.up()
    begin = time.monotonic()
    fd = os.open(volume.dir / "old", os.O_WRONLY)
    os.pwrite(fd, b"x" * 4096, 512 << 20)
    os.fsync(fd)
    took = time.monotonic() - begin
    status = volume.status()
    os.close(fd)
    assert took < 2, f"it took {took:.1f} s"
    assert (
        status["state"] == "seeding"
        and status["seed"]["bytes_done"] < status["seed"]["bytes_total"]
    ), status
    volume.wait("in-sync", timeout=200)
    volume.assert_equal()


# Underneath.


def change_underneath(directory):
    """What a person does who forgot that the volume exists; returns words that the log must say."""
    os.truncate(directory / "d0/e0/file 0", 50)
    (directory / "d1/e1/file 1").write_bytes(b"edited underneath")
    (directory / "d2/e2/file 2").unlink()
    (directory / "new file").write_bytes(b"new underneath")
    (directory / "new dir").mkdir()
    (directory / "new dir/inside").write_bytes(b"x" * 10000)
    (directory / "d3").rename(directory / "d3 renamed")
    (directory / "d4/e1/file 4").chmod(0o640)
    os.setxattr(directory / "d5/e2/file 5", "user.new", b"underneath")
    os.link(directory / "d6/e0/file 6", directory / "new link")
    (directory / "d0/e1/file 7").rename(directory / "d1/e0/moved")


def test_changes_underneath_are_found_and_said(planted):
    planted.up()
    planted.wait("in-sync")
    planted.down()
    change_underneath(planted.dir)
    planted.up()
    planted.wait("in-sync")
    planted.assert_equal()
    text = planted.run("status", planted.name).out + planted.log()
    assert "underneath" in text or "changed while" in text, "nothing says that something was found"


def test_changes_underneath_a_killed_volume_are_found(planted):
    planted.up()
    planted.wait("in-sync")
    (planted.dir / "last words").write_bytes(b"through the overlay")
    planted.kill_all()
    change_underneath(planted.backing())
    planted.up()
    assert (planted.dir / "last words").read_bytes() == b"through the overlay"
    planted.wait("in-sync")
    planted.assert_equal()


def test_hard_links_made_underneath_are_found_wherever_they_stand(planted):
    planted.up()
    planted.wait("in-sync")
    planted.down()
    new = planted.dir / "made underneath"
    new.mkdir()
    (new / "a").write_bytes(b"two names here")
    os.link(new / "a", new / "b")
    (planted.dir / "top").write_bytes(b"one there")
    os.link(planted.dir / "top", new / "c")
    planted.up()
    planted.wait("in-sync")
    planted.assert_equal()
    (new / "a").unlink()
    (new / "b").write_bytes(b"still there")
    planted.assert_equal()


def test_immutable_and_append_only_files_are_told_of_too(make_volume):
    volume = make_volume()
    marked = [(volume.dir / "fixed", "+i"), (volume.dir / "growing", "+a")]
    for path, flag in marked:
        path.write_bytes(b"content of " + path.name.encode())
        subprocess.run(["chattr", flag, path], check=True)
    (volume.dir / "z last").write_bytes(b"x")
    try:
        volume.start()
        assert sorted(os.listdir(volume.dir)) == ["fixed", "growing", "z last"]
        assert (volume.dir / "fixed").read_bytes() == b"content of fixed"
        volume.wait("in-sync")
        volume.assert_equal()
        volume.down()
        volume.up()
        volume.wait("in-sync")
        volume.down()
    finally:
        for path, flag in marked:
            place = volume.backing() / path.name
            subprocess.run(["chattr", flag.replace("+", "-"), place], check=True)


def test_the_same_change_underneath_again_and_again(planted):
    planted.up()
    for number in range(3):
        planted.wait("in-sync")
        planted.down()
        (planted.dir / "d1/e1/file 1").write_bytes(b"edit %d" % number)
        (planted.dir / "d1").rename(planted.dir / "tmp"), (planted.dir / "d2").rename(
            planted.dir / "d1"
        )
        (planted.dir / "tmp").rename(planted.dir / "d2")
        (planted.dir / "d1/e1").mkdir(exist_ok=True), (planted.dir / "d1/e1/file 1").touch()
        planted.up()
    planted.wait("in-sync")
    planted.assert_equal()


def test_what_is_changed_underneath_and_then_through_the_overlay(planted):
    planted.up()
    planted.wait("in-sync")
    planted.down()
    change_underneath(planted.dir)
    planted.up()
    (planted.dir / "new dir/inside").write_bytes(b"changed before the walker came")
    (planted.dir / "d3 renamed").rename(planted.dir / "d3 again")
    (planted.dir / "new file").unlink()
    with open(planted.dir / "d1/e1/file 1", "ab") as file:
        file.write(b" and here")
    planted.wait("in-sync")
    planted.assert_equal()


def test_a_copy_with_the_xattrs_of_another_gets_an_id_of_its_own(planted):
    planted.up()
    planted.wait("in-sync")
    planted.down()
    subprocess.run(["cp", "-a", planted.dir / "d1", planted.dir / "copy"], check=True)
    subprocess.run(["cp", "-a", planted.dir / "sparse", planted.dir / "copied sparse"], check=True)
    original, copy = planted.dir / "d1/e1/file 1", planted.dir / "copy/e1/file 1"
    assert "trusted.twinspool.id" in os.listxattr(
        copy
    ), "the copy has the xattr; this is what the test is about"
    planted.up()
    assert original.stat().st_ino != copy.stat().st_ino
    assert (planted.dir / "d1").stat().st_ino != (planted.dir / "copy").stat().st_ino
    copy.write_bytes(b"only the copy")
    planted.wait("in-sync")
    assert original.read_bytes() != b"only the copy"
    planted.assert_equal()


def test_a_file_put_back_from_a_backup_is_a_new_object(planted):
    planted.up()
    planted.wait("in-sync")
    planted.down()
    file = planted.dir / "d1/e1/file 1"
    subprocess.run(["cp", "-a", file, planted.base / "backup"], check=True)
    file.unlink()
    subprocess.run(["cp", "-a", planted.base / "backup", file], check=True)
    planted.up()
    planted.wait("in-sync")
    planted.assert_equal()


def test_an_up_without_changes_logs_nothing(planted):
    planted.up()
    planted.wait("in-sync")
    planted.down()
    planted.up()
    planted.wait("in-sync")
    before = planted.status()["journal"]["appended_lsn"]
    planted.down()
    planted.up()
    planted.wait("in-sync")
    assert planted.status()["journal"]["appended_lsn"] - before < 20, json.dumps(planted.status())
