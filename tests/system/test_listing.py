# SPDX-License-Identifier: Apache-2.0
"""A listing of a directory, and whatever else the kernel keeps of the overlay without a time limit,
tells the truth: while the tree changes, and when all is quiet again.

TWINSPOOL_LISTING_SECONDS makes each of the runs longer: hours, for those who want to know.
"""
import contextlib
import errno
import mmap
import multiprocessing
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from calls import ACL_ACCESS, KEEP_SIZE, PUNCH_HOLE, acl, as_user, fallocate, msync
from listers import Crowd, Directory, Maildir, list_names

SECONDS = float(os.environ.get("TWINSPOOL_LISTING_SECONDS", "1"))
MESSAGES = 1000
TRANSPORTS = pytest.mark.parametrize("transport", ["io_uring", "dev"])


@pytest.fixture(scope="module")
def volumes(make_shared_volume):
    made = {}

    def of(transport):
        if transport not in made:
            made[transport] = make_shared_volume(transport=transport).start()
        return made[transport]

    yield of
    for volume in made.values():
        volume.assert_equal()


@pytest.fixture
def maildir(volumes, transport, request):
    volume = volumes(transport)
    made = Maildir(volume.dir / request.node.name.replace("/", "_"), MESSAGES)
    made.backing = volume.backing() / made.path.name
    return made


def facts(path):
    now = os.lstat(path)
    return (
        *(oct(now.st_mode), now.st_nlink, now.st_uid, now.st_gid),
        *(now.st_size if not os.path.isdir(path) else 0, now.st_mtime_ns, now.st_ctime_ns),
    )


def assert_quiet_truth(path, backing, buffer_size=32768):
    """What is listed, and what stat says of it, is what stands in the backing tree."""
    wrong = []
    for directory, _, _ in os.walk(backing):
        seen = path / os.path.relpath(directory, backing)
        there, listed = sorted(os.listdir(directory)), sorted(list_names(seen, buffer_size))
        if there != listed:
            wrong.append(
                f"{seen}: {len(set(there) - set(listed))} not listed,"
                f" {len(set(listed) - set(there))} listed that do not exist,"
                f" {len(listed) - len(set(listed))} listed twice"
            )
        for name in [".", *there]:
            told, true = facts(seen / name), facts(os.path.join(directory, name))
            if told != true:
                wrong.append(f"{seen / name}: stat says {told}, it is {true}")
    assert not wrong, f"{len(wrong)} wrong: " + "\n".join(wrong[:20])


@TRANSPORTS
@pytest.mark.parametrize("listers", [1, 2, 8])
@pytest.mark.parametrize("buffer_size", [600, 4096, 65536])
def test_no_listing_misses_a_message_while_flags_change(maildir, listers, buffer_size):
    crowd = Crowd()
    crowd.add("flags", maildir.flag, 1)
    for _ in range(listers):
        crowd.add("listings", maildir.list, buffer_size)
    crowd.run(SECONDS)
    print(f"{crowd.counts['listings']} listings during {crowd.counts['flags']} changes of flags")
    assert crowd.counts["listings"] and crowd.counts["flags"]
    assert_quiet_truth(maildir.path, maildir.backing, buffer_size)
    assert not crowd.said, f"(missed, twice, names) of {crowd.counts['listings']}: {crowd.said[:20]}"


@TRANSPORTS
def test_no_listing_misses_a_message_while_others_come_and_go(maildir):
    """Deliveries, flags, expunges; listings, looks, `ls -l`, tar and rsync."""
    crowd = Crowd()
    for seed in (1, 2):
        crowd.add("deliveries", maildir.deliver, seed)
    crowd.add("flags", maildir.flag, 3)
    crowd.add("looks", maildir.look, 4)
    for buffer_size in (700, 32768):
        crowd.add("listings", maildir.list, buffer_size)
    for command in (
        ["ls", "-l"],
        ["tar", "--ignore-failed-read", "--warning=none", "-cf", "/dev/null"],
        ["rsync", "-an", "--list-only"],
    ):
        crowd.add(command[0], repeat, [*command, f"{maildir.cur}/"])
    crowd.run(SECONDS * 2)
    print(dict(crowd.counts))
    assert_quiet_truth(maildir.path, maildir.backing)
    assert not crowd.said, f"(missed, twice, names) of {crowd.counts['listings']}: {crowd.said[:20]}"


def repeat(command):
    """Programs that complain of what goes away meanwhile do so with an exit code; that they die or
    hang is another thing.
    """
    while True:
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert done.returncode >= 0, done
        yield


# What makes an object, what changes it a few times, and the name that it may have meanwhile. The first
# change makes the kernel ask, and the next may come while it is being told.
TIMES = 6


def make_directory(path):
    path.mkdir()


def make_with_messages(path):
    path.mkdir()
    for number in range(TIMES):
        (path / str(number)).write_bytes(b"text")


def make_file(path):
    path.write_bytes(b"text" * 2000)


def make_set_id_file(path):
    make_file(path)
    os.chown(path, 1000, 1000)
    path.chmod(0o6755)


def rename_to_and_fro(path, number):
    names = [str(path), f"{path}.renamed"]
    os.rename(names[number % 2], names[1 - number % 2])


CHANGES = {
    "made in it": (make_directory, lambda path, n: os.mknod(path / str(n))),
    "a directory made in it": (make_directory, lambda path, n: (path / str(n)).mkdir()),
    "a link in it": (make_with_messages, lambda path, n: os.link(path / "0", path / f"b{n}")),
    "renamed in it": (
        make_with_messages,
        lambda path, n: os.rename(path / str(n), path / f"b{n}"),
    ),
    "removed from it": (make_with_messages, lambda path, n: os.unlink(path / str(n))),
    "renamed itself": (make_file, rename_to_and_fro),
    "mode": (make_file, lambda path, n: path.chmod(0o600 + n)),
    "times": (make_file, lambda path, n: os.utime(path, ns=(n, 10**18 + n))),
    "half of it": (make_set_id_file, lambda path, n: grow_too_far(path)),
    "size": (make_file, lambda path, n: os.truncate(path, 4096 - n)),
    "linked": (make_file, lambda path, n: os.link(path, f"{path}.{n}")),
    "xattr": (make_file, lambda path, n: os.setxattr(path, "user.a", b"%d" % n)),
    "xattr removed": (make_file, lambda path, n: give_and_take_xattr(path)),
    "acl": (make_file, lambda path, n: os.setxattr(path, ACL_ACCESS, acl(1000, n, group=n))),
    "written": (make_file, lambda path, n: in_place(path, os.pwrite, b"more", 5 * n)),
    "hole": (make_file, lambda path, n: in_place(path, fallocate, KEEP_SIZE | PUNCH_HOLE, n, 9)),
    "mapped": (make_file, lambda path, n: store_by_mapping(path, n)),
}


def grow_too_far(path):
    """It takes the set-id bits, and then it fails."""
    as_user(1000, 1000)
    try:
        os.truncate(path, 1 << 62)
    except OSError as error:
        assert error.errno == errno.EFBIG
    finally:
        as_user(0, 0)


def give_and_take_xattr(path):
    os.setxattr(path, "user.a", b"")
    os.removexattr(path, "user.a")


def in_place(path, call, *arguments):
    fd = os.open(path, os.O_RDWR)
    try:
        call(fd, *arguments)
    finally:
        os.close(fd)


def store_by_mapping(path, number):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[number] = number
        msync(view)


def change_each(paths, change, place):
    for index, path in enumerate(paths):
        place.value = index
        for number in range(TIMES):
            change(path, number)
    while True:
        place.value = len(paths)
        yield


def look_at(paths, place):
    while True:
        for path in paths[place.value :][:1]:
            for each in (path, f"{path}.renamed"):
                with contextlib.suppress(FileNotFoundError):
                    os.stat(each)
        yield


@TRANSPORTS
@pytest.mark.parametrize("what", CHANGES)
def test_attributes_that_were_read_during_a_change_do_not_stay(volumes, transport, what):
    """The kernel takes for good what a stat brings, also when the object changed while that was on
    its way.
    """
    volume = volumes(transport)
    before, change = CHANGES[what]
    home = volume.dir / f"{transport}.{what}".replace(" ", "_")
    home.mkdir()
    paths = [home / str(number) for number in range(300)]
    for path in paths:
        before(path)
        list(map(os.stat, [path, *(path.iterdir() if path.is_dir() else [])]))
    crowd, place = Crowd(), multiprocessing.Value("i", 0, lock=False)
    crowd.add("changes", change_each, paths, change, place)
    for _ in range(3):
        crowd.add("looks", look_at, paths, place)
    crowd.run(SECONDS)
    assert crowd.counts["looks"] and place.value == len(paths)
    assert_quiet_truth(home, volume.backing() / home.name)


@pytest.mark.slow
@pytest.mark.limit(300)
def test_a_directory_of_200_000_is_one_moment_with_places_that_stay_good(make_volume):
    volume = make_volume()
    box, count = volume.dir / "box", 200_000
    box.mkdir()
    names = [f"{number:06}.{'M' * 40}.mail.example.org:2," for number in range(count)]
    for name in names:
        os.mknod(box / name)
    volume.create()
    volume.up()
    rng = random.Random(1)
    with Directory(box) as directory:
        first = directory.read()
        for name in rng.sample(names, 2000):
            os.rename(box / name, box / f"{name}S")
        listed = first + directory.rest()
        assert sorted(entry.name for entry in listed if entry.name not in (".", "..")) == names
        for at in rng.sample(range(len(listed) - 1), 300):
            directory.seek(listed[at].next)
            assert directory.read()[0].name == listed[at + 1].name
        directory.seek(0)
        again = [entry.name for entry in directory.rest()]
    assert sorted(again) == sorted(os.listdir(volume.backing() / "box"))
    assert sum(name.endswith("S") for name in again) == 2000
    # An opening of its own, at a place of an earlier one: what the file system below has there.
    found = []
    for path in (box, volume.backing() / "box"):
        with Directory(path) as directory:
            directory.seek(listed[count // 2].next)
            found.append([entry.name for entry in directory.rest()])
    assert found[0] == found[1] and len(found[0]) > count // 3


@TRANSPORTS
def test_memory_comes_back_from_programs_that_are_killed(volumes, transport):
    volume = volumes(transport)
    box = volume.dir / f"{transport}.killed"
    box.mkdir()
    for number in range(3000):
        os.mknod(box / f"{number:06}.{'M' * 200}")
    listing = (
        "import os, sys, time\n"
        "entries = os.scandir(sys.argv[1])\n"
        "next(entries), print(flush=True), time.sleep(99)"
    )

    def resident():
        status = Path(f"/proc/{volume.primary_pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def kill_listers(times):
        for number in range(times):
            (box / f"changed{times}.{number}").touch()  # so that each has a moment of its own
            with subprocess.Popen(
                [sys.executable, "-c", listing, box], stdout=subprocess.PIPE
            ) as lister:
                lister.stdout.readline()
                lister.kill()

    kill_listers(40)  # what malloc keeps once, it keeps
    before, deadline = resident(), time.monotonic() + 10
    kill_listers(41)
    while resident() - before > 41 * 3000 * 240 / 1024 / 4:  # KiB
        assert time.monotonic() < deadline, "41 listings of 700 KiB are still there"
        time.sleep(0.1)


@TRANSPORTS
def test_an_open_directory_that_was_removed_is_as_on_any_file_system(volumes, transport):
    volume = volumes(transport)
    path = volume.dir / f"{transport}.removed"
    path.mkdir()
    (path / "file").touch()
    with Directory(path) as directory:
        (path / "file").unlink()
        path.rmdir()
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                directory.rest()
            directory.seek(0)


@TRANSPORTS
def test_a_full_disk_or_an_immutable_directory_can_be_listed(make_volume, disk, fresh, transport):
    small = disk(fresh() / "small", 64 << 20)
    place = small.path
    volume = make_volume(base=fresh(), directories=[place / "dir"], transport=transport).start()
    box = volume.dir / "box"
    box.mkdir()
    names = [f"{number:05}.{'M' * 200}" for number in range(8000)]
    for name in names:
        os.mknod(box / name)
    small.fill()
    subprocess.run(["chattr", "+i", volume.backing() / "box"], check=True)
    try:
        assert sorted(list_names(box)) == names
    finally:
        subprocess.run(["chattr", "-i", volume.backing() / "box"], check=True)
    subprocess.run(["rm", "-rf", box], check=True)
    assert not box.exists()


def test_a_subvolume_is_not_listed_under_another_objects_number(make_volume, disk, fresh):
    """The numbers of btrfs's subvolumes are those of files elsewhere."""
    place = disk(fresh() / "btrfs", 256 << 20, "btrfs").path
    volume = make_volume(base=fresh(), directories=[place / "dir"]).start()
    for number in range(20):
        (volume.dir / f"file{number}").touch()
    for number in range(5):
        command = ["btrfs", "subvolume", "create", volume.backing() / f"sub{number}"]
        subprocess.run(command, check=True, capture_output=True)
    for _ in range(3):
        found = [entry for entry in os.scandir(volume.dir) if entry.stat()]
        assert sorted(entry.name for entry in found) == sorted(f"file{n}" for n in range(20))
        assert all(entry.inode() == entry.stat().st_ino for entry in found)
