# SPDX-License-Identifier: Apache-2.0
"""A private MariaDB server: its data in any directory, reached by a socket in another."""
import random
import shutil
import subprocess
import time
from pathlib import Path

from clients import Client

OWNER = "mysql"
DATABASE = "bench"
ACCOUNTS = 2000
SETTINGS = [
    "--skip-networking",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=16M",
    "--innodb-doublewrite=1",
    "--key-buffer-size=1M",
    "--aria-pagecache-buffer-size=8M",
]
TABLES = f"""
create database {DATABASE};
use {DATABASE};
create table told (number integer primary key, filler varchar(200)) engine=InnoDB;
create table told_aria (number integer primary key, filler varchar(200))
                       engine=Aria transactional=1;
create table accounts (id integer primary key, balance integer not null, note varchar(100),
                       key (balance)) engine=InnoDB;
insert into accounts select seq, 0, repeat('x', 90) from seq_1_to_{ACCOUNTS};
"""


class Mariadb:
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
        command = ["mariadb-install-db", "--no-defaults", f"--datadir={self.data}"]
        options = [f"--user={OWNER}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        return self

    @property
    def log(self):
        return self.scratch / "mariadb.log"

    @property
    def socket(self):
        return self.scratch / "socket"

    def start(self):
        with open(self.scratch / "start.log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    "mariadbd",
                    "--no-defaults",
                    *SETTINGS,
                    f"--user={OWNER}",
                    f"--datadir={self.data}",
                    f"--socket={self.socket}",
                    f"--pid-file={self.scratch}/pid",
                    f"--log-error={self.log}",
                    f"--tmpdir={self.scratch}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        deadline = time.monotonic() + 60
        while self.run("select 1").returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"MariaDB does not start: {self.complaints()}")
            time.sleep(0.1)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def complaints(self):
        logs = [log for log in (self.scratch / "start.log", self.log) if log.exists()]
        return "".join(log.read_text(errors="replace")[-4000:] for log in logs)

    def command(self, program="mariadb"):
        return [program, "--no-defaults", f"--socket={self.socket}", "--user=root"]

    def run(self, text, *options):
        return subprocess.run(
            [*self.command(), "--batch", "--skip-column-names", *options],
            input=text,
            capture_output=True,
            text=True,
            cwd="/",
        )

    def query(self, text):
        """The words of the answer."""
        done = self.run(text, DATABASE)
        assert done.returncode == 0, f"{text}: {done.stderr}{self.complaints()}"
        return done.stdout.split()

    def fill(self):
        done = self.run(TABLES)
        assert done.returncode == 0, done.stderr

    def client(self, transaction, name):
        options = ["--batch", "--skip-column-names", "--unbuffered", DATABASE]
        return Client([*self.command(), *options], transaction, self.scratch / f"{name}.log")

    def teller(self):
        """Each number into a table of either engine."""
        return self.client(
            lambda number: f"insert into told values ({number}, repeat('t', {number} % 200));\n"
            f"insert into told_aria values ({number}, repeat('a', {number} % 200));\n"
            f"select {number};\n",
            "teller",
        )

    def movers(self, count=3):
        """Move money between accounts: the sum of all stays 0."""
        return [
            self.client(mover(random.Random(number)), f"mover{number}") for number in range(count)
        ]

    def finish_recovery(self, timeout=60):
        """What was in flight is rolled back and purged in the background, and CHECK TABLE warns of
        rows that still wait for it, on any disk after any kill.
        """
        deadline = time.monotonic() + timeout
        while self.query("select count(*) from information_schema.innodb_trx") != ["0"]:
            assert time.monotonic() < deadline, f"no end of the rollback: {self.complaints()}"
            time.sleep(0.05)
        self.query("set global innodb_max_purge_lag_wait = 0")

    def check(self):
        """Every table, in the server's own judgement, and the sum."""
        self.finish_recovery()
        options = ["--check", "--extended", "--all-databases"]
        done = subprocess.run(
            [*self.command("mariadb-check"), *options], capture_output=True, text=True, cwd="/"
        )
        lines = done.stdout.splitlines()
        odd = [line for line in lines if not line.endswith("OK")]
        assert done.returncode == 0 and lines and not odd, f"{odd}{done.stderr}"
        # Fails if a transaction is there in part.
        assert self.query("select count(*), sum(balance) from accounts") == [str(ACCOUNTS), "0"]

    def numbers(self, table):
        return [int(word) for word in self.query(f"select number from {table}")]


def mover(chance):
    def transaction(number):
        # In the order of their ids, so that two movers never wait for each other.
        source, target = sorted(chance.sample(range(1, ACCOUNTS + 1), 2))
        return (
            f"start transaction; update accounts set balance = balance - 3 where id = {source};\n"
            f"update accounts set balance = balance + 3 where id = {target}; commit;\n"
            f"select {number};\n"
        )

    return transaction
