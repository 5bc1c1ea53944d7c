#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what snapshots cost and prints a section of docs/BENCHMARKS.md. Called by bench/run.

  bench/snapshots.py [--quick] PROGRAM BENCH_DURABLE PLACE

Makes volumes of its own below PLACE, which must be on the file system to be measured, and takes
them away again. --quick: fewer rounds and files; under two minutes.
"""
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from figures import spread

PAGE = 8192
PAGES_FILE = 64 << 20
READ_FILE = 100 << 20
MESSAGE = 4096
ALIVE = 10  # snapshots at a time, while the pause is measured

FULL = {
    "files": (10_000, 1_000_000),
    "snapshots": 200,
    "rounds": 7,
    "seconds": 2.0,
    "messages": 20_000,
}
QUICK = {
    "files": (1_000, 20_000),
    "snapshots": 40,
    "rounds": 3,
    "seconds": 0.5,
    "messages": 1_000,
}


class Volume:
    """One directory, its journal and its standby, all below one place."""

    def __init__(self, program, place, name):
        self.program, self.base, self.name = program, Path(place) / name, name
        self.dir, self.standby = self.base / "spool", self.base / "standby"
        self.dir.mkdir(parents=True)

    def run(self, command, *arguments, check=True):
        done = subprocess.run(
            [self.program, command, *map(str, arguments)],
            env=dict(os.environ, TWINSPOOL_ROOT=str(self.base / "root")),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            sys.exit(f"bench/snapshots.py: twinspool {command}: {done.stderr or done.stdout}")
        return done.stdout

    def __enter__(self):
        self.run("create", self.name, "--dir", self.dir, "--standby", self.standby)
        self.run("up", self.name)
        self.run("wait", self.name, "--for", "in-sync", "--timeout", 7200)
        return self

    def __exit__(self, *_):
        self.run("down", self.name, check=False)
        shutil.rmtree(self.base, ignore_errors=True)

    def settle(self):
        """So that a measurement does not pay for what came before it."""
        self.run("wait", self.name, "--for", "applied", "--timeout", 600)
        os.sync()

    def snapshot(self, name):
        return json.loads(self.run("snapshot", f"{self.name}@{name}", "--json"))

    def destroy(self, name):
        self.run("destroy", f"{self.name}@{name}")

    def listed(self):
        return json.loads(self.run("list", self.name, "--json"))

    @contextlib.contextmanager
    def mounted(self, name):
        place = self.base / "view"
        place.mkdir()
        self.run("mount", f"{self.name}@{name}", place)
        try:
            yield place / os.path.realpath(self.dir).lstrip("/")
        finally:
            self.run("umount", place)
            place.rmdir()

    def replica(self):
        return self.standby / "tree" / os.path.realpath(self.dir).lstrip("/")


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# The pause.


def make_files(directory, count):
    """As many small files as a spool of that size has, a thousand in a directory."""
    for number in range(count):
        if number % 1000 == 0:
            folder = directory / f"old{number // 1000}"
            folder.mkdir()
        fd = os.open(folder / str(number), os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(fd, b"mail")
        os.close(fd)


def durable(bench, volume, threads, *options):
    """The command for deliveries as bench/durable.cc makes them; it wants fresh directories."""
    place = volume.dir / f"{time.monotonic_ns()}"
    place.mkdir()
    return [bench, f"overlay={place}", f"--benchmark_filter=delivery/overlay/.*threads:{threads}$", *options]


@contextlib.contextmanager
def deliverers(bench, volume, count):
    """Deliveries without a pause until the block ends."""
    process = subprocess.Popen(
        durable(bench, volume, count, "--benchmark_min_time=36000"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(5)  # until it is past its own trials
        if process.poll() is not None:
            sys.exit(f"bench/snapshots.py: the deliveries have ended: {process.stderr.read()}")
        yield
    finally:
        process.kill()
        process.communicate()


def measure_pauses(program, bench, place, how):
    print("### Pause of a snapshot, 16 deliverers at once\n")
    print("How long changes are held up, as `snapshot` says it, in microseconds.\n")
    print("| files in the volume | median | p90 | p99 | longest | snapshots | command, median ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for count in how["files"]:
        volume = Volume(program, place, f"pause{count}")
        make_files(volume.dir, count)
        pauses, commands = [], []
        with volume, deliverers(bench, volume, 16):
            for number in range(how["snapshots"]):
                begin = time.monotonic()
                pauses.append(volume.snapshot(f"s{number}")["pause_us"])
                commands.append((time.monotonic() - begin) * 1000)
                if number % ALIVE == ALIVE - 1:  # together: each waits for the standby
                    for old in range(number - ALIVE + 1, number):
                        volume.destroy(f"s{old}")
        row = [statistics.median(pauses), percentile(pauses, 0.9), percentile(pauses, 0.99)]
        figures = " | ".join(f"{value:.0f}" for value in (*row, max(pauses)))
        print(
            f"| {count} | {figures} | {len(pauses)} | {statistics.median(commands):.1f} |",
            flush=True,
        )
    print()


# What a live snapshot costs.


def delivery_rate(volume, bench, seconds):
    out = volume.base / "delivery.json"
    options = f"--benchmark_min_time={seconds}", f"--benchmark_out={out}"
    done = subprocess.run(
        durable(bench, volume, 4, *options, "--benchmark_out_format=json"),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"bench/snapshots.py: a delivery failed: {done.stderr}")
    return json.loads(out.read_text())["benchmarks"][0]["items_per_second"]


def page_rate(volume, seconds, chance):
    """Random pages of an old file, each durable. Right after a snapshot nearly each is the first
    overwrite of its page: the dearest case.
    """
    data = [chance.randbytes(PAGE) for _ in range(64)]
    fd = os.open(volume.dir / "pages", os.O_RDWR)
    try:
        done, end, begin = 0, time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < end:
            at = chance.randrange(PAGES_FILE // PAGE) * PAGE
            os.pwrite(fd, data[done % len(data)], at)
            os.fdatasync(fd)
            done += 1
        return done / (time.monotonic() - begin)
    finally:
        os.close(fd)


def measure_cost(program, bench, place, how):
    chance = random.Random(1)
    works = {
        "durable delivery, 4 deliverers": lambda v: delivery_rate(v, bench, how["seconds"]),
        "random 8 KiB pwrite + fdatasync, 1 writer": lambda v: page_rate(v, how["seconds"], chance),
    }
    rates = {work: ([], []) for work in works}
    with Volume(program, place, "cost") as volume:
        with open(volume.dir / "pages", "wb") as file:
            for _ in range(PAGES_FILE >> 20):
                file.write(chance.randbytes(1 << 20))
        for number in range(how["rounds"]):
            for work, measure in chance.sample(list(works.items()), len(works)):
                for live in chance.sample((0, 1), 2):
                    if live:
                        volume.snapshot(f"s{number}")
                    volume.settle()
                    rates[work][live].append(measure(volume))
                    if live:
                        volume.settle()
                        volume.destroy(f"s{number}")
    print("### Cost of a live snapshot\n")
    print("A snapshot taken just before each round, against none; interleaved in random order.\n")
    print("| work | without, per s | with one, per s | ratio | rounds |")
    print("| --- | --- | --- | --- | --- |")
    for work, (without, live) in rates.items():
        ratio = statistics.median(live) / statistics.median(without)
        print(f"| {work} | {spread(without)} | {spread(live)} | {ratio:.2f} | {len(live)} |")
    print(flush=True)


# Reading.


def read_rate(path):
    begin, size = time.monotonic(), 0
    with open(path, "rb", buffering=0) as file:
        while data := file.read(1 << 20):
            size += len(data)
    return size / (time.monotonic() - begin) / (1 << 20)


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def measure_reading(program, place, how):
    chance = random.Random(2)
    rates = {(where, heat): [] for heat in ("cold", "warm") for where in ("replica", "view")}
    with Volume(program, place, "reading") as volume:
        with open(volume.dir / "file", "wb") as file:
            for _ in range(READ_FILE >> 20):
                file.write(chance.randbytes(1 << 20))
        volume.snapshot("s")
        volume.settle()
        with volume.mounted("s") as view:
            places = {"replica": volume.replica() / "file", "view": view / "file"}
            for _ in range(how["rounds"]):
                for where, path in chance.sample(list(places.items()), 2):
                    drop_caches()
                    rates[(where, "cold")].append(read_rate(path))
                    rates[(where, "warm")].append(read_rate(path))
    print("### Reading a file of 100 MiB that has not changed since the snapshot\n")
    print("| cache | replica, MiB/s | view, MiB/s | ratio | rounds |")
    print("| --- | --- | --- | --- | --- |")
    for heat in ("cold", "warm"):
        replica, view = rates[("replica", heat)], rates[("view", heat)]
        ratio = statistics.median(view) / statistics.median(replica)
        print(f"| {heat} | {spread(replica)} | {spread(view)} | {ratio:.2f} | {len(view)} |")
    print(flush=True)


# Space.


def space(volume):
    """Bytes on the disk of what the standby has beside its tree and its journal, by name."""
    found = {}
    for entry in sorted(volume.standby.iterdir()):
        if entry.name not in ("tree", "journal"):
            done = subprocess.run(
                ["du", "-s", "--block-size=1", entry], capture_output=True, text=True, check=True
            )
            found[entry.name] = int(done.stdout.split()[0])
    return found


def an_hour_of_mail(directory, messages, first):
    """Delivered; two thirds seen, of which half are expunged."""
    for number in range(first, first + messages):
        name, body = f"{number}.M{number}.host", os.urandom(MESSAGE // 2).hex().encode()
        with open(directory / "tmp" / name, "wb") as file:
            file.write(body)
        os.rename(directory / "tmp" / name, directory / "new" / name)
        if number % 3:
            os.rename(directory / "new" / name, directory / "cur" / f"{name}:2,S")
        if number % 3 == 1:
            os.unlink(directory / "cur" / f"{name}:2,S")


def measure_space(program, place, how):
    """The mail that a snapshot holds is what was there before it and has gone since."""
    count = how["messages"]
    with Volume(program, place, "space") as volume:
        for part in ("tmp", "new", "cur"):
            (volume.dir / part).mkdir()
        an_hour_of_mail(volume.dir, count, 0)
        volume.settle()
        before = space(volume)
        volume.snapshot("s")
        an_hour_of_mail(volume.dir, count, count)
        seen, expunged = sorted(os.listdir(volume.dir / "cur"))[: count // 3], 0
        for name in seen:  # of the hour before: answered, or expunged
            if expunged * 2 < len(seen):
                os.unlink(volume.dir / "cur" / name)
                expunged += 1
            else:
                os.rename(volume.dir / "cur" / name, volume.dir / "cur" / f"{name}R")
        volume.settle()
        after, listed = space(volume), volume.listed()[0]["space"]
    grown = {name: after[name] - before.get(name, 0) for name in after}
    print("### Space that an hour of mail holds\n")
    print(
        f"{count} messages of {MESSAGE} bytes come in after a snapshot, two thirds of them are"
        f" seen, a third expunged;\nof the messages before it {expunged} are expunged and "
        f"{len(seen) - expunged} get another flag.\n"
    )
    print("| what the standby holds more, beside tree and journal | bytes | for each new message |")
    print("| --- | --- | --- |")
    for name, value in grown.items():
        if value:
            print(f"| `{name}` | {value} | {value / count:.0f} |")
    print(f"| what `list` says that destroying it frees | {listed} | {listed / count:.0f} |\n")


def main(arguments):
    how = FULL
    if arguments[:1] == ["--quick"]:
        how, arguments = QUICK, arguments[1:]
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    program, bench, place = arguments
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the volume is taken down
    print("## Snapshots\n")
    measure_pauses(program, bench, place, how)
    measure_cost(program, bench, place, how)
    measure_reading(program, place, how)
    measure_space(program, place, how)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
