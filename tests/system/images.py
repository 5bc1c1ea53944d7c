# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a volume as a person has them: by the command line.

A Moment is a snapshot together with what every writer had been told when its command was given, and
had begun when it ended: what promise 3 is about. A writer has `acknowledged` and `begun`, the
numbers of its steps (or transactions, or messages) so far; acknowledged ≤ begun.
"""
import contextlib
import json
import os
import re
import subprocess
import time

from volume import REPOSITORY


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
        [REPOSITORY / "tools/equal-trees", copy, shown], capture_output=True, text=True
    )
    return (done.stdout + done.stderr).splitlines()[-20:] if done.returncode else []


def differences_but_reserved(copy, shown):
    """The same for files in which space was reserved (fallocate): cp makes holes of it, and the kernel
    takes it for a hole or for data, as the cache has it; what equal-trees can tell of two trees on
    disk (FIEMAP), nobody can of a copy and a view.
    """
    lines = [line for line in differences(copy, shown) if not re.search(r": hole at \d+ became data$", line)]
    return lines if lines[:-1] else []  # the last one is the sum
