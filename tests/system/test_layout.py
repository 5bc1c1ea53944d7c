# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that can be read off the files: who includes whom, and what is named
nowhere.
"""
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("fuse", "journal", "replicator", "tools", "bench", "tests")
# Folder → what it may include of ours.
MAY_INCLUDE = {
    "journal": {"journal"},
    "fuse": {"fuse", "journal"},
    "replicator": {"replicator", "journal"},
    "tools": {"tools", "fuse", "replicator", "journal"},
}
# Room → the rooms of its folder that it may include. What is not here is no room.
ROOMS = {
    "journal/base": (),
    "journal/format": ("base",),
    "journal/log": ("format", "base"),
    "journal/delta": ("format", "base"),
    "fuse/kernel": (),
    "fuse/objects": ("kernel",),
    "fuse/tell": ("objects", "kernel"),
    "fuse/serve": ("tell", "objects", "kernel"),
    "fuse/view": ("kernel",),
    "replicator/link": (),
    "replicator/store": ("link",),
    "replicator/standby": ("store", "link"),
    "replicator/past": ("store", "link"),
    "tools/ground": (),
    "tools/volume": ("ground",),
    "tools/machine": ("volume", "ground"),
    "tools/daemon": ("machine", "volume", "ground"),
    "tools/command": ("daemon", "machine", "volume", "ground"),
}
# A foreign interface is in one place each.
ONLY_IN = {
    r"liburing\.h": {"journal/log/uring.cc", "journal/log/uring.h"},
    r"fuse_lowlevel\.h|fuse3/.*|fuse\.h": {
        "fuse/kernel/libfuse.h",
        "fuse/serve/session",
        "fuse/serve/handlers",
        "fuse/serve/reply",
        "fuse/view/view_fs",
    },
    r"rocksdb/.*": {"replicator/store/database"},
    r"archive\.h|archive_entry\.h": {"replicator/past/export.cc"},
    r"CLI/.*|CLI11\.hpp": {"tools/"},
    r"toml\+\+/.*": {"tools/"},
}
SOURCES = sorted(
    path for folder in OURS for ending in ("*.h", "*.cc") for path in (ROOT / folder).rglob(ending)
)

pytestmark = pytest.mark.plain


def includes(path):
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.M)


def tracked():
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        check=True,
    ).stdout
    return [
        ROOT / name.decode()
        for name in listed.split(b"\0")
        if name and (ROOT / name.decode()).is_file()
    ]


def test_the_folders_include_only_downwards():
    assert SOURCES
    wrong = [
        f"{path.relative_to(ROOT)} includes {name}"
        for path in SOURCES
        for name in includes(path)
        if (folder := path.relative_to(ROOT).parts[0]) in MAY_INCLUDE
        and name.split("/")[0] in OURS
        and name.split("/")[0] not in MAY_INCLUDE[folder]
    ]
    assert wrong == []


def room_of(name):
    return "/".join(name.split("/")[:2])


def faults_of_rooms(sources):
    """`sources`: the path of each file → what it includes. What is wrong with the rooms, in words."""
    faults, arrows = [], {}
    for path, names in sources.items():
        room = room_of(path)
        if path.count("/") != 2 or room not in ROOMS:
            faults.append(f"{path} is in no room")
            continue
        for name in names:
            if name.split("/")[0] == path.split("/")[0] and room_of(name) != room:
                arrows.setdefault(room, {})[room_of(name)] = f"{path} includes {name}"
    for room, targets in arrows.items():
        for target, words in targets.items():
            if target.split("/")[1] not in ROOMS[room]:
                faults.append(f"{words}: no arrow leads from {room} to {target}")

    def reaches(start, end, passed=()):
        steps = [step for step in arrows.get(start, {}) if step not in passed]
        return end in steps or any(reaches(step, end, (*passed, step)) for step in steps)

    faults += [f"{room} is part of a circle" for room in arrows if reaches(room, room)]
    return faults


def test_each_file_is_in_a_room_and_arrows_run_one_way():
    sources = {
        str(path.relative_to(ROOT)): includes(path)
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] in MAY_INCLUDE
    }
    assert faults_of_rooms(sources) == []


@pytest.mark.parametrize(
    "sources, word",
    [
        ({"journal/file.h": []}, "journal/file.h is in no room"),
        ({"journal/cellar/file.h": []}, "is in no room"),
        ({"journal/base/a/file.h": []}, "is in no room"),
        ({"journal/base/a.h": ["journal/log/b.h"]}, "no arrow leads from journal/base"),
        (
            {"fuse/tell/a.h": ["fuse/serve/b.h"], "fuse/serve/b.h": ["fuse/tell/a.h"]},
            "fuse/serve is part of a circle",
        ),
    ],
)
def test_what_is_wrong_with_rooms_is_found(sources, word):
    assert any(word in fault for fault in faults_of_rooms(sources))


def test_every_room_has_a_readme_and_its_folders_map_names_it():
    for room in ROOMS:
        folder, name = room.split("/")
        assert (ROOT / room / "README.md").is_file(), room
        assert f"| `{name}` |" in (ROOT / folder / "README.md").read_text(), room
        listed = (ROOT / room / "README.md").read_text().split("Files: ")[1].split()
        files = {f"`{path.stem}`" for path in (ROOT / room).iterdir() if path.suffix != ".md"}
        assert set(listed) == files, room


def test_every_include_of_ours_names_its_folder():
    wrong = [
        f"{path.relative_to(ROOT)} includes {name}"
        for path in SOURCES
        for name in includes(path)
        if "/" not in name
        and (path.parent / name).exists()
        and path.relative_to(ROOT).parts[0] != "tests"
    ]
    assert wrong == []


def test_each_foreign_interface_is_in_one_place():
    wrong = []
    for path in SOURCES:
        place = str(path.relative_to(ROOT))
        for name in includes(path):
            for pattern, homes in ONLY_IN.items():
                if (
                    re.fullmatch(pattern, name)
                    and place.split("/")[0] in MAY_INCLUDE
                    and not any(place.startswith(home) for home in homes)
                ):
                    wrong.append(f"{place} includes {name}")
    assert wrong == []


def test_every_main_of_the_product_is_in_tools():
    wrong = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] in ("fuse", "journal", "replicator")
        and re.search(r"^int main\(", path.read_text(), re.M)
    ]
    assert wrong == []


def test_every_file_has_its_licence_line():
    wrong = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if "SPDX-License-Identifier: Apache-2.0" not in path.read_text().split("\n\n")[0]
    ]
    assert wrong == []


def test_headers_stand_alone():
    wrong = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.suffix == ".h" and "#pragma once" not in path.read_text()
    ]
    assert wrong == []


def test_there_is_no_todo():
    assert [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text())
    ] == []


def test_no_path_of_one_machine_and_no_registry_is_named():
    """A clone anywhere must do; where packages come from is the machine's business."""
    pattern = re.compile(
        rb"(?<![\w.])/wo"
        rb"rk/|deb\.deb"
        rb"ian\.org|registry\.npm"
        rb"js|archive\.ubu"
        rb"ntu|/etc/apt/sources\.list\s*<<"
    )
    wrong = [str(path.relative_to(ROOT)) for path in tracked() if pattern.search(path.read_bytes())]
    assert wrong == []
