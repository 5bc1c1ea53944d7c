# SPDX-License-Identifier: Apache-2.0
"""Load on a volume: writers that log outside it what they were told, and calls that are waited for.
"""
import os
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
