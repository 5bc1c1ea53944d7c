# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a volume as a person has them: by the command line.

A Moment is a snapshot together with what every writer had been told when its command was given, and
had begun when it ended: what promise 3 is about. A writer has `acknowledged` and `begun`, the
numbers of its steps (or transactions, or messages) so far; acknowledged ≤ begun.
"""
import contextlib
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import time

from volume import REPOSITORY

BLOCK = 4096  # of the file systems here
PROGRAM = str(REPOSITORY / "tools/equal-trees")
LOADER = importlib.machinery.SourceFileLoader("equal_trees", PROGRAM)
equal_trees = importlib.util.module_from_spec(importlib.util.spec_from_loader("equal_trees", LOADER))
LOADER.exec_module(equal_trees)


class Moment:
    def __init__(self, name, writers):
        self.name, self.report = name, None
        self.least = [writer.acknowledged for writer in writers]
        self.most = None

    def ended(self, writers):
        self.most = [writer.begun for writer in writers]
        return self

    def allows(self, number, index=0):
        return self.least[index] <= number <= self.most[index]

    def __str__(self):
        return f"snapshot {self.name}, between {self.least} and {self.most}"


def take(volume, name, writers=(), *options, check=True):
    """The moment; `report` is what the command printed, None if it failed."""
    moment = Moment(name, writers)
    done = volume.run("snapshot", f"{volume.name}@{name}", "--json", *options, check=check)
    if done.code == 0:
        moment.report = json.loads(done.out)
        assert moment.report["name"] == name
    return moment.ended(writers)


def listed(volume):
    """Name → what `list` says of it, oldest first."""
    rows = json.loads(volume.run("list", volume.name, "--json").out)
    found = {row["name"]: row for row in rows}
    assert len(found) == len(rows), f"a name is twice in the list: {rows}"
    return found


def destroy(volume, name, **options):
    return volume.run("destroy", f"{volume.name}@{name}", **options)


class Shown:
    """An image below one directory: the volume's directories by their full paths."""

    def __init__(self, volume, place):
        self.volume, self.place = volume, place

    def of(self, index=0):
        return self.place / os.path.realpath(self.volume.directories[index]).lstrip("/")


def a_place(volume, kind):
    return volume.base / f"{kind}{time.monotonic_ns()}"


@contextlib.contextmanager
def mounted(volume, name):
    place = a_place(volume, "view")
    place.mkdir()
    volume.run("mount", f"{volume.name}@{name}", place)
    try:
        yield Shown(volume, place)
    finally:
        volume.run("umount", place)
        place.rmdir()


def restored(volume, name):
    """The whole image, as plain files below a new directory."""
    place = a_place(volume, "restored")
    volume.run("restore", f"{volume.name}@{name}", place, timeout=120)
    return Shown(volume, place)


def restored_directory(volume, name, path):
    """One directory of the image; it becomes the new place itself."""
    place = a_place(volume, "restored")
    volume.run("restore", f"{volume.name}@{name}:{os.path.realpath(path)}", place, timeout=120)
    return place


def differences(copy, shown):
    """What tools/equal-trees says of a plain copy and an image: [] if they are equal."""
    done = subprocess.run(
        [PROGRAM, copy, shown], capture_output=True, text=True
    )
    assert done.returncode in (0, 3), done.stderr
    return done.stdout.splitlines()[:-1] if done.returncode else []  # the last one is the sum


class Copy:
    """The plain copy that an image is compared with, made while nothing writes.

    A hole of the copy may be data in the image, all the same, where space was only reserved
    (fallocate): cp makes holes of it, and the kernel takes it for a hole or for data, as the cache
    has it. So may the last block of a file that something has been appended to since.
    """

    def __init__(self, original, place):
        subprocess.run(["cp", "-a", original, place], check=True)
        self.place = place
        self.soft = dict(soft_holes(os.fsencode(place), os.fsencode(original)))

    def differences(self, shown):
        return [line for line in differences(self.place, shown) if not self.explains(line)]

    def explains(self, line):
        hole = re.fullmatch(r"(.*): hole at (\d+) became data", line)
        return hole and int(hole[2]) >= self.soft[hole[1]]

    def remove(self):
        shutil.rmtree(self.place)


def soft_holes(copy, original):
    """Name of each sparse file, as equal-trees writes it → from where on its holes may be data."""
    for place, _, files in os.walk(copy):
        for name in files:
            path = os.path.relpath(os.path.join(place, name), copy)
            ours, theirs = os.path.join(copy, path), os.path.join(original, path)
            status = os.lstat(ours)
            if stat.S_ISREG(status.st_mode) and status.st_blocks * 512 < status.st_size:
                last_block = status.st_size // BLOCK * BLOCK
                reserved = holds_space_in_holes(ours, theirs, status.st_size)
                yield equal_trees.printable(path), 0 if reserved else last_block


def holds_space_in_holes(copy, original, size):
    """Whether the original has space on the disk where the copy has a hole."""
    with open(copy, "rb") as ours, open(original, "rb") as theirs:
        at = 0
        for start, end in [*equal_trees.extents(ours.fileno(), size), (size, size)]:
            if start > at and equal_trees.has_space(theirs.fileno(), at, start - at):
                return True
            at = end
    return False
