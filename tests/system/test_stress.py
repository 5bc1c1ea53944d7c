# SPDX-License-Identifier: Apache-2.0
"""stress-ng's file system stressors with --verify, a short while each; then both trees are equal.
"""
import os
import subprocess

import pytest

SECONDS = float(os.environ.get("TWINSPOOL_STRESS_SECONDS", "1"))
STRESSORS = [
    "access",
    "chattr",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dup",
    "fallocate",
    "fcntl",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fstat",
    "getdent",
    "hdd",
    "inotify",
    "io",
    "iomix",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "msync",
    "open",
    "readahead",
    "rename",
    "revio",
    "seek",
    "sendfile",
    "splice",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
]


@pytest.fixture(scope="module")
def shared(make_shared_volume):
    volume = make_shared_volume().start()
    yield volume
    volume.down()
    assert volume.compare() == []


def stress(directory, stressor):
    return subprocess.run(
        [
            "stress-ng",
            f"--{stressor}",
            "2",
            "--timeout",
            f"{SECONDS:.0f}s",
            "--verify",
            "--temp-path",
            directory,
            "--hdd-bytes",
            "16M",
            "--metrics-brief",
        ],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=directory,
    )


@pytest.mark.slow
@pytest.mark.parametrize("stressor", STRESSORS)
def test_stressor(shared, stressor):
    place = shared.dir / stressor
    place.mkdir()
    done = stress(place, stressor)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shared.status()["state"] in ("in-sync", "catching-up")
    shared.assert_equal(below=stressor)
