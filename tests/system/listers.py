# SPDX-License-Identifier: Apache-2.0
"""Processes that list a directory while others change it, and what their listings got wrong.

A message has a number and one name at a time, `<number>.x:2,<flags>`, so a listing shows by itself
what it missed or has twice. Everybody is a process of its own: threads of Python would take turns.
"""
import collections
import contextlib
import ctypes
import multiprocessing
import os
import random
import struct
import time

from calls import checked, libc

libc.syscall.restype = ctypes.c_long
SYS_getdents64 = 217
HEADER = struct.Struct("=QqHB")

Entry = collections.namedtuple("Entry", "name ino next type")


class Directory:
    """An open directory, read by getdents64 with a buffer of a size of one's own."""

    def __init__(self, path, buffer_size=32768):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.buffer = ctypes.create_string_buffer(buffer_size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def read(self):
        """What one call gives; nothing at the end."""
        size = checked(
            libc.syscall(SYS_getdents64, self.fd, self.buffer, len(self.buffer)), "getdents64"
        )
        data, at, found = self.buffer.raw[:size], 0, []
        while at < size:
            ino, next_, length, kind = HEADER.unpack_from(data, at)
            name = data[at + 19 : at + length].split(b"\0", 1)[0].decode()
            found.append(Entry(name, ino, next_, kind))
            at += length
        return found

    def rest(self):
        """All from here on, without the dots."""
        found = []
        while part := self.read():
            found += (entry for entry in part if entry.name not in (".", ".."))
        return found

    def seek(self, cookie):
        os.lseek(self.fd, cookie, os.SEEK_SET)


def list_names(path, buffer_size=32768):
    with Directory(path, buffer_size) as directory:
        return [entry.name for entry in directory.rest()]


def message_name(number, flags=""):
    return f"{number}.M{number}P7.mail.example.org:2,{flags}"


def number_of(name):
    return int(name.split(".", 1)[0])


class Maildir:
    """`cur` with messages that stay; further ones, with higher numbers, may come and go."""

    def __init__(self, path, messages):
        self.path, self.messages = path, messages
        self.cur, self.new, self.tmp = path / "cur", path / "new", path / "tmp"
        for each in (path, self.cur, self.new, self.tmp):
            each.mkdir()
        for number in range(messages):
            (self.cur / message_name(number)).write_bytes(b"x" * (number % 7))

    # What may be done to it, each for ever.

    def flag(self, seed, path=None):
        """Sets \\Seen and takes it back, of messages at random."""
        path, rng = path or self.cur, random.Random(seed)
        flags = dict.fromkeys(range(self.messages), "")
        while True:
            number = rng.randrange(self.messages)
            before, after = flags[number], "" if flags[number] else "S"
            os.rename(path / message_name(number, before), path / message_name(number, after))
            flags[number] = after
            yield

    def deliver(self, seed):
        """tmp → new → cur, and expunged again; numbers are never used twice."""
        number = self.messages + seed * 10**9
        held = collections.deque()
        while True:
            number += 1
            name = message_name(number).split(":")[0]
            fd = os.open(self.tmp / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            os.write(fd, b"message")
            os.close(fd)
            os.rename(self.tmp / name, self.new / name)
            os.rename(self.new / name, self.cur / message_name(number))
            held.append(number)
            if len(held) > 50:
                os.unlink(self.cur / message_name(held.popleft()))
            yield

    def look(self, seed):
        """stat of messages under the one or the other name, of directories, and of nothing."""
        rng = random.Random(seed)
        while True:
            name = message_name(rng.randrange(self.messages), rng.choice(["", "S"]))
            for path in (self.cur / name, self.cur, self.new, self.tmp):
                with contextlib.suppress(FileNotFoundError):
                    os.stat(path)
            yield

    def list(self, buffer_size, path=None):
        """Gives what each listing got wrong."""
        while True:
            yield self.mistakes(list_names(path or self.cur, buffer_size))

    def mistakes(self, names):
        """(missed, listed twice, of how many names) of messages that were there throughout."""
        counts = collections.Counter(number_of(name) for name in names)
        missed = sum(number not in counts for number in range(self.messages))
        return missed, sum(count > 1 for count in counts.values()), len(names)


class Crowd:
    """Processes that each go on with a generator until the block ends. An error in one of them is an
    error of the block.
    """

    def __init__(self):
        self.context = multiprocessing.get_context("fork")
        self.end, self.results = self.context.Event(), self.context.SimpleQueue()
        self.processes, self.counts, self.said = [], collections.Counter(), []

    def add(self, what, function, *arguments):
        self.processes.append(
            self.context.Process(target=self._run, args=(what, function, arguments), daemon=True)
        )

    def _run(self, what, function, arguments):
        steps, said, error = 0, [], None
        try:
            for word in function(*arguments):
                steps += 1
                if word and any(word[:2]) and len(said) < 1000:
                    said.append(word)
                if self.end.is_set():
                    break
        except BaseException as caught:  # noqa: BLE001
            error = f"{what}: {caught!r}"
        self.results.put((what, steps, said, error))

    def run(self, seconds):
        for process in self.processes:
            process.start()
        time.sleep(seconds)
        self.end.set()
        errors = []
        for _ in self.processes:
            what, steps, said, error = self.results.get()
            self.counts[what] += steps
            self.said += said
            errors += [error] if error else []
        for process in self.processes:
            process.join()
        assert not errors, errors
        return self
