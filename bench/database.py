# SPDX-License-Identifier: Apache-2.0
"""pgbench on a PostgreSQL cluster that a benchmark makes and takes away again."""
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from volume import Made, fail

OWNER = "postgres"
SCALE, CLIENTS = 10, 8


def program(name):
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else None


def as_owner(*command, **options):
    return subprocess.run(
        [str(part) for part in command], user=OWNER, group=OWNER, extra_groups=[], cwd="/",
        stdin=subprocess.DEVNULL, capture_output=True, text=True, **options,
    )


class Cluster(Made):
    """A server on `data` that answers on a socket in a directory of its own, and on no port. Its
    settings are PostgreSQL's own; a checkpoint is not due within a run.
    """

    def __init__(self, data, scratch):
        self.data, self.scratch, self.process = Path(data), Path(scratch), None
        self.scratch.mkdir()
        shutil.chown(self.scratch, OWNER, OWNER)

    def fill(self):
        self.data.mkdir(mode=0o700)
        shutil.chown(self.data, OWNER, OWNER)
        done = as_owner(program("initdb"), "-D", self.data, "--auth", "trust", "--no-locale",
                        "--no-sync")
        if done.returncode:
            fail(f"initdb: {done.stderr}")
        with self:
            self.pgbench("-i", "-q", "-s", SCALE, "-I", "dtgvp")
        return self

    def make(self):
        settings = {"listen_addresses": "", "unix_socket_directories": self.scratch,
                    "checkpoint_timeout": "1h", "max_wal_size": "4GB"}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with open(self.scratch / "log", "ab") as log:
            self.process = subprocess.Popen(
                [program("postgres"), "-D", str(self.data), *options],
                user=OWNER, group=OWNER, extra_groups=[], cwd="/",
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        self.await_ready()

    def await_ready(self):
        deadline = time.monotonic() + 60
        while as_owner(program("pg_isready"), "-q", "-h", self.scratch).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                fail(f"PostgreSQL does not start: {(self.scratch / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def unmake(self):
        if self.process is None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT):  # fast, then at once
            if self.process.poll() is None:
                self.process.send_signal(number)
                try:
                    self.process.wait(60)
                except subprocess.TimeoutExpired:
                    continue
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def pgbench(self, *options):
        done = as_owner(program("pgbench"), "-h", self.scratch, *options, OWNER)
        if done.returncode:
            fail(f"pgbench: {done.stderr}")
        return done.stdout

    def rate(self, seconds):
        said = self.pgbench("-n", "-c", CLIENTS, "-j", os.cpu_count(), "-T", seconds)
        return float(re.search(r"tps = ([0-9.]+)", said).group(1))
