# SPDX-License-Identifier: Apache-2.0
"""Writers each of whose states is known: a step is one system call, and a script of steps is the
same every time it is played.

So an image of a volume shows each writer after some number of its steps, or it is a mixture. A path
begins with the number of the directory of the volume that it is in: "1/log". Writes are of one
request each, because a longer one may be in an image in part.
"""
import hashlib
import itertools
import os
import threading

from volume import DEATH

PAGE, PAGES = 4096, 64
NOTE = "user.note"


class Player:
    """Plays steps below real directories; one home in each directory of the volume."""

    def __init__(self, homes):
        self.homes = homes

    def at(self, path):
        number, rest = path.split("/", 1)
        return self.homes[int(number)] / rest

    def play(self, step):
        verb, *arguments = step
        getattr(self, verb)(*arguments)

    def create(self, path, mode):
        os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def mkdir(self, path):
        os.mkdir(self.at(path), 0o755)

    def write_at(self, path, flags, offset, data):
        fd = os.open(self.at(path), os.O_WRONLY | flags)
        try:
            done = os.write(fd, data) if flags else os.pwrite(fd, data, offset)
            assert done == len(data), f"{path}: a short write of {done}"
        finally:
            os.close(fd)

    def append(self, path, data):
        self.write_at(path, os.O_APPEND, 0, data)

    def write(self, path, offset, data):
        self.write_at(path, 0, offset, data)

    def sync(self, path):
        fd = os.open(self.at(path), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, path, size):
        os.truncate(self.at(path), size)

    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def note(self, path, value):
        os.setxattr(self.at(path), NOTE, value)

    def rename(self, source, target):
        os.rename(self.at(source), self.at(target))

    def unlink(self, path):
        os.unlink(self.at(path))


class Model:
    """The same verbs in memory. Path → (mode, note, content); None for a directory."""

    def __init__(self):
        self.files = {}

    def play(self, step):
        verb, *arguments = step
        getattr(self, verb)(*arguments)

    def create(self, path, mode):
        self.files[path] = mode, b"", b""

    def mkdir(self, path):
        self.files[path] = None

    def append(self, path, data):
        mode, note, content = self.files[path]
        self.files[path] = mode, note, content + data

    def write(self, path, offset, data):
        mode, note, content = self.files[path]
        content = content[:offset] + data + content[offset + len(data) :]
        self.files[path] = mode, note, content

    def sync(self, path):
        pass

    def truncate(self, path, size):
        mode, note, content = self.files[path]
        self.files[path] = mode, note, content[:size].ljust(size, b"\0")

    def chmod(self, path, mode):
        self.files[path] = mode, *self.files[path][1:]

    def note(self, path, value):
        mode, _, content = self.files[path]
        self.files[path] = mode, value, content

    def rename(self, source, target):
        self.files[target] = self.files.pop(source)

    def unlink(self, path):
        del self.files[path]


def picture(homes):
    """What real directories hold, as a Model has it."""
    found = {}
    for number, home in enumerate(homes):
        for place, directories, files in os.walk(home):
            below = os.path.relpath(place, home)
            prefix = f"{number}/" if below == "." else f"{number}/{below}/"
            found.update({prefix + name: None for name in directories})
            for name in files:
                found[prefix + name] = look_at(os.path.join(place, name))
    return found


def look_at(path):
    with open(path, "rb") as file:
        note = os.getxattr(path, NOTE) if NOTE in os.listxattr(path) else b""
        return os.fstat(file.fileno()).st_mode & 0o7777, note, file.read()


def digest(seen):
    return hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()


# The scripts. They go on for ever, and what they leave behind stays small.


def log():
    """A log that only grows, each line durable; and one that begins anew every 64 lines."""
    yield "create", "0/log", 0o640
    yield "create", "1/wrapped", 0o600
    for number in itertools.count(1):
        yield "append", "0/log", b"%015d\n" % number
        yield "sync", "0/log"
        if number % 64 == 0:
            yield "truncate", "1/wrapped", 0
        yield "append", "1/wrapped", b"%015d\n" % number


def maildir():
    """Delivered, then seen, then expunged."""
    for part in ("tmp", "new", "cur"):
        yield "mkdir", f"0/{part}"
    for number in itertools.count(1):
        yield "create", f"0/tmp/{number}", 0o600
        yield "append", f"0/tmp/{number}", b"message %d\r\n" % number * (number % 200 + 1)
        yield "sync", f"0/tmp/{number}"
        yield "rename", f"0/tmp/{number}", f"0/new/{number}"
        if number > 3:
            yield "rename", f"0/new/{number - 3}", f"0/cur/{number - 3}:2,S"
        if number > 12:
            yield "unlink", f"0/cur/{number - 12}:2,S"


def pages():
    """Pages of a file of fixed size, each full of the number of the write that wrote it."""
    yield "create", "1/pages", 0o644
    yield "truncate", "1/pages", PAGES * PAGE
    for number in itertools.count(1):
        data = number.to_bytes(8, "little") * (PAGE // 8)
        yield "write", "1/pages", number * 29 % PAGES * PAGE, data
        if number % 8 == 0:
            yield "sync", "1/pages"


def pair():
    """The same counter into both directories, in turn: overwritten, as a name, as attributes."""
    for directory in (0, 1):
        yield "create", f"{directory}/counter", 0o644
    for number in itertools.count(1):
        for directory in (0, 1):
            yield "write", f"{directory}/counter", 0, number.to_bytes(8, "little")
        for directory in (0, 1):
            yield "create", f"{directory}/{number}", 0o644
        for directory in (0, 1):
            yield "note", f"{directory}/{number}", b"%d" % number
            yield "chmod", f"{directory}/{number}", 0o400 + number % 64
        if number > 10:
            for directory in (0, 1):
                yield "unlink", f"{directory}/{number - 10}"


def replaced():
    """A file that is written anew and renamed over the one before."""
    for number in itertools.count(1):
        yield "create", "1/state.new", 0o600
        yield "append", "1/state.new", b"state %d\n" % number * (number % 500 + 1)
        yield "sync", "1/state.new"
        yield "rename", "1/state.new", "1/state"


SCRIPTS = [log, maildir, pages, pair, replaced]


class States:
    """A script's model, which goes forward from one image to the next."""

    def __init__(self, script):
        self.script, self.model, self.steps = script(), Model(), 0

    def go_to(self, steps):
        while self.steps < steps:
            self.model.play(next(self.script))
            self.steps += 1

    def find(self, seen, least, most):
        """Goes to the first number of steps from `least` to `most` after which the writer's files
        are what is seen; False if there is none.
        """
        self.go_to(least)
        while self.model.files != seen:
            if self.steps >= most:
                return False
            self.go_to(self.steps + 1)
        return True

    def distance(self, seen):
        """For a message: the paths that differ from the model as it stands."""
        expected = self.model.files
        return {
            path: (shortened(expected.get(path, "absent")), shortened(seen.get(path, "absent")))
            for path in expected.keys() | seen.keys()
            if expected.get(path, "absent") != seen.get(path, "absent")
        }


def shortened(what):
    return (*what[:2], len(what[2]), what[2][-32:]) if isinstance(what, tuple) else what


class Writer(threading.Thread):
    """Plays its script until it is stopped or the daemon dies. `settle` finds, after the next `up`,
    whether the step in flight happened; `again` goes on from there.
    """

    def __init__(self, script, homes, begun=0, now=None):
        super().__init__(daemon=True)
        self.of, self.homes = script, homes
        for home in homes:
            home.mkdir(exist_ok=True)
        self.begun = self.acknowledged = begun
        self.now = now or States(script)
        self.steps = itertools.islice(script(), begun, None)
        self.ended = threading.Event()
        self.wrong = None

    def run(self):
        player = Player(self.homes)
        try:
            for step in self.steps:
                if self.ended.is_set():
                    return
                self.begun += 1
                player.play(step)
                self.acknowledged += 1
        except OSError as error:
            if error.errno not in DEATH:
                self.wrong = f"{self.of.__name__}, step {self.begun}, {step[:2]}: {error}"
        except AssertionError as error:
            self.wrong = str(error)

    def stop(self):
        self.ended.set()
        self.join(60)
        assert not self.is_alive(), f"the writer {self.of.__name__} hangs"
        assert self.wrong is None, self.wrong

    def settle(self):
        """Everything acknowledged is there, and of the step in flight all or nothing."""
        self.stop()
        seen = picture(self.homes)
        assert self.now.find(
            seen, self.acknowledged, self.begun
        ), f"{self.of.__name__} lost something: {self.now.distance(seen)}"
        self.begun = self.acknowledged = self.now.steps

    def again(self):
        self.settle()
        one = Writer(self.of, self.homes, self.begun, self.now)
        one.start()
        return one
