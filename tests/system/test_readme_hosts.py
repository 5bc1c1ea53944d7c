# SPDX-License-Identifier: Apache-2.0
"""The README's section on two hosts, with its commands exactly as they stand there, on two hosts that
have nothing in common but a cable: a network namespace and a mount namespace each.
"""
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

import machine
import volume as volumes
from hosts import Namespace

README = Path(__file__).resolve().parents[2] / "README.md"
OWN = ("/etc/twinspool", "/var/lib/twinspool", "/run/twinspool", "/srv", "/var/spool/mail")
HOSTS = {"mx1": "10.45.0.1", "mx2": "10.45.0.2"}


def commands():
    """[(host, command line)] of the section, in order."""
    section = README.read_text().split("## On two hosts", 1)[1].split("\n## ", 1)[0]
    host, found = None, []
    for line in section.splitlines():
        if told := re.match(r"On `(mx\d)`", line) or re.search(r" On `(mx\d)`:", line):
            host = told.group(1)
        if line.startswith("    twinspool") or line.startswith("    scp"):
            found.append((host, line.split("#")[0].strip()))
    return found


class Machine:
    """A shell in namespaces of its own that outlive each command, with directories of its own."""

    def __init__(self, base, name, network):
        self.name, self.network, self.place = name, network, base / name
        self.place.mkdir()
        with network:
            self.holder = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sleep", "infinity"],
                env={**os.environ, "TWINSPOOL_TEST_BASE": str(base)},
            )
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{self.holder.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # A disk that nobody else on this machine sees: it goes with the namespace.
        disk = self.place / "disk"
        disk.mkdir()
        self.shell(f"truncate -s 4G {disk}.img && mkfs.ext4 -q {disk}.img && mount -o loop {disk}.img {disk}")
        for path in OWN:
            own = disk / path.lstrip("/").replace("/", "-")
            Path(path).mkdir(parents=True, exist_ok=True)
            self.shell(f"mkdir {own} && mount --bind {own} {path}")
        names = self.place / "names"
        names.write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in HOSTS.items()))
        self.shell(f"mount --bind {names} /etc/hosts")
        self.bin = self.place / "bin"
        self.bin.mkdir()
        (self.bin / "twinspool").symlink_to(volumes.PROGRAM)
        self.env = {
            **{k: v for k, v in os.environ.items() if k != "TWINSPOOL_ROOT"},
            "TWINSPOOL_TEST_BASE": str(base),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }

    def shell(self, line, check=True, timeout=120):
        done = subprocess.run(
            ["nsenter", "-t", str(self.holder.pid), "-m", "-n", "sh", "-c", line],
            env=getattr(self, "env", None),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{self.name}: {line}: {done.stdout}{done.stderr}"
        return done

    def end(self):
        self.shell("twinspool down mail", check=False)
        self.holder.kill()
        self.holder.wait()


@pytest.fixture
def two_machines(base):
    networks = [Namespace(), Namespace()]
    networks[0].ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns",
                   f"/proc/{os.getpid()}/fd/{networks[1].fd}")
    for network, address in zip(networks, HOSTS.values()):
        network.ip("addr", "add", f"{address}/24", "dev", "eth0")
        network.ip("link", "set", "eth0", "up")
    found = {}
    try:
        for name, network in zip(HOSTS, networks):
            found[name] = Machine(base, name, network)
        # There is no ssh daemon: the one thing that is put in the place of what stands there.
        (found["mx1"].bin / "scp").write_text(
            "#!/bin/sh -e\n"
            '[ "$1" = -p ] && [ "$4" = mx2:/etc/twinspool/ ]\n'
            f'tar -c -P "$2" "$3" | nsenter -t {found["mx2"].holder.pid} -m tar -x -p -P\n'
        )
        (found["mx1"].bin / "scp").chmod(0o755)
        yield found
    finally:
        for each in found.values():
            each.end()
        for network in networks:
            network.close()


def test_the_readmes_commands_make_two_hosts_that_are_in_sync(two_machines):
    lines = commands()
    setting_up = [line for _, line in lines if "verify" not in line]
    assert len(setting_up) <= 6 and {host for host, _ in lines} == set(HOSTS)
    mx1, mx2 = two_machines["mx1"], two_machines["mx2"]
    mx1.shell("mkdir -p /var/spool/mail/anna && echo hello > /var/spool/mail/anna/1")
    for host, line in lines:
        two_machines[host].shell(line)
    mx1.shell("echo later > /var/spool/mail/anna/2 && sync /var/spool/mail/anna/2")
    mx1.shell("twinspool wait mail --for applied")
    tree = f"/srv/twinspool/mail/tree{os.path.realpath('/var/spool/mail')}"
    assert mx2.shell(f"cat {tree}/anna/1 {tree}/anna/2").stdout == "hello\nlater\n"
    assert "standby in-sync" in mx2.shell("twinspool status mail").stdout
    assert "in-sync" in mx1.shell("twinspool status mail").stdout
