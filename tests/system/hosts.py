# SPDX-License-Identifier: Apache-2.0
"""Two or more hosts on this machine, each a network namespace with a TWINSPOOL_ROOT of its own, and
volumes that are replicated between them.

All hosts share the file system: the directories of a volume have the same path everywhere, and a
standby host only uses its store. Only the network tells them apart, and it can be cut.
"""
import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import machine
import volume as volumes
from proxy import Proxy

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PORT = 4471


def enter_network(fd):
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """A network namespace without a name: it ends with the last process in it and the last
    descriptor of it, so a killed test leaves none.
    """

    def __init__(self):
        begun, ending = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ending[1])
            failed = libc.unshare(CLONE_NEWNET)
            os.write(begun[1], bytes([1 if failed else 0]))
            os.read(ending[0], 1)
            os._exit(0)
        failed = os.read(begun[0], 1)
        self.fd = None if failed == b"\1" else os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        for fd in (*begun, *ending):
            os.close(fd)
        os.waitpid(pid, 0)
        assert self.fd is not None, "no network namespace can be made"
        self.homes = threading.local()
        self.ip("link", "set", "lo", "up")

    def __enter__(self):
        """This thread, and what it starts, is in the namespace."""
        stack = self.homes.__dict__.setdefault("stack", [])
        stack.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        enter_network(self.fd)
        return self

    def __exit__(self, *_):
        home = self.homes.stack.pop()
        enter_network(home)
        os.close(home)

    def ip(self, *arguments, check=True):
        with self:
            done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        assert not check or done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
        return done

    def sockets(self, *options):
        """What `ss` shows of TCP there, a line each."""
        with self:
            done = subprocess.run(["ss", "-Htn", *options], capture_output=True, text=True)
        return done.stdout.splitlines()

    def close(self):
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class Host:
    """A name, a network namespace and a TWINSPOOL_ROOT."""

    def __init__(self, base, name, env):
        self.name, self.root, self.env = name, Path(base) / f"host-{name}", env
        self.root.mkdir()
        self.network = Namespace()
        self.prefix = []  # for a host with mounts of its own

    def run(self, command, *arguments, env=None, **options):
        program = {"program": self.prefix[0]} if self.prefix else {}
        words = [*self.prefix[1:], volumes.PROGRAM] if self.prefix else []
        with self.network:
            return volumes.run(
                *words,
                command,
                *arguments,
                root=self.root,
                env={**self.env, **(env or {})},
                **program,
                **options,
            )

    def processes(self):
        return machine.processes_with_environment("TWINSPOOL_ROOT", str(self.root))

    def etc(self, file):
        return self.root / "etc" / file

    def log(self):
        return "".join(
            f"--- {file.relative_to(self.root)}\n{file.read_text(errors='replace')[-6000:]}"
            for file in sorted(self.root.glob("lib/*/*.log"))
        )


def connect(near, near_link, near_addresses, far, far_link, far_addresses):
    """A cable between two namespaces."""
    near.ip(
        *("link", "add", near_link, "type", "veth"),
        *("peer", "name", far_link, "netns", f"/proc/{os.getpid()}/fd/{far.fd}"),
    )
    for network, link, addresses in (
        (near, near_link, near_addresses),
        (far, far_link, far_addresses),
    ):
        for address in addresses:
            late = ("nodad",) if ":" in address else ()
            network.ip("addr", "add", address, "dev", link, *late)
        network.ip("link", "set", link, "up")


class StandbyHost(Host):
    """The host of one standby of `volume`, on a cable of its own to the primary."""

    def __init__(self, volume, number):
        super().__init__(volume.base, f"standby{number}", volume.env)
        self.volume, self.number = volume, number
        self.store = volume.base / f"store{number}"
        self.store.mkdir()
        self.address, self.address6 = f"10.44.{number}.2", f"fd44:{number}::2"
        self.near = f"to-standby{number}"
        ends = [(f"10.44.{number}.{end}/24", f"fd44:{number}::{end}/64") for end in (1, 2)]
        connect(
            *(volume.primary.network, self.near, ends[0]), *(self.network, "to-primary", ends[1])
        )
        self.proxy, self.called = None, self.address

    def plug(self, up=True):
        """Packets just do not arrive on a cable that is out: a silent cut."""
        self.volume.primary.network.ip("link", "set", self.near, "up" if up else "down")
        if up:  # an IPv6 address goes with the link
            self.volume.primary.network.ip(
                *("addr", "replace", f"fd44:{self.number}::1/64", "dev", self.near, "nodad")
            )

    @contextlib.contextmanager
    def unplugged(self):
        self.plug(False)
        try:
            yield
        finally:
            self.plug()

    def put_proxy_between(self, seed=0):
        """The primary will call it on a loopback address of its own."""
        self.called = f"127.0.0.{self.number + 1}"
        self.proxy = Proxy(
            (self.called, PORT), (self.address, PORT), self.volume.primary.network, seed
        )
        return self.proxy

    @property
    def target(self):
        """As `create` takes it."""
        return f"{self.called}:{self.store}"

    def take_files(self):
        """Both files of the volume, as a person copies them."""
        self.etc("").mkdir(exist_ok=True)
        for ending in ("toml", "secret"):
            name = f"{self.volume.name}.{ending}"
            shutil.copy2(self.volume.primary.etc(name), self.etc(name))

    def start(self, *arguments, fault=None, check=True, env=None, **options):
        """`twinspool standby`; it returns when it listens."""
        listen = () if "--listen" in arguments else ("--listen", f"{self.address}:{PORT}")
        # Which of several, where the address that the primary calls does not say it.
        which = ("--host", self.called) if self.proxy else ()
        env = {**(env or {}), **({"TWINSPOOL_FAULT": fault} if fault else {})}
        words = (self.volume.name, *listen, *which, *arguments)
        return self.run("standby", *words, env=env, check=check, **options)

    def status(self):
        return json.loads(self.run("status", self.volume.name, "--json", check=(0, 3)).out)

    @property
    def state(self):
        return self.status()["state"]

    @property
    def pid(self):
        return self.status()["pid"]

    def wait_until(self, holds, what, timeout=30):
        deadline = time.monotonic() + timeout * volumes.PATIENCE
        while not holds(status := self.status()):
            assert time.monotonic() < deadline, f"{what} is not so within {timeout} s: {status}"
            time.sleep(0.05)
        return status

    def down(self, check=True, **options):
        return self.run("down", self.volume.name, check=check, **options)

    def kill(self):
        machine.kill(*self.processes())

    @contextlib.contextmanager
    def stopped(self):
        """SIGSTOP for the time of the block: the kernel there still takes what is sent."""
        pids = self.processes()
        assert pids, "no standby runs"
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def replica(self, index=0):
        real = os.path.realpath(self.volume.directories[index])
        return self.store / "tree" / real.lstrip("/")


class HostedVolume(volumes.Volume):
    """A volume whose standbys are hosts; `local` adds a directory of the primary as one more, the
    first of all. `proxy` puts one into each cable. `env` is for every command, on all hosts.
    """

    def __init__(
        self,
        base,
        directories=("dir",),
        hosts=1,
        local=False,
        proxy=False,
        seed=0,
        env=None,
        **config,
    ):
        super().__init__(base, directories, **config)
        self.env, self.local = env or {}, local
        self.primary = Host(self.base, "primary", self.env)
        self.root = self.primary.root
        self.hosts = [StandbyHost(self, number) for number in range(hosts)]
        if proxy:
            for host in self.hosts:
                host.put_proxy_between(seed)

    @property
    def host(self):
        return self.hosts[0]

    @property
    def proxy(self):
        return self.hosts[0].proxy

    def run(self, command, *arguments, **options):
        return self.primary.run(command, *arguments, **options)

    def create(self, *arguments, check=True):
        listed = [part for directory in self.directories for part in ("--dir", directory)]
        if self.local:
            self.standby.mkdir(exist_ok=True)
            listed += ["--standby", self.standby]
        for host in self.hosts:
            listed += ["--standby", host.target]
        result = self.run("create", self.name, *listed, *arguments, check=check)
        if result.code == 0:
            self.configure(**self.config)
            for host in self.hosts:
                host.take_files()
        return result

    def configure(self, **keys):
        super().configure(**keys)
        for host in self.hosts:
            if host.etc(f"{self.name}.toml").exists():
                host.take_files()

    def configure_standby(self, target, **keys):
        """Keys of the table of one standby, which its host or path tells from the others."""
        blocks = self.config_file.read_text().split("[[standby]]")
        found = [number for number, block in enumerate(blocks) if number and target in block]
        assert len(found) == 1, f"{target} in {blocks}"
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        blocks[found[0]] = "\n" + lines + blocks[found[0]].lstrip("\n")
        self.config_file.write_text("[[standby]]".join(blocks))
        self.configure()

    def start(self, *arguments, **options):
        self.create(*arguments, **options)
        for host in self.hosts:
            host.start()
        self.up()
        self.wait("in-sync")
        return self

    def standby_status(self, number=0):
        """What the primary says of one of them, in the order of the configuration."""
        return self.status()["standbys"][number]

    def processes(self):
        return self.primary.processes() + [
            pid for host in self.hosts for pid in host.processes()
        ]

    def kill_primary(self):
        """The daemon, and not what else of the volume is on the primary."""
        machine.kill(self.primary_pid)

    def kill_standby(self):
        self.host.kill()

    def stores(self):
        return ([self.standby] if self.local else []) + [host.store for host in self.hosts]

    def compare(self, below=""):
        found, mine = [], self.standby
        try:
            for self.standby in self.stores():
                found += [f"{self.standby.name}: {lines}" for lines in super().compare(below)]
        finally:
            self.standby = mine
        return found

    def replica(self, index=0):
        store = self.standby if self.standby in self.stores() else self.stores()[0]
        return store / "tree" / os.path.realpath(self.directories[index]).lstrip("/")

    def wait_equal(self, timeout=30, below=""):
        """For standbys that `wait --for applied` does not wait for."""
        self.wait("applied")
        deadline = time.monotonic() + timeout * volumes.PATIENCE
        while found := self.compare(below):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def log(self):
        return "".join(
            f"=== {host.name}\n{host.log()}" for host in (self.primary, *self.hosts)
        )

    def clean_up(self):
        try:
            super().clean_up()
        finally:
            for host in self.hosts:
                if host.proxy:
                    host.proxy.close()
                host.network.close()
            self.primary.network.close()


def checksums(*directories):
    """Of every file below them, by path: to see that nothing was changed."""
    found = {}
    for directory in directories:
        for path, _, files in os.walk(directory):
            for file in files:
                one = Path(path) / file
                found[str(one)] = (one.lstat().st_size, one.lstat().st_ino, digest(one))
    return found


def digest(path):
    if not path.is_file() or path.is_symlink():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def standby_has(host, names):
    """Those of `names` (base names of files that were delivered under names used once) that are
    durable on the host: in its journal, or applied already.
    """
    missing = set(names)
    segments = sorted((host.store / "journal").glob("*.seg"))
    told = host.run("journal", "dump", *segments, check=None).out
    missing = {name for name in missing if name not in told}
    return set(names) - {name for name in missing if not (host.replica() / name).exists()}
