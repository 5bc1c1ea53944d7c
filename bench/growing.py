# SPDX-License-Identifier: Apache-2.0
"""Measures whether the figures hold as a volume grows; called by bench/growth, and with a small
sample by bench/run.

Volumes of different sizes are measured in turn, and the raw directory between them, so that a
machine whose speed changes does not look like growth.
"""
import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

import results
from costs import resident_mib
from volume import Disk, Volume, end_on_signals

TOP = Path(__file__).resolve().parent.parent
FULL = {"files": (10_000, 100_000, 1_000_000), "snapshots": (0, 10, 100), "rounds": 7, "seconds": 0.6}
SAMPLE = {"files": (10_000, 50_000), "snapshots": (0, 10), "rounds": 5, "seconds": 0.35}
QUICK = {**SAMPLE, "rounds": 3, "seconds": 0.15}
IN_A_FOLDER = 1000
WORKS = (("growth-delivery", 4), ("growth-delivery", 16), ("growth-read", 1))


def fill(directory, count):
    for number in range(count):
        if number % IN_A_FOLDER == 0:
            folder = directory / f"old{number // IN_A_FOLDER}"
            folder.mkdir()
        fd = os.open(folder / str(number), os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(fd, b"mail")
        os.close(fd)


def take_snapshots(volume, benches, first, end):
    """With some mail between each two, so that each holds something."""
    for number in range(first, end):
        results.load(benches, "delivery", volume.dir, 4, 0.02)
        volume.run("snapshot", f"{volume.name}@s{number}")
    volume.settle()


def measure_stage(figures, benches, raw, volumes, taken, how):
    places = {f"raw, {taken} snapshots": (raw, None)}
    for count, volume in volumes.items():
        places[f"{count} files, {taken} snapshots"] = (volume.dir, volume)

    def run(work, at_once, place):
        directory, volume = places[place]
        name = work.removeprefix("growth-")
        where = directory / "old0" if name == "read" else directory
        round_taken = results.load(benches, name, where, at_once, how["seconds"])
        figures.add(work, at_once, place, round_taken["operations"] / round_taken["seconds"],
                    round_taken["histogram"])
        if volume:
            volume.settle()

    results.interleave([(*work, place) for work in WORKS for place in places], how["rounds"], run)


def measure(program, benches, place, how):
    figures, memory = results.Figures("ext4"), {}
    description = results.file_system(place)
    raw = Path(place) / "raw"
    raw.mkdir()
    fill(raw, IN_A_FOLDER)
    with contextlib.ExitStack() as stack:
        volumes = {}
        for count in how["files"]:
            volume = Volume(program, benches, place, f"grown{count}")
            volume.leave_files = True  # they go with the disk
            fill(volume.dir, count)
            volumes[count] = stack.enter_context(volume)
        results.sync(raw)
        before = 0
        for taken in how["snapshots"]:
            for volume in volumes.values():
                take_snapshots(volume, benches, before, taken)
            before = taken
            measure_stage(figures, benches, raw, volumes, taken, how)
        for count, volume in volumes.items():
            memory[str(count)] = {name: resident_mib(pid)
                                  for name, pid in volume.processes().items()}
    return {"description": description, "how": how, "figures": list(figures.listed()),
            "memory_mib": memory}


def main():
    parser = argparse.ArgumentParser(prog="bench/growth")
    parser.add_argument("program", help=argparse.SUPPRESS)
    parser.add_argument("benches", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", default=TOP / "build/bench/growth.json")
    options = parser.parse_args()
    end_on_signals()
    result = results.heading(TOP, options.quick)
    with tempfile.TemporaryDirectory(prefix="twinspool-growth-", dir="/var/tmp") as scratch:
        with Disk("ext4", Path(scratch) / "disk", most_gib=40) as disk:
            result["growth"] = measure(options.program, options.benches, disk.place,
                                       SAMPLE if options.quick else FULL)
    result["figures"] = result["growth"]["figures"]
    results.write(options.out, result)
    print(f"growth: written: {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
