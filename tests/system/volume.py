# SPDX-License-Identifier: Apache-2.0
"""A volume of the tests: directories, standby and TWINSPOOL_ROOT below one fresh directory.

A test makes a Volume through the fixture `make_volume`, which also ends whatever of it is left.
"""
import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import machine

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("TWINSPOOL_BIN", str(REPOSITORY / "build/check/twinspool"))
TRANSPORT = os.environ.get("TWINSPOOL_TRANSPORT", "io_uring")
# Sanitizers make everything slower; time-outs of the harness are there to end a hang, not to measure.
PATIENCE = float(os.environ.get("TWINSPOOL_PATIENCE", "1"))

# What a program sees of a call when the daemon dies.
DEATH = (errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED, errno.EIO)


class Run:
    """One finished call of the program."""

    def __init__(self, arguments, code, out, err, seconds):
        self.arguments, self.code, self.out, self.err, self.seconds = (
            arguments,
            code,
            out,
            err,
            seconds,
        )

    @property
    def text(self):
        return self.out + self.err

    def __str__(self):
        return f"$ twinspool {' '.join(self.arguments)}  → {self.code} in {self.seconds:.2f} s\n{self.out}{self.err}"


def run(*arguments, root=None, timeout=60, env=None, check=True, program=PROGRAM):
    """Runs the program to its end. `check` is True for exit code 0, a code or a tuple of codes, or
    None.
    """
    arguments = [str(argument) for argument in arguments]
    environment = dict(os.environ, **(env or {}))
    if root is not None:
        environment["TWINSPOOL_ROOT"] = str(root)
    begin = time.monotonic()
    # Into files: a daemon that keeps a pipe open must not make the command look unfinished.
    with machine.scratch_file() as out, machine.scratch_file() as err:
        process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            cwd="/",
        )
        try:
            code = process.wait(timeout * PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = "time-out"
        out.seek(0), err.seek(0)
        result = Run(
            arguments,
            code,
            out.read().decode(errors="replace"),
            err.read().decode(errors="replace"),
            time.monotonic() - begin,
        )
    allowed = (0,) if check is True else (check,) if isinstance(check, int) else check
    assert code != "time-out", result
    assert allowed is None or code in allowed, str(result)
    return result


class Volume:
    def __init__(self, base, directories=("dir",), standby="standby", name="vol", **config):
        self.base, self.name = Path(base), name
        self.root = self.base / "root"
        self.directories = [self.base / directory for directory in directories]
        self.standby = self.base / standby
        for path in [self.root, *self.directories]:
            path.mkdir(parents=True, exist_ok=True)
        # Small segments: most tests write little, and preallocating costs as much as writing.
        self.config = {"transport": TRANSPORT, "segment_size": "4MiB", **config}

    @property
    def dir(self):
        return self.directories[0]

    @property
    def run_dir(self):
        return self.root / "run" / self.name

    @property
    def state_dir(self):
        return self.root / "lib" / self.name

    @property
    def log_file(self):
        return self.state_dir / "twinspool.log"

    @property
    def config_file(self):
        return self.root / "etc" / f"{self.name}.toml"

    def run(self, command, *arguments, **options):
        return run(command, *arguments, root=self.root, **options)

    # The commands.

    def create(self, *arguments, check=True):
        self.standby.mkdir(parents=True, exist_ok=True)
        listed = [part for directory in self.directories for part in ("--dir", directory)]
        result = self.run(
            "create", self.name, *listed, "--standby", self.standby, *arguments, check=check
        )
        if result.code == 0:
            self.configure(**self.config)
        return result

    def configure(self, **keys):
        """Sets keys of the configuration file; they go before its first table, where TOML wants
        them.
        """
        lines = self.config_file.read_text().splitlines()
        for key, value in keys.items():
            lines = [line for line in lines if not re.match(rf"\s*{key}\s*=", line)]
            lines.insert(0, f"{key} = {json.dumps(value)}")
        self.config_file.write_text("\n".join(lines) + "\n")

    def up(self, *arguments, check=True, fault=None, **options):
        env = {"TWINSPOOL_FAULT": fault} if fault else None
        return self.run("up", self.name, *arguments, check=check, env=env, **options)

    def down(self, *arguments, check=True, **options):
        return self.run("down", self.name, *arguments, check=check, **options)

    def wait(self, what="applied", timeout=60, check=True):
        return self.run(
            "wait",
            self.name,
            "--for",
            what,
            "--timeout",
            int(timeout * PATIENCE),
            timeout=timeout + 20,
            check=check,
        )

    def status(self):
        return json.loads(self.run("status", self.name, "--json", check=(0, 3)).out)

    def start(self, **options):
        """Created, up and in sync: where most tests begin."""
        self.create(**options)
        self.up()
        self.wait("in-sync")
        return self

    # What it is doing.

    @property
    def state(self):
        return self.status()["state"]

    @property
    def primary_pid(self):
        return self.status()["pid"]

    @property
    def standby_pid(self):
        return self.status()["standbys"][0]["pid"]

    def wait_until(self, holds, what, timeout=30):
        """Asks for the status until `holds(status)`; returns that status."""
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            status = self.status()
            if holds(status):
                return status
            assert (
                time.monotonic() < deadline
            ), f"{what} is not so within {timeout} s: {json.dumps(status)}"
            time.sleep(0.05)

    def wait_state(self, *states, timeout=30):
        return self.wait_until(
            lambda status: status["state"] in states, " or ".join(states), timeout
        )

    def processes(self):
        return machine.processes_with_environment("TWINSPOOL_ROOT", str(self.root))

    def kill_primary(self):
        machine.kill(self.primary_pid)

    def kill_standby(self):
        """The next one, if it is just being started again."""
        status = self.wait_until(lambda status: status["standbys"][0]["pid"], "a standby")
        machine.kill(status["standbys"][0]["pid"])

    def kill_all(self):
        """Everything of the volume at once, as nearly as signals can."""
        machine.kill(*self.processes())

    @contextlib.contextmanager
    def stopped(self, pid):
        """SIGSTOP for the time of the block: the process is there and does nothing."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def stopped_standby(self):
        return self.stopped(self.standby_pid)

    def stopped_primary(self):
        return self.stopped(self.primary_pid)

    def tail(self):
        """The file on tmpfs that holds what is not durable yet; it outlives every process of the
        volume.
        """
        found = re.search(r'^id = "0x([0-9a-f]+)"', self.config_file.read_text(), re.M)
        return Path(f"/dev/shm/twinspool/{found[1]}.tail")

    def log(self):
        try:
            return "".join(
                f"--- {file.name}\n{file.read_text(errors='replace')[-6000:]}"
                for file in sorted(self.state_dir.glob("*.log"))
            )
        except OSError as error:  # on a disk that a test has broken
            return f"no log: {error}"

    # The two trees.

    def backing(self, index=0):
        """The files underneath, also while the overlay is mounted over them."""
        kept = self.run_dir / "backing" / str(index)
        return kept if machine.is_mounted(self.directories[index]) else self.directories[index]

    def replica(self, index=0):
        return self.standby / "tree" / os.path.realpath(self.directories[index]).lstrip("/")

    def compare(self, below=""):
        """Compares without waiting: the lines of tools/equal-trees for each directory that differs."""
        found = []
        for index in range(len(self.directories)):
            pair = self.backing(index) / below, self.replica(index) / below
            if below and not any(map(os.path.lexists, pair)):
                continue  # in another of the directories
            done = subprocess.run(
                [REPOSITORY / "tools/equal-trees", *pair], capture_output=True, text=True
            )
            if done.returncode:
                # Without the names of 255 times the same letter that some tests use.
                lines = re.sub(r"(.)\1{50,}", r"\1…", done.stdout + done.stderr).splitlines()
                found.append("\n".join([f"{self.directories[index]}:", *lines[:20], lines[-1]]))
        return found

    def assert_equal(self, below=""):
        if machine.is_mounted(self.dir):
            self.wait("applied")
        assert self.compare(below) == []

    # The end.

    def clean_up(self):
        """Ends what the volume has running; asks first, so that a test that passed also shows a
        clean end.
        """
        pids = self.processes()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if pids:
            with contextlib.suppress(AssertionError):
                self.down(check=None, timeout=20)
        machine.kill(*self.processes())
        machine.unmount_below(self.base)
        if self.config_file.exists():
            self.tail().unlink(missing_ok=True)
