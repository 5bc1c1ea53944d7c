# SPDX-License-Identifier: Apache-2.0
"""A private PostgreSQL server: its data in any directory, reached by a socket in another."""
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from clients import Client

OWNER = "postgres"
DATABASE = "bench"
SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",  # checkpoints come often, so that some fall beside the snapshots
    "min_wal_size": "32MB",
    "checkpoint_timeout": "30s",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}


def program(name):
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found, f"{name} is not installed: run tools/setup --tests"
    return found[-1]


def as_owner(command, **options):
    return subprocess.run(
        command, user=OWNER, group=OWNER, extra_groups=[], cwd="/", text=True, **options
    )


class Postgres:
    def __init__(self, data, scratch):
        self.data, self.scratch, self.process = Path(data), Path(scratch), None
        self.scratch.mkdir()
        shutil.chown(self.scratch, OWNER, OWNER)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def initialise(self):
        self.data.mkdir(mode=0o700)
        shutil.chown(self.data, OWNER, OWNER)
        command = [program("initdb"), "--pgdata", self.data, "--auth", "trust"]
        done = as_owner(
            [*command, "--encoding", "UTF8", "--no-locale", "--data-checksums"],
            capture_output=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return self

    def from_an_image(self):
        """The file says which process serves the data. In an image that is the original's, which
        still runs; PostgreSQL's manual has it removed from a copy as well.
        """
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        return self

    @property
    def log(self):
        return self.scratch / "postgres.log"

    def start(self):
        settings = {**SETTINGS, "unix_socket_directories": self.scratch}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [program("postgres"), "-D", self.data, *options],
                user=OWNER,
                group=OWNER,
                extra_groups=[],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        deadline = time.monotonic() + 60
        ready = [program("pg_isready"), "--quiet", "--host", self.scratch, "--username", OWNER]
        while subprocess.run(ready).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"PostgreSQL does not start: {self.complaints()}")
            time.sleep(0.05)

    def stop(self):
        """Fast, in PostgreSQL's words: whoever is connected is sent away."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait(20)
        self.process = None

    def complaints(self):
        return self.log.read_text(errors="replace")[-4000:]

    def psql(self, database=DATABASE):
        return [program("psql"), "-X", "-qAt", "-h", self.scratch, "-U", OWNER, "-d", database]

    def query(self, text, database=DATABASE):
        """The lines of the answer."""
        command = [*self.psql(database), "-v", "ON_ERROR_STOP=1", "-c", text]
        done = as_owner(command, capture_output=True)
        assert done.returncode == 0, f"{text}: {done.stderr}{self.complaints()}"
        return done.stdout.split()

    def fill(self, scale):
        self.query(f"create database {DATABASE}", "postgres")
        self.query("create extension amcheck; create table told (number integer primary key)")
        command = [program("pgbench"), "-i", "-q", "-s", str(scale)]
        done = as_owner(
            [*command, "-h", self.scratch, "-U", OWNER, DATABASE], capture_output=True
        )
        assert done.returncode == 0, done.stderr

    def load(self, clients=4, seconds=600):
        """pgbench, to be killed when it is enough."""
        command = [program("pgbench"), "-n", "-c", str(clients), "-j", "2", "-T", str(seconds)]
        with open(self.scratch / "pgbench.log", "wb") as log:
            return subprocess.Popen(
                [*command, "-h", self.scratch, "-U", OWNER, DATABASE],
                stdout=log,
                stderr=log,
                env=dict(os.environ, LC_ALL="C"),
                cwd="/",
            )

    def client(self):
        return Client(
            self.psql(),
            lambda number: f"insert into told values ({number});\nselect {number};\n",
            self.scratch / "client.log",
        )

    def check(self):
        """Every heap and every index, in the server's own judgement, and pgbench's sums."""
        command = [program("pg_amcheck"), "--all", "--heapallindexed", "--install-missing"]
        done = as_owner([*command, "-h", self.scratch, "-U", OWNER], capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        sums = {
            *self.query("select sum(abalance) from pgbench_accounts"),
            *self.query("select sum(bbalance) from pgbench_branches"),
            *self.query("select sum(tbalance) from pgbench_tellers"),
            *self.query("select coalesce(sum(delta), 0) from pgbench_history"),
        }
        # Fails if a transaction is there in part.
        assert len(sums) == 1, sums

    def numbers(self):
        return [int(line) for line in self.query("select number from told")]
