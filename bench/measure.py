# SPDX-License-Identifier: Apache-2.0
"""Measures works on the raw directory and through overlays, interleaved; called by bench/run."""
import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import costs
import database
import growing
import results
from volume import Disk, Volume, end_on_signals, fail
from works import CONCURRENCY

TOP = Path(__file__).resolve().parent.parent
FULL = {
    "rounds": 7, "seconds": 0.3, "pg_rounds": 7, "pg_seconds": 2, "large_rounds": 3,
    "large_mib": 1024, "entries": 20_000, "messages": 2000, "empty": 5000,
    "cost_rounds": 3, "cost_seconds": 1.0, "idle_seconds": 2.0,
}
QUICK = {
    "rounds": 3, "seconds": 0.15, "pg_rounds": 3, "pg_seconds": 1, "large_rounds": 3,
    "large_mib": 128, "entries": 4000, "messages": 500, "empty": 1000,
    "cost_rounds": 1, "cost_seconds": 0.5, "idle_seconds": 0.5,
}


def say(sentence):
    print(f"bench: {time.monotonic() - BEGIN:.0f} s: {sentence}", file=sys.stderr, flush=True)


BEGIN = time.monotonic()


def fill(directory, how):
    """What is there already when the volume comes up, so that the seed copies it: quicker than
    through the overlay.
    """
    for name, count in (("box", how["entries"]), ("messages", how["messages"])):
        (directory / name).mkdir()
        body = (b"Subject: bench\n\n" + b"text " * 500)[:2048]
        for number in range(count):
            (directory / name / f"{number}.M{number}.host").write_bytes(body)


@contextlib.contextmanager
def bindfs(place):
    source, target = place / "behind-bindfs", place / "bindfs"
    source.mkdir()
    target.mkdir()
    subprocess.run(["bindfs", "--multithreaded", source, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=False)


class System:
    """One file system with its volumes while they are measured."""

    def __init__(self, name, place, options, stack):
        self.name, self.options, self.stack = name, options, stack
        self.scratch, self.place = place.parent, place
        self.how = QUICK if options.quick else FULL
        self.figures = results.Figures(name)
        self.places, self.volumes, self.skipped = {}, {}, []
        self.clusters = {}

    def volume(self, name, **settings):
        options = self.options
        volume = Volume(options.program, options.benches, self.place, f"{self.name}-{name}",
                        **settings)
        volume.leave_files = True  # they go with the disk, or the scratch directory
        return volume

    def prepare(self):
        raw = self.place / "raw"
        raw.mkdir()
        fill(raw, self.how)
        self.volumes = {
            "overlay": self.volume("overlay"),
            "dev": self.volume("dev", transport="dev"),
            "every": self.volume("every", mode="every"),
            "tls": self.volume("tls", standby="host"),
        }
        self.prepare_databases(raw, self.volumes["overlay"])
        for name in ("overlay", "dev"):
            fill(self.volumes[name].dir, self.how)
        results.sync(self.place)
        for volume in self.volumes.values():
            self.stack.enter_context(volume)
        self.places = {"raw": raw, **{name: v.dir for name, v in self.volumes.items()}}

    def prepare_databases(self, raw, volume):
        if not database.program("pgbench"):
            self.skipped.append("pgbench: PostgreSQL is not installed.")
            return
        made = self.scratch / "pg"  # once, and copied to each file system
        if not made.exists():
            database.Cluster(made, self.scratch / "pg-made").fill()
        for place, directory in (("raw", raw), ("overlay", volume.dir)):
            subprocess.run(["cp", "-a", made, directory / "pg"], check=True)
            self.clusters[place] = database.Cluster(directory / "pg", self.place / f"pg-{place}")

    def add_others(self):
        """Other file systems that stand between programs and a directory."""
        self.places.update(self.options.beside)
        if shutil.which("bindfs"):
            self.places["bindfs"] = self.stack.enter_context(bindfs(self.place))
        else:
            self.skipped.append("bindfs: not installed.")
        if not self.options.beside:
            self.skipped.append("GlusterFS replica 2: `bench/run --beside gluster=DIR` measures "
                                "one that is mounted; none was given.")

    def settle(self, place):
        if place in self.volumes:
            self.volumes[place].settle()

    def run(self, work, at_once, place, directory, amount):
        if work == "first":
            results.forget_names()
        taken = results.load(self.options.benches, work, directory, at_once, amount)
        self.figures.add(work, at_once, place, taken["operations"] / taken["seconds"],
                         taken["histogram"])
        self.settle(place)

    def measure_durable(self):
        seconds, tasks = self.how["seconds"], []
        which = {place: (1, 4, 16) for place in self.places}
        which.update(raw=CONCURRENCY, overlay=CONCURRENCY, every=(16,), tls=(16,))
        for place, directory in self.places.items():
            tasks += [("delivery", n, place, directory, seconds) for n in which[place]]
            if place in ("raw", "overlay", "dev"):
                tasks += [("shared", 16, place, directory, seconds)]
                tasks += [("log", n, place, directory, seconds) for n in (1, 8)]
        for task in tasks:  # writes the log files out
            if task[0] == "log":
                results.load(self.options.benches, task[0], task[3], task[1], 0)
        for place in self.volumes:
            self.settle(place)
        results.sync(self.place)
        results.interleave(tasks, self.how["rounds"], self.run)

    def measure_names(self):
        how, tasks = self.how, []
        for place in ("raw", "overlay", "dev"):
            directory = self.places[place]
            tasks += [("read", 1, place, directory / "messages", how["seconds"]),
                      ("scan", 1, place, directory / "box", how["seconds"]),
                      ("first", 1, place, directory / "box", 0),
                      ("empty", 1, place, directory, how["empty"])]
        results.interleave(tasks, how["rounds"], self.run)

    def measure_databases(self):
        def run(place):
            rate = self.clusters[place].rate(self.how["pg_seconds"])
            self.figures.add("pgbench", database.CLIENTS, place, rate)
            self.settle(place)

        with contextlib.ExitStack() as stack:
            for place, cluster in self.clusters.items():
                stack.enter_context(cluster)
                cluster.rate(1)  # its caches and log are there
            results.sync(self.place)
            results.interleave([(place,) for place in self.clusters], self.how["pg_rounds"], run)

    def measure_large(self):
        def run(place):
            self.run("sequential", 1, place, self.places[place], self.how["large_mib"])
            (self.places[place] / "large0").unlink()
            self.settle(place)
            results.sync(self.place)

        results.sync(self.place)
        results.interleave([(place,) for place in ("raw", "overlay")],
                           self.how["large_rounds"], run)

    def measure(self):
        self.prepare()
        if self.name == "root":
            self.add_others()
        description = results.file_system(self.place)
        say(f"{self.name}: deliveries and log writes")
        self.measure_durable()
        say(f"{self.name}: costs")
        places = {name: self.places[name] for name in ("raw", "overlay", "dev")}
        costs_found = costs.measure(self.options.benches, places, self.volumes, self.how)
        say(f"{self.name}: reading, names")
        self.measure_names()
        if self.clusters:
            say(f"{self.name}: pgbench")
            self.measure_databases()
        say(f"{self.name}: {self.how['large_mib']} MiB in sequence")
        self.measure_large()
        found = {"description": description, "how": self.how, "costs": costs_found,
                 "skipped": self.skipped, "volumes": {}}
        for name, volume in self.volumes.items():
            status = volume.status()
            found["volumes"][name] = {key: status[key] for key in ("transport", "state", "mode")}
        return found


def measure_system(name, scratch, options, result):
    with contextlib.ExitStack() as stack:
        place = scratch / name
        place.mkdir()
        if name != "root":
            stack.enter_context(Disk(name, place))
        place.chmod(0o755)  # PostgreSQL's user passes through
        system = System(name, place, options, stack)
        result["systems"][name] = system.measure()
        result["figures"] += system.figures.listed()


def section(script, options, place):
    """What one of the scripts that measure a whole section prints. It takes its volumes down when
    it is ended.
    """
    benches = Path(options.benches)
    argument = benches / "bench_durable" if script == "snapshots.py" else benches
    command = [sys.executable, TOP / "bench" / script, "--quick", options.program, argument, place]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said, _ = process.communicate()
    except BaseException:
        process.terminate()
        process.communicate()
        raise
    if process.returncode:
        fail(f"{script} failed")
    return said


def measure_rest(scratch, options, result):
    with Disk("ext4", scratch / "growth") as disk:
        say("growth, a sample")
        result["growth"] = growing.measure(
            options.program, options.benches, disk.place,
            growing.QUICK if options.quick else growing.SAMPLE)
    for name in () if options.quick else ("snapshots", "hosts"):
        with Disk("ext4", scratch / name) as disk:
            say(name)
            result["sections"][name] = section(f"{name}.py", options, disk.place)


def parse(arguments):
    def beside(text):
        name, _, directory = text.partition("=")
        if not directory:
            raise argparse.ArgumentTypeError(f"{text} is not NAME=DIR")
        return name, Path(directory).resolve()

    parser = argparse.ArgumentParser(prog="bench/run")
    parser.add_argument("program", help=argparse.SUPPRESS)
    parser.add_argument("benches", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--fs", action="append", choices=("root", "ext4", "xfs"))
    parser.add_argument("--out", default=TOP / "build/bench/result.json")
    parser.add_argument("--docs", default=TOP / "docs")
    parser.add_argument("--beside", action="append", type=beside, default=[])
    return parser.parse_args(arguments)


def main():
    options = parse(sys.argv[1:])
    end_on_signals()
    result = {**results.heading(TOP, options.quick), "systems": {}, "figures": [], "sections": {}}
    with tempfile.TemporaryDirectory(prefix="twinspool-bench-", dir="/var/tmp") as scratch:
        Path(scratch).chmod(0o755)
        for name in dict.fromkeys(options.fs or ("root", "ext4", "xfs")):
            measure_system(name, Path(scratch), options, result)
        measure_rest(Path(scratch), options, result)
    result["minutes"] = round((time.monotonic() - BEGIN) / 60, 1)
    results.write(options.out, result)
    say(f"written: {options.out}")
    subprocess.run([TOP / "bench/report", "--docs", options.docs, options.out], check=True)


if __name__ == "__main__":
    main()
