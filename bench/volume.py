# SPDX-License-Identifier: Apache-2.0
"""Volumes and disks that a benchmark makes and takes away again; for the scripts beside this one."""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30


def fail(sentence):
    sys.exit(f"{Path(sys.argv[0]).name}: {sentence}")


def end_on_signals():
    """A signal unwinds the stack, so that volumes and mounts are taken down."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda received, _: sys.exit(128 + received))


@contextlib.contextmanager
def undisturbed():
    """A second signal does not cut the clearing up short. A handler and not a mask, which the
    programs that are started would inherit.
    """
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


class Made:
    """What is made on entering, and goes at the end, or when making it fails half-way."""

    def __enter__(self):
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with undisturbed():
            self.unmake()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Volume(Made):
    """One directory with its journal; `standby`: nothing, "disk", or "host" with a round trip.
    `settings` are lines of the configuration (mode, transport).
    """

    def __init__(self, program, benches, place, name, standby="disk", round_trip_ms=0.0, **settings):
        self.program, self.name, self.standby, self.settings = program, name, standby, settings
        self.base = Path(place) / name
        self.dir, self.store = self.base / "spool", self.base / "standby"
        self.dir.mkdir(parents=True)
        self.port = free_port()
        self.near_port = free_port() if round_trip_ms else self.port
        self.proxy_command = [
            str(Path(benches) / "bench_delay_proxy"),
            *map(str, (self.near_port, self.port, int(round_trip_ms * 1000))),
        ] if round_trip_ms else None
        self.proxy = None
        self.leave_files = False

    def run(self, command, *arguments, there=False, check=True):
        root = self.base / ("there" if there else "here")
        done = subprocess.run(
            [self.program, command, *map(str, arguments)],
            env=dict(os.environ, TWINSPOOL_ROOT=str(root)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            fail(f"twinspool {command} {self.name}: {done.stderr or done.stdout}")
        return done.stdout

    def create(self):
        target = self.store
        if self.standby != "disk":
            target = f"127.0.0.1:{self.near_port}:{self.store}"
        self.run("create", self.name, "--dir", self.dir, "--standby", target)
        config = self.base / "here/etc" / f"{self.name}.toml"
        text = config.read_text()
        keys = tuple(f"{key} =" for key in self.settings)
        kept = [line for line in text.splitlines() if not line.startswith(keys)]
        added = [f'{key} = "{value}"' for key, value in self.settings.items()]
        if self.standby is None:  # nobody is there, and nobody waits
            kept.append("wait = false")
        config.write_text("\n".join(added + kept) + "\n")
        if self.standby == "host":
            (self.base / "there/etc").mkdir(parents=True)
            for suffix in ("toml", "secret"):
                shutil.copy2(config.with_suffix(f".{suffix}"), self.base / "there/etc")

    def make(self):
        self.create()
        if self.proxy_command:
            self.proxy = subprocess.Popen(self.proxy_command)
        if self.standby == "host":
            self.run("standby", self.name, "--listen", f"127.0.0.1:{self.port}",
                     "--host", "127.0.0.1", there=True)
        self.run("up", self.name, check=self.standby is not None)
        if self.standby:
            self.run("wait", self.name, "--for", "in-sync", "--timeout", 7200)

    def unmake(self):
        self.run("down", self.name, check=False)
        if self.standby == "host":
            self.run("down", self.name, there=True, check=False)
        if self.proxy:
            self.proxy.kill()
            self.proxy.wait()
        if not self.leave_files:
            shutil.rmtree(self.base, ignore_errors=True)

    def status(self):
        return json.loads(self.run("status", self.name, "--json", check=False))

    def settle(self):
        """So that a measurement does not pay for what came before it."""
        self.run("wait", self.name, "--for", "applied", "--timeout", 600)

    def processes(self):
        """Process ids of the daemon and, if it is on this machine, of the standby."""
        status = self.status()
        return {"daemon": status["pid"], "standby": status["standbys"][0]["pid"]}


class Disk(Made):
    """A file system of its own in a sparse file on a loop device."""

    def __init__(self, kind, place, most_gib=24):
        self.kind, self.place, self.most = kind, Path(place), most_gib * GIB
        self.image = Path(f"{place}.img")

    def make(self):
        self.place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.place).free
        size = min(self.most, (free - 4 * GIB) // MIB * MIB)
        if size < 8 * GIB:
            fail(f"{self.place.parent} has {free // GIB} GiB free, and 12 are needed")
        with open(self.image, "wb") as file:
            file.truncate(size)
        # Room for millions of small files, and no thread of the kernel that still writes inode
        # tables while something is measured.
        shape = ["-i", "4096", "-E", "lazy_itable_init=1"] \
            if self.kind == "ext4" else []
        options = "loop,noinit_itable" if self.kind == "ext4" else "loop"
        subprocess.run([f"mkfs.{self.kind}", "-q", *shape, self.image], check=True)
        subprocess.run(["mount", "-o", options, self.image, self.place], check=True)

    def unmake(self):
        if self.place.is_mount():
            subprocess.run(["umount", self.place], check=False)
        self.image.unlink(missing_ok=True)
