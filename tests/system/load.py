# SPDX-License-Identifier: Apache-2.0
"""Load on a volume: writers that log outside it what they were told, and calls that are waited for.
"""
import contextlib
import os
import random
import threading
import time

import model


class Load:
    """Several model.Writers, each with a directory of its own on the overlay and one on a plain
    disk.
    """

    def __init__(self, volume, plain, seed, writers=3, pause=0):
        self.volume, self.seed = volume, seed
        self.homes = []
        for number in range(writers):
            name = f"{plain.name}.writer{number}"
            overlay, model_of_it = volume.dir / name, plain / name
            for home in (overlay, model_of_it):
                home.mkdir(exist_ok=True)
                home.chmod(0o777)
            self.homes.append((overlay, model_of_it))
        self.pause, self.rounds, self.writers = pause, 0, []

    def start(self):
        """A script of its own for each round, all from the one seed."""
        self.rounds += 1
        self.writers = [
            model.Writer(
                overlay, plain, model.Script(f"{self.seed}.{self.rounds}.{number}"), self.pause
            )
            for number, (overlay, plain) in enumerate(self.homes)
        ]
        for writer in self.writers:
            writer.start()
        return self

    def stop(self):
        for writer in self.writers:
            writer.stop()

    def close(self):
        """Lets go of the files that a failed test left open; a busy volume does not go down."""
        for writer in self.writers:
            writer.ended.set()
            writer.join(60)
            writer.both.close()

    def join(self, timeout=60):
        """After a kill: each writer ends by itself, because its calls fail."""
        for writer in self.writers:
            writer.join(timeout)
            assert not writer.is_alive(), f"a writer hangs in {writer.in_flight}"

    def settle(self):
        """Nothing acknowledged is lost. A writer whose last operation was cut in two goes on from
        what is there.
        """
        lost = []
        for writer, (overlay, plain) in zip(self.writers, self.homes):
            lost += writer.settle()
            if writer.in_flight:
                make_alike(overlay, plain)
        assert not lost, f"seed {self.seed}, round {self.rounds}:\n" + "\n".join(lost[:20])

    @property
    def steps(self):
        return sum(writer.steps for writer in self.writers)


def make_alike(source, target):
    """`target` becomes what `source` is; only content can differ, by a part of one operation."""
    for path, (_, what) in model.picture(source).items():
        if isinstance(what, tuple) and (target / path).is_file():
            size = (source / path).stat().st_size
            times = (source / path).stat()
            if size < 8 << 20:
                (target / path).write_bytes((source / path).read_bytes())
            else:
                os.truncate(target / path, size)
            if times.st_mtime < model.LONG_AGO + 10**8:
                os.utime(target / path, ns=(times.st_mtime_ns, times.st_mtime_ns))


class Call(threading.Thread):
    """One call in the background: whether it has returned, what, and when."""

    def __init__(self, work, *arguments):
        super().__init__(daemon=True)
        self.work, self.arguments = work, arguments
        self.error = self.value = self.returned_at = None
        self.start()

    def run(self):
        try:
            self.value = self.work(*self.arguments)
        except OSError as error:
            self.error = error.errno
        self.returned_at = time.monotonic()

    @property
    def returned(self):
        return self.returned_at is not None

    def result(self, timeout=30):
        """The errno, 0 for none."""
        self.join(timeout)
        assert self.returned, f"{self.work} has not returned within {timeout} s"
        return self.error or 0


def write_and_sync(path, data):
    """Returns once a program may rely on it."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    return path


class Deliveries:
    """Threads that deliver as a mail server does: a file in `tmp`, fsync, rename to `new`, fsync of
    that directory. What is acknowledged is known, and how long each took. Names are used once.

    What belongs to whom: `new/` is emptied by nobody, so whatever was acknowledged stays to be found.
    """

    def __init__(self, directory, threads=4, largest=8000, pause=0.0, tag="m", seed=0):
        self.home, self.largest, self.pause, self.tag = directory, largest, pause, tag
        self.acknowledged = {}  # name: content
        self.seconds = []
        self.errors = []
        self.ended = threading.Event()
        for name in ("tmp", "new"):
            (directory / name).mkdir(exist_ok=True)
        self.threads = [
            threading.Thread(target=self.work, args=(f"{seed}.{number}", number), daemon=True)
            for number in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def work(self, seed, thread):
        chance, number = random.Random(seed), 0
        while not self.ended.is_set():
            number += 1
            name = f"{self.tag}.{thread}.{number}.eml"
            content = chance.randbytes(chance.randrange(1, self.largest))
            begin = time.monotonic()
            try:
                write_and_sync(self.home / "tmp" / name, content)
                os.rename(self.home / "tmp" / name, self.home / "new" / name)
                fd = os.open(self.home / "new", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                self.errors.append(error)
                return
            self.seconds.append(time.monotonic() - begin)
            self.acknowledged[name] = content
            self.ended.wait(self.pause)

    def names(self):
        """Of those acknowledged before this call began."""
        return list(self.acknowledged)

    def stop(self, timeout=60):
        self.ended.set()
        for thread in self.threads:
            thread.join(timeout)
            assert not thread.is_alive(), "a delivery hangs"
        return self

    def assert_in(self, *homes):
        """All that was acknowledged is there, whole."""
        for home in homes:
            for name, content in list(self.acknowledged.items()):
                found = None
                with contextlib.suppress(FileNotFoundError):
                    found = (home / "new" / name).read_bytes()
                assert found == content, f"{name} is {'wrong' if found else 'lost'} in {home}"
