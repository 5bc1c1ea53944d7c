# SPDX-License-Identifier: Apache-2.0
"""The result file: figures of one run, with the machine they are of; for the scripts beside this
one.

A figure is what one work did in one place: "fs", "work", "at_once", "place" name it, "rounds" has
its rate in each round, "latency_us" how long operations took, over all rounds together.
"""
import collections
import datetime
import json
import os
import platform
import random
import subprocess
from pathlib import Path

from volume import GIB, fail

PERCENTILES = (50, 90, 99, 99.9)
BUCKET_GROWTH = 1.02  # as in bench/load.cc


def percentiles(histogram):
    """Upper bounds of the buckets in which the percentiles are."""
    total, found = sum(histogram.values()), {}
    for percentile in PERCENTILES:
        seen = 0
        for bucket in sorted(histogram):
            seen += histogram[bucket]
            if seen >= total * percentile / 100:
                found[str(percentile)] = round(BUCKET_GROWTH**bucket / 1000, 1)
                break
    return found


def load(benches, work, directory, at_once, amount):
    """One round by bench_load."""
    command = [Path(benches) / "bench_load", work, directory, str(at_once), str(amount)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        fail(f"{work} in {directory}: {done.stderr}")
    return json.loads(done.stdout)


def forget_names():
    """The kernel forgets names and attributes, of every file system; what was read stays."""
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("2")


class Figures:
    """Rounds of one file system, as they come."""

    def __init__(self, system):
        self.system, self.rates = system, collections.defaultdict(list)
        self.histograms = collections.defaultdict(collections.Counter)

    def add(self, work, at_once, place, rate, histogram=()):
        self.rates[(work, at_once, place)].append(rate)
        for bucket, count in dict(histogram).items():
            self.histograms[(work, at_once, place)][int(bucket)] += count

    def listed(self):
        for (work, at_once, place), rounds in self.rates.items():
            figure = {"fs": self.system, "work": work, "at_once": at_once, "place": place}
            histogram = self.histograms.get((work, at_once, place))
            if histogram:
                figure["latency_us"] = percentiles(histogram)
                figure["operations"] = sum(histogram.values())
            yield {**figure, "rounds": [round(rate, 2) for rate in rounds]}


def interleave(tasks, rounds, run, seed=1):
    """Each task once in each round, in random order."""
    chance = random.Random(seed)
    for _ in range(rounds):
        for task in chance.sample(tasks, len(tasks)):
            run(*task)


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def sync(path):
    """The file system below `path` only: others may have much to write."""
    subprocess.run(["sync", "--file-system", path], check=True)


def file_system(path):
    """Name of the file system below `path`, and whether an ext4 has a journal of its own."""
    kind, source = output("findmnt", "-nro", "FSTYPE,SOURCE", "-T", str(path)).split()
    device = os.path.basename(source)
    if kind == "ext4":
        journals = os.listdir("/proc/fs/jbd2") if os.path.isdir("/proc/fs/jbd2") else []
        kept = any(journal.startswith(f"{device}-") for journal in journals)
        kind += " with journal" if kept else " without journal"
    return kind + (" on a loop device" if device.startswith("loop") else "")


def device_of(path):
    """Name of the block device below `path`, as in /sys/class/block; of a loop device, its own."""
    return os.path.basename(output("findmnt", "-nro", "SOURCE", "-T", str(path)))


def machine():
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = {line.split(":", 1)[1].strip() for line in cpuinfo.splitlines()
              if line.startswith("model name")}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines()
                   if "=" in line)
    disk = output("lsblk", "-dno", "SIZE,MODEL", f"/dev/{device_of('/var/tmp')}")
    return {
        "processors": os.cpu_count(),
        "model": ", ".join(sorted(models)) or platform.machine(),
        "memory_gib": round(memory / GIB, 1),
        "kernel": platform.release(),
        "system": release.get("PRETTY_NAME", "").strip('"'),
        "load": round(os.getloadavg()[0], 1),
        "disk": f"{device_of('/var/tmp')}, {disk}".strip(", "),
    }


def commit(top):
    changed = output("git", "-C", str(top), "status", "--porcelain", "--", "journal", "fuse",
                     "replicator", "tools", "CMakeLists.txt")
    name = output("git", "-C", str(top), "rev-parse", "--short=12", "HEAD") or "unknown"
    return name + (" with changes" if changed else "")


def heading(top, quick):
    """What a result file begins with."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(top),
        "quick": quick,
        "machine": machine(),
    }


def write(path, result):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
