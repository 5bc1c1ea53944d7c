# SPDX-License-Identifier: Apache-2.0
"""Random operations, played on the overlay and on a plain directory: the plain directory is the
model.

An operation is a tuple (verb, argument …) of plain values and one mutating system call, so that it
either happened or did not. Paths are relative; open files are numbered slots. A Player carries the
operations out below one root and says what came of each; `picture` says what a tree looks like.
"""
import collections
import contextlib
import errno
import hashlib
import os
import random
import stat
import threading
import time

import calls

SLOTS = 6
USER = 1000
# Explicit times are long ago and the clock's are not, so both trees show the same times once the
# clock's are left out, and a change that forgot to set the time, or set it too much, is seen.
LONG_AGO = 1_300_000_000
CHUNK = 128 << 10

# What a call says when the daemon dies.
DEATH = "ENOTCONN", "ECONNABORTED", "ECANCELED", "EIO", "EINTR"

# Operations after which a killed daemon may have left part of the change in the file's content.
PARTIAL = {"pwrite", "append", "copy", "fallocate", "truncate", "ftruncate"}


def content(seed, length):
    return random.Random(seed).randbytes(min(length, 4096)) * (length // 4096 + 1)


class Player:
    def __init__(self, root):
        self.root, self.slots = str(root), {}

    def at(self, path):
        return f"{self.root}/{path}" if path else self.root

    def play(self, operation):
        """What came of it: ("ok", value) or the name of the errno."""
        verb, *arguments, user = operation
        if user:
            calls.as_user(user, user)
        try:
            return "ok", getattr(self, verb)(*arguments)
        except OSError as error:
            return errno.errorcode[error.errno]
        finally:
            if user:
                calls.as_user(0, 0)

    def forget_slots(self):
        for fd in self.slots.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self.slots = {}

    def fd(self, slot):
        if slot not in self.slots:
            raise OSError(errno.EBADF, "no such slot")
        return self.slots[slot]

    # Names.

    def create(self, path, mode):
        os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def open(self, slot, path, flags):
        fd = os.open(self.at(path), flags, 0o640)
        self.close(slot)
        self.slots[slot] = fd

    def close(self, slot):
        if slot in self.slots:
            os.close(self.slots.pop(slot))

    def mkdir(self, path, mode):
        os.mkdir(self.at(path), mode)

    def rmdir(self, path):
        os.rmdir(self.at(path))

    def unlink(self, path):
        os.unlink(self.at(path))

    def link(self, source, target):
        os.link(self.at(source), self.at(target), follow_symlinks=False)

    def symlink(self, target, path):
        os.symlink(target, self.at(path))

    def mknod(self, path, kind, device):
        os.mknod(self.at(path), kind | 0o644, device)

    def rename(self, source, target, flags):
        calls.renameat2(self.at(source), self.at(target), flags)

    # Content.

    def pwrite(self, slot, offset, seed, length):
        return os.pwrite(self.fd(slot), content(seed, length)[:length], offset)

    def append(self, slot, seed, length):
        fd = self.fd(slot)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EBADF, "what goes through a FIFO is the kernel's, times included")
        return os.writev(fd, [content(seed, length)[:length]])

    def pread(self, slot, offset, length):
        return what_was_read(os.pread(self.fd(slot), length, offset))

    def read(self, path):
        with open(self.at(path), "rb", opener=lambda p, f: os.open(p, f | os.O_NONBLOCK)) as file:
            return what_was_read(file.read(4 << 20) or b"")  # a FIFO may have nothing

    def truncate(self, path, size):
        os.truncate(self.at(path), size)

    def ftruncate(self, slot, size):
        os.ftruncate(self.fd(slot), size)

    def fallocate(self, slot, mode, offset, length):
        calls.fallocate(self.fd(slot), mode, offset, length)

    def copy(self, source, source_offset, target, target_offset, length):
        a, b = self.fd(source), self.fd(target)
        if os.fstat(a).st_ino == os.fstat(b).st_ino:
            raise OSError(errno.EBADF, "ranges of one file may overlap; not the model's business")
        return os.copy_file_range(a, b, length, source_offset, target_offset)

    def fsync(self, slot):
        os.fsync(self.fd(slot))

    def fsyncdir(self, path):
        fd = os.open(self.at(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # Attributes.

    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def chown(self, path, uid, gid):
        os.lchown(self.at(path), uid, gid)

    def utimens(self, path, ns):
        os.utime(self.at(path), ns=(ns, ns), follow_symlinks=False)

    def setxattr(self, path, name, seed, length):
        os.setxattr(self.at(path), name, content(seed, length)[:length], follow_symlinks=False)

    def removexattr(self, path, name):
        os.removexattr(self.at(path), name, follow_symlinks=False)

    def setacl(self, path, name, user, permissions):
        os.setxattr(self.at(path), name, calls.acl(user, permissions), follow_symlinks=False)

    def stat(self, path):
        return look(self.at(path), os.lstat(self.at(path)))

    def fstat(self, slot):
        return attributes(os.fstat(self.fd(slot)))

    def listdir(self, path):
        return sorted(os.listdir(self.at(path)))

    def readlink(self, path):
        return os.readlink(self.at(path))


def what_was_read(data):
    return len(data), hashlib.md5(data).hexdigest()


def attributes(st):
    size = st.st_size if not stat.S_ISDIR(st.st_mode) else None
    mtime = st.st_mtime_ns if st.st_mtime < LONG_AGO + 10**8 else "now"
    return oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, size, st.st_rdev, mtime


def look(path, st):
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    return attributes(st), xattrs


def picture(root):
    """Everything a program can see of a tree, by relative path; hard links are named by their first
    path.
    """
    seen, first = {}, {}

    def walk(path, below):
        st = os.lstat(path)
        what = None
        if stat.S_ISREG(st.st_mode):
            what = first.setdefault(st.st_ino, below), digest(path, st.st_size)
        elif stat.S_ISLNK(st.st_mode):
            what = os.readlink(path)
        seen[below] = look(path, st), what
        if stat.S_ISDIR(st.st_mode):
            for name in sorted(os.listdir(path)):
                walk(f"{path}/{name}", f"{below}/{name}" if below else name)

    walk(str(root), "")
    return seen


def digest(path, size):
    """Of the first and last 4 MiB: files of the model are smaller, or nearly all hole in between."""
    with open(path, "rb") as file:
        found = hashlib.md5(file.read(4 << 20))
        if size > 8 << 20:
            file.seek(size - (4 << 20))
            found.update(file.read())
    return found.hexdigest()


def differences(expected, actual):
    """A line for each path that is not as expected."""
    return [
        f"{path or '.'}: expected {expected.get(path)}, is {actual.get(path)}"
        for path in sorted(expected.keys() | actual.keys())
        if expected.get(path) != actual.get(path)
    ]


class Script:
    """An endless sequence of operations from one seed, over a small set of names so that they
    collide.
    """

    VERBS = {
        "create": 8,
        "open": 20,
        "close": 1,
        "mkdir": 6,
        "rmdir": 2,
        "unlink": 9,
        "link": 4,
        "symlink": 3,
        "mknod": 2,
        "rename": 12,
        "pwrite": 18,
        "append": 8,
        "pread": 5,
        "read": 5,
        "truncate": 4,
        "ftruncate": 3,
        "fallocate": 5,
        "copy": 3,
        "fsync": 2,
        "fsyncdir": 1,
        "chmod": 4,
        "chown": 3,
        "utimens": 4,
        "setxattr": 4,
        "removexattr": 2,
        "setacl": 2,
        "stat": 6,
        "fstat": 4,
        "listdir": 3,
        "readlink": 2,
    }
    READING = {
        "pread",
        "read",
        "stat",
        "fstat",
        "listdir",
        "readlink",
        "close",
        "fsync",
        "fsyncdir",
    }

    def __init__(self, seed, prefix="", users=True):
        self.random, self.prefix, self.users = random.Random(seed), prefix, users
        self.verbs, self.weights = zip(*self.VERBS.items())

    def path(self):
        """Mostly a file's name below names of directories; now and then the kinds are mixed up."""
        last = self.random.choice(
            ("p", "q") if self.random.random() < 0.15 else ("a", "b", "c", "d", "ü n", "x" * 255)
        )
        if self.random.random() < 0.005:
            last = "y" * 256
        return self.prefix + self.below() + last

    def below(self):
        return "".join(
            self.random.choice(("p/", "q/")) for _ in range(self.random.choice((0, 0, 0, 1, 1, 2)))
        )

    def slot(self):
        return self.random.randrange(SLOTS)

    def offset(self):
        kind = self.random.random()
        if kind < 0.02:
            return (5 << 30) + self.random.randrange(1 << 20)
        if kind < 0.5:
            return self.random.randrange(64) * 4096
        return self.random.randrange(1 << 18)

    def length(self):
        return self.random.choice(
            (0, 1, self.random.randrange(1, 8192), 4096, self.random.randrange(1, CHUNK))
        )

    def __iter__(self):
        return self

    def __next__(self):
        verb = self.random.choices(self.verbs, self.weights)[0]
        user = USER if self.users and self.random.random() < 0.2 else 0
        return verb, *getattr(self, f"for_{verb}", self.for_path)(), user

    def for_path(self):
        return (self.path(),)

    def for_slot(self):
        return (self.slot(),)

    for_close = for_fsync = for_fstat = for_slot

    def for_create(self):
        return self.path(), self.random.choice((0o600, 0o644, 0o666, 0o4755))

    def for_open(self):
        flags = self.random.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR))
        flags |= self.random.choice(
            (
                0,
                0,
                os.O_CREAT,
                os.O_CREAT,
                os.O_CREAT,
                os.O_CREAT,
                os.O_CREAT | os.O_EXCL,
                os.O_CREAT | os.O_TRUNC,
                os.O_TRUNC,
                os.O_CREAT | os.O_APPEND,
                os.O_NOFOLLOW,
                os.O_DIRECTORY,
                os.O_SYNC,
            )
        )
        return self.slot(), self.path(), flags | os.O_NONBLOCK

    def for_mkdir(self):
        return self.prefix + self.below() + self.random.choice(("p", "q")), self.random.choice(
            (0o700, 0o755, 0o2775, 0o1777)
        )

    def for_rmdir(self):
        return (self.prefix + self.below() + self.random.choice(("p", "q")),)

    def for_link(self):
        return self.path(), self.path()

    def for_symlink(self):
        return self.random.choice(("a", "p/a", "./b", "missing", "z" * 300)), self.path()

    def for_mknod(self):
        kind, device = self.random.choice(
            (
                (stat.S_IFIFO, 0),
                (stat.S_IFCHR, os.makedev(1, 3)),
                (stat.S_IFSOCK, 0),
                (stat.S_IFREG, 0),
            )
        )
        return self.path(), kind, device

    def for_rename(self):
        return (
            self.path(),
            self.path(),
            self.random.choice((0, 0, 0, calls.RENAME_NOREPLACE, calls.RENAME_EXCHANGE)),
        )

    def for_pwrite(self):
        return self.slot(), self.offset(), self.random.getrandbits(32), self.length()

    def for_append(self):
        return self.slot(), self.random.getrandbits(32), self.length()

    def for_pread(self):
        return self.slot(), self.offset(), self.length()

    def for_truncate(self):
        return self.path(), self.offset()

    def for_ftruncate(self):
        return self.slot(), self.offset()

    def for_fallocate(self):
        keep = calls.KEEP_SIZE
        mode = self.random.choice(
            (0, keep, keep | calls.PUNCH_HOLE, calls.ZERO_RANGE, calls.ZERO_RANGE | keep)
        )
        return self.slot(), mode, self.random.randrange(1 << 18), self.random.randrange(1, CHUNK)

    def for_copy(self):
        return (
            self.slot(),
            self.random.randrange(1 << 16),
            self.slot(),
            self.random.randrange(1 << 18),
            self.length(),
        )

    def for_chmod(self):
        return self.path(), self.random.choice(
            (0o600, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o2770, 0o1777)
        )

    def for_chown(self):
        """At least one of the two: a change of nothing is refused by some file systems only."""
        uid, group = self.random.choice((-1, 0, USER)), self.random.choice((-1, 0, USER, 50))
        return self.path(), uid, 0 if uid == group == -1 else group

    def for_utimens(self):
        return self.path(), (LONG_AGO * 10**9) + self.random.randrange(10**15)

    def for_setxattr(self):
        name = self.random.choice(("user.one", "user.two", "trusted.one"))
        return self.path(), name, self.random.getrandbits(32), self.random.randrange(400)

    def for_removexattr(self):
        return self.path(), self.random.choice(
            ("user.one", "user.two", "trusted.one", calls.ACL_ACCESS)
        )

    def for_setacl(self):
        return (
            self.path(),
            self.random.choice((calls.ACL_ACCESS, calls.ACL_DEFAULT)),
            USER,
            self.random.randrange(8),
        )


class Comparison:
    """The same operations on both sides; of the last ones it knows what came of them."""

    HISTORY = 30

    def __init__(self, overlay, plain, script):
        self.overlay, self.plain, self.script = Player(overlay), Player(plain), script
        self.steps = 0
        self.last = collections.deque(maxlen=self.HISTORY)
        self.wrong = None

    def judge(self, operation, actual, expected):
        self.steps += 1
        if actual != expected:
            before = "\n  ".join(f"{before} → {result}" for before, result in self.last)
            self.wrong = (
                f"step {self.steps}: {operation}\nexpected {expected}\n"
                f"and got  {actual}\nafter\n  {before}"
            )
        self.last.append((operation, actual if isinstance(actual, str) else actual[1] or "ok"))
        return self.wrong is None

    def close(self):
        self.overlay.forget_slots(), self.plain.forget_slots()


class Pair(Comparison):
    """One thread's share of a model test."""

    def __init__(self, overlay, plain, script, lock=None):
        super().__init__(overlay, plain, script)
        self.lock = lock or contextlib.nullcontext()

    def step(self):
        operation = next(self.script)
        with self.lock:
            actual, expected = self.overlay.play(operation), self.plain.play(operation)
        return self.judge(operation, actual, expected)


class Writer(threading.Thread):
    """Plays a script on the overlay until the daemon dies, and on a plain directory what was
    acknowledged.

    The plain directory is the log outside the volume of what a program was told. `settle` says
    after the next `up` whether all of it is there; of the operation in flight at the death, all or
    nothing may be, and of its content a part.
    """

    def __init__(self, overlay, plain, script, pause=0):
        super().__init__(daemon=True)
        self.both, self.pause = Comparison(overlay, plain, script), pause
        self.in_flight = None
        self.ended = threading.Event()

    @property
    def steps(self):
        return self.both.steps

    def run(self):
        overlay, plain = self.both.overlay, self.both.plain
        while not self.ended.wait(self.pause):
            self.in_flight = next(self.both.script)
            actual = overlay.play(self.in_flight)
            if actual in DEATH or self.cut_short(actual):
                return
            expected = plain.play(self.in_flight)
            if self.read_cut_short(actual, expected):
                return
            if not self.both.judge(self.in_flight, actual, expected):
                return
            self.in_flight = None

    def cut_short(self, actual):
        """A write of several requests whose last ones found the daemon dead."""
        return (
            self.in_flight[0] in PARTIAL
            and isinstance(actual[1], int)
            and actual[1] < self.in_flight[-2]
            and self.daemon_dies()
        )

    def read_cut_short(self, actual, expected):
        """A read of several requests, likewise."""
        return (
            self.in_flight[0] in ("pread", "read")
            and "ok" == actual[0] == expected[0]
            and actual[1][0] < expected[1][0]
            and self.daemon_dies()
        )

    def daemon_dies(self):
        """Killed, its threads end one after the other, and those that are left still answer."""
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            if self.both.overlay.play(("listdir", "", 0)) in DEATH:
                return True
            time.sleep(0.02)
        return False

    def stop(self):
        self.ended.set()
        self.join(60)
        assert not self.is_alive(), f"a writer hangs in {self.in_flight}"

    def settle(self):
        """The differences that no kill explains, after the volume is up again."""
        assert self.both.wrong is None, self.both.wrong
        overlay, plain = self.both.overlay, self.both.plain
        actual = picture(overlay.root)
        found = differences(picture(plain.root), actual)
        if found and self.in_flight:
            plain.play(self.in_flight)
            after = differences(picture(plain.root), actual)
            if self.in_flight[0] in PARTIAL and self.names_of_one_file(after, actual):
                after = []
            found = after
        self.both.close()
        return found

    @staticmethod
    def names_of_one_file(found, actual):
        paths = [line.split(": expected", 1)[0] for line in found]
        return (
            len({actual[path][1][0] for path in paths if path in actual and actual[path][1]}) <= 1
        )
