# SPDX-License-Identifier: Apache-2.0
"""mount and umount: a snapshot to browse stays as it was, whatever happens to the volume."""
import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import threading
import time

import calls
import machine
import pytest
import volume as volumes

EQUAL_TREES = volumes.REPOSITORY / "tools/equal-trees"


@pytest.fixture
def show(fresh):
    """Mounts a snapshot of a volume; returns where."""
    places = []

    def mount(volume, name, **options):
        places.append(fresh() / "view")
        places[-1].mkdir()
        volume.run("mount", f"{volume.name}@{name}", places[-1], **options)
        return places[-1]

    yield mount
    for place in places:
        machine.unmount_below(place)


def snapshot(volume, name):
    volume.run("snapshot", f"{volume.name}@{name}")


def umount(volume, place, **options):
    return volume.run("umount", place, **options)


def within(view, directory):
    """Where a directory of the volume is in a view."""
    return view / os.path.realpath(directory).lstrip("/")


def copied(volume, fresh):
    """The volume's directories as they are now, for comparison."""
    copy = fresh()
    for directory in volume.directories:
        target = within(copy, directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--sparse=always", directory, target], check=True)
    return copy


def assert_equal(volume, copy, view):
    for directory in volume.directories:
        done = subprocess.run(
            [EQUAL_TREES, within(copy, directory), within(view, directory)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[:4000] + done.stderr


def fill(directory):
    """A little of everything that a tree can hold."""
    for number in range(40):
        mailbox = directory / f"user{number % 4}" / "new"
        mailbox.mkdir(parents=True, exist_ok=True)
        (mailbox / f"{number}.host").write_bytes(os.urandom(100 * number))
    (directory / b"new\nline \xff".decode(errors="surrogateescape")).write_text("odd")
    (directory / ("n" * 255)).write_text("long")
    with open(directory / "sparse", "wb") as file:
        file.write(b"begin"), file.seek(3 << 20), file.write(b"end")
    (directory / "large").write_bytes(os.urandom(2_000_000))
    os.link(directory / "large", directory / "user1/hard")
    os.symlink("../user2", directory / "user1/symbolic")
    os.mkfifo(directory / "pipe", 0o640)
    os.mknod(directory / "null", 0o20666, os.makedev(1, 3))
    os.chown(directory / "user3/new", 1000, 1000)
    (directory / "user3").chmod(0o2750)
    os.setxattr(directory / "large", "user.colour", b"blue\0")
    os.setxattr(directory / "sparse", calls.ACL_ACCESS, calls.acl(1000, 6))
    os.setxattr(directory / "user2", calls.ACL_DEFAULT, calls.acl(1000, 4))
    os.utime(directory / "sparse", ns=(1, 1_000_000_007))


def wreck(directory):
    """Changes everything that fill() has made."""
    for path in sorted(directory.rglob("*.host"))[::2]:
        path.unlink()
    for path in directory.rglob("*.host"):
        path.write_bytes(b"rewritten" * 500), path.chmod(0o600)
    with open(directory / "large", "r+b") as file:
        file.seek(500_000), file.write(b"overwritten" * 1000)
    os.truncate(directory / "sparse", 10)
    os.rename(directory / "user0", directory / "user3/moved")
    os.rename(directory / ("n" * 255), directory / "user1/hard")
    (directory / "pipe").unlink(), (directory / "null").unlink()
    (directory / "user1/symbolic").unlink()
    (directory / "user1/symbolic").write_text("a file now")
    (directory / "user3").chmod(0o700)
    os.removexattr(directory / "large", "user.colour")
    os.setxattr(directory / "user2", calls.ACL_DEFAULT, calls.acl(1001, 7))


class Writer(threading.Thread):
    """Keeps a volume busy."""

    def __init__(self, directory):
        super().__init__(daemon=True)
        self.directory, self.ended = directory, threading.Event()
        self.start()

    def run(self):
        number = 0
        while not self.ended.is_set():
            path = self.directory / f"user2/new/{number % 50}.busy"
            path.write_bytes(os.urandom(5000))
            os.rename(path, self.directory / f"user1/new/{number % 30}.busy")
            number += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join(30)


def test_a_view_is_the_tree_at_that_moment(volume, show, fresh):
    fill(volume.dir)
    copy = copied(volume, fresh)
    snapshot(volume, "before")
    view = show(volume, "before")
    assert_equal(volume, copy, view)
    wreck(volume.dir)
    volume.wait("applied")
    assert_equal(volume, copy, view)
    again = show(volume, "before")
    assert_equal(volume, copy, again)
    for place in (view, again):
        umount(volume, place)


def test_it_stays_while_the_volume_and_other_snapshots_change(volume, show, fresh):
    fill(volume.dir)
    copies, views = {}, {}
    for name in ("first", "second"):
        copies[name] = copied(volume, fresh)
        snapshot(volume, name)
        views[name] = show(volume, name)
        (volume.dir / "large").write_bytes(name.encode() * 100_000)
    with Writer(volume.dir):
        for number in range(4):
            snapshot(volume, f"passing{number}")
            place = show(volume, f"passing{number}")
            if number:
                volume.run("destroy", f"{volume.name}@passing{number - 1}")
            for name, view in views.items():
                assert_equal(volume, copies[name], view)
            umount(volume, place)
    wreck(volume.dir)
    volume.wait("applied")
    for name, view in views.items():
        assert_equal(volume, copies[name], view)
    snapshots = json.loads(volume.run("list", volume.name, "--json").out)
    assert [each["name"] for each in snapshots] == ["first", "second", "passing3"]


def test_directories_appear_by_their_full_paths(make_volume, show, fresh):
    volume = make_volume(directories=("var/spool/mail", "var/lib/mysql", "srv/x")).start()
    for number, directory in enumerate(volume.directories):
        (directory / "file").write_text(str(number))
    copy = copied(volume, fresh)
    snapshot(volume, "s")
    view = show(volume, "s")
    assert_equal(volume, copy, view)
    below = within(view, volume.base)
    assert sorted(os.listdir(below)) == ["srv", "var"]
    assert sorted(os.listdir(below / "var")) == ["lib", "spool"]
    assert (below / "var").stat().st_mode == 0o40555
    umount(volume, view)


def test_programs_copy_what_was(volume, show, fresh):
    fill(volume.dir)
    copy = copied(volume, fresh)
    snapshot(volume, "s")
    wreck(volume.dir)
    view = show(volume, "s")
    source = within(view, volume.dir)
    targets = {tool: fresh() for tool in ("cp", "tar", "rsync")}
    subprocess.run(["cp", "-a", f"{source}/.", targets["cp"]], check=True)
    subprocess.run(
        f"tar -C {source} --xattrs --xattrs-include='*' --acls --sparse -cf - . |"
        f" tar -C {targets['tar']} --xattrs --xattrs-include='*' --acls -xpf -",
        shell=True,
        check=True,
    )
    if shutil.which("rsync"):
        time.sleep(1.1)  # times within one second are equal to it
        subprocess.run(["rsync", "-aHAXS", f"{source}/", f"{targets['rsync']}/"], check=True)
    else:
        del targets["rsync"]
    for tool, target in targets.items():
        done = subprocess.run(
            [EQUAL_TREES, within(copy, volume.dir), target], capture_output=True, text=True
        )
        assert done.returncode == 0, f"{tool}: {done.stdout[:4000]}"
    umount(volume, view)


def test_nothing_in_it_can_be_changed_and_permissions_hold(volume, show):
    (volume.dir / "secret").write_text("x"), (volume.dir / "secret").chmod(0o600)
    (volume.dir / "open").write_text("x"), (volume.dir / "open").chmod(0o666)
    snapshot(volume, "s")
    view = within(show(volume, "s"), volume.dir)
    for change in (
        lambda: (view / "open").write_text("y"),
        lambda: (view / "new").mkdir(),
        lambda: (view / "open").unlink(),
        lambda: (view / "open").chmod(0o600),
    ):
        with pytest.raises(OSError) as refused:
            change()
        assert refused.value.errno == errno.EROFS
    read = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "cat"]
    assert subprocess.run([*read, view / "open"], capture_output=True).stdout == b"x"
    assert subprocess.run([*read, view / "secret"], capture_output=True).returncode == 1


def test_a_mounted_one_cannot_be_destroyed(volume, show):
    snapshot(volume, "s")
    first, second = show(volume, "s"), show(volume, "s")
    for place in (first, second):
        refused = volume.run("destroy", f"{volume.name}@s", check=(1, 2, 3))
        assert "s" in refused.err
        assert os.listdir(within(second, volume.dir)) == []
        umount(volume, place)
    volume.run("destroy", f"{volume.name}@s")
    assert json.loads(volume.run("list", volume.name, "--json").out) == []
    assert not machine.mounts_below(first) and not machine.mounts_below(second)
    assert volume.run("mount", f"{volume.name}@s", first, check=2).err.count("\n") == 1


def test_the_mount_says_whose_it_is(volume, show):
    snapshot(volume, "s")
    for name in ("s", "latest"):
        view = show(volume, name)
        listed = subprocess.run(
            ["findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", view], capture_output=True, text=True
        ).stdout.split()
        assert listed[:2] == [f"{volume.name}@s", "fuse.twinspool-view"], listed
        assert {"ro", "nosuid", "nodev"} <= set(listed[2].split(","))
        umount(volume, view)


def test_plain_umount_ends_it_too(volume, show):
    snapshot(volume, "s")
    before = set(volume.processes())
    view = show(volume, "s")
    (process,) = set(volume.processes()) - before
    subprocess.run(["umount", view], check=True)
    machine.wait_ended(process)
    volume.run("destroy", f"{volume.name}@s")


def test_a_terminated_one_leaves_nothing(volume, show):
    (volume.dir / "file").write_text("x")
    snapshot(volume, "s")
    before = set(volume.processes())
    view = show(volume, "s")
    (process,) = set(volume.processes()) - before
    with open(within(view, volume.dir) / "file") as file:
        os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while machine.mounts_below(view):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert file.read() == "x"
    machine.wait_ended(process)


def test_a_killed_one_is_cleared_away(volume, show):
    (volume.dir / "file").write_text("x")
    snapshot(volume, "s")
    before = set(volume.processes())
    view = show(volume, "s")
    (process,) = set(volume.processes()) - before
    held = os.open(within(view, volume.dir) / "file", os.O_RDONLY)
    machine.kill(process)
    with pytest.raises(OSError) as dead:
        os.listdir(view)
    assert dead.value.errno in volumes.DEATH
    assert "umount" in volume.run("mount", f"{volume.name}@s", view, check=2).err
    umount(volume, view)
    with contextlib.suppress(OSError):
        os.close(held)
    assert not machine.mounts_below(view)
    other = show(volume, "s")
    assert len(os.listdir(volume.run_dir / "past")) == 1, "what the killed one left is cleared"
    umount(volume, other)
    assert os.listdir(volume.run_dir / "past") == os.listdir(volume.run_dir / "views") == []
    volume.run("destroy", f"{volume.name}@s")


def test_it_outlives_down_and_up_and_kills(volume, show, fresh):
    fill(volume.dir)
    copy = copied(volume, fresh)
    snapshot(volume, "s")
    view = show(volume, "s")
    wreck(volume.dir)
    volume.down()
    assert_equal(volume, copy, view)
    late = show(volume, "s")  # a volume need not be up
    volume.run("remove", volume.name, check=1)
    volume.up()
    volume.wait("in-sync")
    (volume.dir / "large").write_bytes(b"after up")
    volume.wait("applied")
    assert_equal(volume, copy, view)
    volume.kill_primary()
    assert_equal(volume, copy, view)
    volume.up()
    volume.wait("in-sync")
    volume.kill_standby()
    assert_equal(volume, copy, late)
    for place in (view, late):
        umount(volume, place)


def test_a_busy_one_stays_and_says_who(volume, show):
    (volume.dir / "file").write_text("x")
    snapshot(volume, "s")
    view = show(volume, "s")
    process = subprocess.Popen(["sleep", "1000"], cwd=within(view, volume.dir))
    try:
        refused = umount(volume, view, check=1)
        assert f"sleep ({process.pid})" in refused.err
        assert (within(view, volume.dir) / "file").read_text() == "x"
    finally:
        process.kill(), process.wait()
    umount(volume, view)


def test_umount_of_something_else_is_refused(volume, fresh):
    place = fresh()
    assert "nothing is mounted" in umount(volume, place, check=2).err
    assert "down" in umount(volume, volume.dir, check=2).err
    umount(volume, place / "absent", check=2)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        assert "tmpfs" in umount(volume, place, check=2).err
        assert machine.mounts_below(place)
    finally:
        subprocess.run(["umount", place], check=True)


def test_bad_places_are_refused(volume, fresh):
    snapshot(volume, "s")
    point = f"{volume.name}@s"
    place = fresh()
    (place / "file").write_text("x")
    (volume.dir / "below").mkdir()
    for bad in (place, place / "file", place / "absent", volume.dir / "below", volume.standby):
        refused = volume.run("mount", point, bad, check=2)
        assert refused.err.count("\n") == 1, refused
    empty = place / "empty"
    empty.mkdir()
    for bad in ("nothing@s", volume.name, f"{volume.name}@absent", f"{point}:/path", "@", ""):
        refused = volume.run("mount", bad, empty, check=2)
        assert refused.err.count("\n") == 1, refused
    volume.run("mount", point, empty)
    assert "already" in volume.run("mount", point, empty, check=2).err
    inside = within(empty, volume.dir) / "below"
    volume.run("mount", point, inside, check=2)
    umount(volume, empty)
    assert not machine.mounts_below(place)
    assert len(volume.processes()) == 2, "the daemon and the standby"


def test_two_at_one_place_at_once(volume, fresh):
    snapshot(volume, "s")
    place = fresh()
    codes = []
    threads = [
        threading.Thread(
            target=lambda: codes.append(
                volume.run("mount", f"{volume.name}@s", place, check=(0, 1, 2)).code
            )
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes.count(0) == 1 and len(machine.mounts_below(place)) == 1
    umount(volume, place)
    assert not machine.mounts_below(place)


def test_names_of_places_may_be_odd(volume, fresh):
    snapshot(volume, "s")
    base = os.fsencode(fresh())
    for name in (b"new\nline", b"\xff\xfe", b"with space", b"back\\slash\\012", b"n" * 255):
        place = os.path.join(base, name)
        os.mkdir(place)
        os.symlink(place, base + b"/link")
        for given in (place, base + b"/./" + name + b"//", base + b"/link"):
            environment = dict(os.environ, TWINSPOOL_ROOT=str(volume.root))
            for command in (["mount", f"{volume.name}@s", given], ["umount", given]):
                done = subprocess.run(
                    [volumes.PROGRAM, *command], env=environment, cwd="/", capture_output=True
                )
                assert done.returncode == 0, (command, done)
            assert os.listdir(place) == []
        os.unlink(base + b"/link")
