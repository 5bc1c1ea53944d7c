# SPDX-License-Identifier: Apache-2.0
"""Messages that the kernel sends to a volume's daemon, counted by the kernel's tracepoint."""
import collections
import contextlib
import os
import re
import subprocess

import pytest


class Messages:
    """Those of one mount, by the name of their opcode. FORGET is not among them: nobody waits for
    it.
    """

    EVENT = "events/fuse/fuse_request_send"
    LINE = re.compile(r"fuse_request_send: .* opcode \d+ \(FUSE_(\w+)\)")
    # Lost entries are a failure, so there must be room for all, on one processor if need be.
    BUFFER_KIB = 4096

    def __init__(self, instance, mounted):
        self.instance = instance
        (instance / "buffer_size_kb").write_text(str(self.BUFFER_KIB))
        # The kernel's number of the connection is that of the device, whose major is 0.
        connection = os.minor(os.stat(mounted).st_dev)
        (instance / self.EVENT / "filter").write_text(f"connection == {connection}")

    @contextlib.contextmanager
    def counted(self):
        """A Counter that is filled at the end of the block."""
        counts, enable = collections.Counter(), self.instance / self.EVENT / "enable"
        (self.instance / "trace").write_text("")
        enable.write_text("1")
        try:
            yield counts
        finally:
            enable.write_text("0")
        text = (self.instance / "trace").read_text()
        counts.update(self.LINE.findall(text))
        kept, written = re.search(r"entries-in-buffer/entries-written: (\d+)/(\d+)", text).groups()
        assert int(kept) == int(written) == counts.total(), text[:2000]


@contextlib.contextmanager
def traced(mounted, directory):
    """A buffer of our own in the kernel, so that nobody's tracing is disturbed; it needs no tracefs
    at its usual place.
    """
    directory.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tracefs", "tracefs", directory], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no tracefs on this machine: {done.stderr.strip()}")
    instance = directory / "instances" / f"twinspool-{os.getpid()}"
    try:
        if not (directory / Messages.EVENT).exists():
            pytest.skip("this kernel does not trace FUSE requests (Linux 6.10 and later do)")
        instance.mkdir()
        try:
            yield Messages(instance, mounted)
        finally:
            instance.rmdir()
    finally:
        subprocess.run(["umount", directory], check=True)
