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
# A foreign interface is in one place each.
ONLY_IN = {
    r"liburing\.h": {"journal/uring.cc", "journal/uring.h"},
    r"fuse_lowlevel\.h|fuse3/.*|fuse\.h": {
        "fuse/libfuse.h",
        "fuse/session",
        "fuse/handlers",
        "fuse/reply",
        "fuse/view_fs",
    },
    r"rocksdb/.*": {"replicator/database"},
    r"archive\.h|archive_entry\.h": {"replicator/export.cc"},
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
