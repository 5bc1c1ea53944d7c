# SPDX-License-Identifier: Apache-2.0
"""What the tests take from the machine and give back: processes, mounts, loop devices, scratch
space.
"""
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

# Every process that a test starts inherits this, however it detaches itself, and is found by it.
MARK = "TWINSPOOL_TEST_BASE"


def new_base():
    base = Path(tempfile.mkdtemp(prefix="twinspool-tests-", dir="/var/tmp"))
    base.chmod(0o755)  # users other than root work below it
    os.environ[MARK] = str(base)
    return base


def base():
    return Path(os.environ[MARK])


def scratch_file():
    return tempfile.TemporaryFile(dir=base())


# Processes.


def processes_with_environment(name, value):
    wanted, found = f"{name}={value}".encode(), []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0") and alive(
                int(entry)
            ):
                found.append(int(entry))
    return found


def alive(pid):
    """A zombie counts as dead: it waits for whoever adopted it and holds nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def kill(*pids, timeout=20):
    assert all(pid > 0 for pid in pids), "0 is this process and all of its group"
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_ended(*pids, timeout=timeout)


def wait_ended(*pids, timeout=20):
    deadline = time.monotonic() + timeout
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, f"{[pid for pid in pids if alive(pid)]} do not end"
        time.sleep(0.005)


# Mounts.


def mounts():
    """(mount point, type, st_dev as major:minor) of every mount, oldest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        point = fields[4].encode().decode("unicode_escape")
        found.append((point, fields[fields.index("-") + 1], fields[2]))
    return found


def mounts_below(directory):
    return [mount for mount in mounts() if Path(mount[0]).is_relative_to(directory)]


def is_mounted(path):
    """By the mount table, which answers for a stale mount too."""
    return any(point == str(path) and kind.startswith("fuse") for point, kind, _ in mounts())


def unmount_below(directory):
    for point, _, _ in reversed(mounts_below(directory)):
        if subprocess.run(["umount", point], capture_output=True).returncode:
            subprocess.run(["umount", "-l", point], capture_output=True)


# Disks.


class Disk:
    """A file system of its own on a loop device, mounted below the test's directory."""

    def __init__(self, directory, size, kind="ext4", mkfs_options=(), mount_options=()):
        self.path, self.image = Path(directory), Path(f"{directory}.image")
        self.path.mkdir(parents=True)
        with open(self.image, "wb") as image:
            image.truncate(size)
        # Without blocks kept for root, which the filler could not take and the daemon could.
        force = {"ext4": ["-F", "-m", "0"], "xfs": ["-f"], "btrfs": ["-f"]}[kind]
        subprocess.run(
            [f"mkfs.{kind}", "-q", *force, *mkfs_options, self.image],
            check=True,
            capture_output=True,
        )
        self.device = subprocess.run(
            ["losetup", "--find", "--show", self.image], check=True, capture_output=True, text=True
        ).stdout.strip()
        options = ["-o", ",".join(mount_options)] if mount_options else []
        subprocess.run(["mount", *options, self.device, self.path], check=True)
        self.path.chmod(0o755)

    def fill(self, leave=0):
        """Takes all the space but `leave` bytes; returns the file that holds it."""
        filler = self.path / "filler"
        with open(filler, "ab") as file, contextlib.suppress(OSError):
            while (room := self.free() - leave) > 0:
                file.write(b"\1" * min(1 << 20, room))
                file.flush()
        return filler

    def free(self):
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize


def loop_devices_below(directory):
    listed = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"],
        capture_output=True,
        text=True,
    ).stdout
    return [line.split()[0] for line in listed.splitlines() if str(directory) in line]


def detach_loops_below(directory):
    for device in loop_devices_below(directory):
        subprocess.run(["losetup", "--detach", device])


def drop_large_files(directory):
    """Gives back space early. Small files wait for the end of the session: on ext4 without a
    journal creating files is pathologically slow for seconds after many were deleted.
    """
    for path, _, files in os.walk(directory):
        for file in files:
            with contextlib.suppress(OSError):
                if os.lstat(os.path.join(path, file)).st_blocks > 2048:
                    os.unlink(os.path.join(path, file))


def remove(directory):
    shutil.rmtree(directory, ignore_errors=True)


# What the machine must have.


def demand_io_uring():
    """Switches the transport on, as the quickstart does; returns why not if it cannot be."""
    switch = Path("/sys/module/fuse/parameters/enable_uring")
    try:
        if switch.read_text().strip() != "Y":
            switch.write_text("Y")
    except OSError as error:
        return f"{switch}: {errno.errorcode[error.errno]}; FUSE over io_uring needs Linux 6.14"
    return None
