# SPDX-License-Identifier: Apache-2.0
"""What an operation costs in messages, frames and bytes: figures that do not depend on how fast the
machine is.
"""
import os
import threading

import pytest
from messages import traced

MESSAGE_BYTES = 2048
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
# Later kernels than 6.18 only forget a directory's times, size and links then, and do without.
MESSAGES = {"LOOKUP": 2, "MKNOD": 1, "GETXATTR": 1, "WRITE": 1, "FSYNC": 1, "RENAME": 1}
MOST_MESSAGES = 10


@TRANSPORTS
def test_a_delivery_costs_ten_messages(make_volume, fresh, transport):
    volume = make_volume(transport=transport).start()
    maildir, deliveries = Maildir(volume.dir / "Maildir"), 300
    with traced(volume.dir, fresh() / "tracing") as messages:
        maildir.deliver(50)
        with messages.counted() as counts:
            maildir.deliver(deliveries)
    # What something else asks now and then rounds to nothing.
    each = {name: round(count / deliveries, 1) for name, count in sorted(counts.items())}
    print(f"{transport}: {sum(counts.values()) / deliveries:.2f} messages for a delivery: {each}")
    attributes = each.pop("GETATTR", 0)
    assert {name: count for name, count in each.items() if count} == MESSAGES
    assert sum(MESSAGES.values()) + attributes <= MOST_MESSAGES


@TRANSPORTS
def test_writers_share_their_flushes(make_volume, transport):
    """Whoever asks while a frame is being written is in the next one, with all the others."""
    volume = make_volume(transport=transport).start()
    writers, rounds = 16, 200
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
    frames = (volume.status()["journal"]["frames"] - before) / (writers * rounds)
    print(f"{transport}: {frames:.3f} frames for an fsync of one of {writers} writers")
    assert 1 / writers / 2 < frames < 0.6


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
    assert MESSAGE_BYTES < size <= 1.25 * MESSAGE_BYTES
    assert frames <= 1.1
