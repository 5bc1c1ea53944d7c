# SPDX-License-Identifier: Apache-2.0
"""What an operation costs in messages, frames and bytes: figures that do not depend on how fast the
machine is.
"""
import contextlib
import os
import threading

import pytest
from messages import traced

MESSAGE_BYTES = 2048
FRAME_HEADER_BYTES = 128
TRANSPORTS = pytest.mark.parametrize("transport", ["io_uring", "dev"])


class Maildir:
    """Durable deliveries, one after the other; what is random does not compress."""

    def __init__(self, path):
        self.tmp, self.new, self.count = path / "tmp", path / "new", 0
        for directory in (path, self.tmp, self.new):
            directory.mkdir()

    def deliver(self, times):
        for _ in range(times):
            name = f"1700000000.M{self.count}P1234.mail.example.org"
            self.count += 1
            fd = os.open(self.tmp / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            os.write(fd, os.urandom(MESSAGE_BYTES))
            os.fsync(fd)
            os.close(fd)
            os.rename(self.tmp / name, self.new / name)


# LOOKUP: of the name in tmp, and of the one in new. GETXATTR: the kernel asks for
# security.capability before the first write to an inode. GETATTR: to check permissions, once each
# time that a directory's entries have changed; of tmp at open and at rename, of new at rename.
# Kernels with FUSE_STATX_MODDIR (6.18 lacks it) drop only its times, size and links then.
DELIVERY = {
    **{"LOOKUP": 2, "MKNOD": 1, "GETXATTR": 1, "WRITE": 1, "FSYNC": 1, "RENAME": 1},
    "GETATTR": 3,
}


def assert_messages(found, expected):
    """Just these; of GETATTR fewer will do."""
    assert found.get("GETATTR", 0) <= expected.get("GETATTR", 0)
    assert {**found, "GETATTR": 0} == {**expected, "GETATTR": 0}


@contextlib.contextmanager
def acting_as(uid, gid):
    os.setegid(gid), os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0), os.setegid(0)


def average(counts, times, what):
    """Of each message, to a tenth: what something else asks now and then rounds to nothing."""
    each = {name: round(count / times, 1) for name, count in sorted(counts.items())}
    print(f"{sum(counts.values()) / times:.2f} messages for {what}: {each}")
    return {name: count for name, count in each.items() if count}


def messages_of_a_delivery(volume, directory, uid=0, gid=0, deliveries=300):
    maildir = Maildir(volume.dir / "Maildir")
    for each in (volume.dir / "Maildir", maildir.tmp, maildir.new):
        os.chown(each, 0, gid), each.chmod(0o770)
    with traced(volume.dir, directory) as messages:
        with acting_as(uid, gid):
            maildir.deliver(50)
        with messages.counted() as counts, acting_as(uid, gid):
            maildir.deliver(deliveries)
    return average(counts, deliveries, "a delivery")


@TRANSPORTS
def test_a_delivery_costs_ten_messages(make_volume, fresh, transport):
    volume = make_volume(transport=transport).start()
    assert_messages(messages_of_a_delivery(volume, fresh() / "tracing"), DELIVERY)


def test_a_delivery_by_a_member_of_the_group_costs_thirteen(make_volume, fresh):
    """With a directory's attributes the kernel drops its ACL, which it needs for everybody but the
    owner.
    """
    volume = make_volume().start()
    volume.dir.chmod(0o755)
    counts = messages_of_a_delivery(volume, fresh() / "tracing", uid=1500, gid=1500)
    acls = counts.get("GETATTR", 0)
    assert_messages(counts, DELIVERY | {"GETXATTR": DELIVERY["GETXATTR"] + acls})


def create_and_unlink(directory, number):
    path = directory / f"empty{number}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.stat(path)
    os.unlink(path)


def write_and_sync(directory, number):
    fd = os.open(directory / "log", os.O_CREAT | os.O_WRONLY, 0o600)
    os.pwrite(fd, b"x" * 8192, max(number, 0) * 8192)
    os.fdatasync(fd)
    os.close(fd)


def read_again(directory, number):
    """A mail reader's work on a message that it has seen."""
    path = directory / "known"
    if number < 0 and not path.exists():
        path.write_bytes(b"x" * 5000)
    fd = os.open(path, os.O_RDONLY)
    os.fstat(fd), os.read(fd, 10000)
    os.close(fd)
    os.stat(path)


def list_again(directory, number):
    """The list of messages, with all that stat says of each."""
    if number == -5:
        for message in range(100):
            (directory / f"1700000000.M{message}P1234.mail.example.org").write_bytes(b"x")
    for name in os.listdir(directory):
        os.stat(directory / name)


@pytest.mark.parametrize(
    "operation, expected",
    [
        # A new name and a lost one: the directory's attributes are asked for after each.
        (create_and_unlink, {"GETATTR": 2, "LOOKUP": 1, "MKNOD": 1, "UNLINK": 1}),
        (write_and_sync, {"WRITE": 1, "FSYNC": 1}),
        (read_again, {}),
        # GETATTR: opendir() wants the directory's attributes, with the atime, which reading changes.
        # READDIRPLUS: at the beginning the kernel always asks for attributes, too. READDIR: the end.
        (
            list_again,
            {"GETATTR": 1, "OPENDIR": 1, "READDIRPLUS": 1, "READDIR": 1, "RELEASEDIR": 1},
        ),
    ],
)
def test_messages_of_other_work(make_volume, fresh, operation, expected):
    volume, times = make_volume().start(), 200
    directory = volume.dir / "directory"
    directory.mkdir()
    with traced(volume.dir, fresh() / "tracing") as messages:
        for number in range(-5, 0):
            operation(directory, number)
        with messages.counted() as counts:
            for number in range(times):
                operation(directory, number)
    assert_messages(average(counts, times, operation.__name__), expected)


def frames_of_writers(volume, writers, rounds):
    """Frames for each fsync of writers that all begin at once, with a file each."""
    ready, failures = threading.Barrier(writers + 1), []

    def write(number):
        fd = os.open(volume.dir / f"log{number}", os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            ready.wait()
            for turn in range(rounds):
                os.pwrite(fd, b"x" * 1000, turn * 1000)
                os.fdatasync(fd)
        except OSError as error:
            failures.append(error)
        finally:
            os.close(fd)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    before = volume.status()["journal"]["frames"]
    ready.wait()
    for thread in threads:
        thread.join()
    assert failures == []
    return (volume.status()["journal"]["frames"] - before) / (writers * rounds)


@TRANSPORTS
def test_writers_share_their_flushes(make_volume, transport):
    """Whoever asks while a frame is being written is in the next one, with all the others. On a
    machine that is busy otherwise few ask at once: so the best of three.
    """
    volume = make_volume(transport=transport).start()
    frames = [frames_of_writers(volume, writers=16, rounds=100) for _ in range(3)]
    print(f"{transport}: {[round(each, 3) for each in frames]} frames for an fsync of 16 writers")
    assert 0 < min(frames) < 0.6


def test_a_delivery_costs_three_records_and_little_more_than_its_bytes(make_volume):
    volume = make_volume().start()
    maildir, deliveries = Maildir(volume.dir / "Maildir"), 300

    def sent():
        volume.wait("applied")
        status = volume.status()
        standby = status["standbys"][0]
        return standby["sent_records"], standby["sent_bytes"], status["journal"]["frames"]

    maildir.deliver(50)
    before = sent()
    maildir.deliver(deliveries)
    records, size, frames = (
        (now - then) / deliveries for now, then in zip(sent(), before, strict=True)
    )
    print(f"a delivery: {records:.2f} records, {size:.0f} bytes, {frames:.2f} frames")
    assert 3 <= round(records, 1) <= 3.1  # create, write, rename
    assert MESSAGE_BYTES < size - frames * FRAME_HEADER_BYTES <= 1.2 * MESSAGE_BYTES
    # One for the fsync. The rename goes with the next, or alone if that is long in coming.
    assert 1 <= round(frames, 1) <= 2.1
