# SPDX-License-Identifier: Apache-2.0
"""Strangers on the standby's port cost bounded memory, descriptors and time, and cannot stall a
primary that is connected.
"""
import contextlib
import os
import re
import socket
import statistics
import threading
import time
from pathlib import Path

import pytest
import volume as volumes
from load import Deliveries

# The head of a TLS ClientHello that announces more than will ever come.
HALF_A_HELLO = bytes.fromhex("16030100f5010000f10303") + bytes(20)
WORDS = {
    "nothing": b"",
    "an end at once": None,
    "garbage": b"GET / HTTP/1.1\r\nHost: standby\r\n\r\n",
    "noise": bytes(range(256)) * 64,
    "half a hello": HALF_A_HELLO,
}


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) << 10


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


class Strangers(threading.Thread):
    """Calls without end, from the primary's host; keeps up to `most` connections open."""

    def __init__(self, host, words, most=200):
        super().__init__(daemon=True)
        self.host, self.words, self.most = host, words, most
        self.called, self.ended = 0, threading.Event()
        self.start()

    def run(self):
        held = []
        with self.host.volume.primary.network:
            while not self.ended.is_set():
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex((self.host.address, 4471))
                held.append(one)
                self.called += 1
                with contextlib.suppress(OSError):
                    time.sleep(0.002)
                    if self.words is None:
                        held.pop().close()
                    elif self.words:
                        one.send(self.words)
                if len(held) > self.most:
                    held.pop(0).close()
        for one in held:
            one.close()

    def stop(self):
        self.ended.set()
        self.join(10)


@pytest.mark.parametrize("words", WORDS)
def test_strangers_while_deliveries_run(hosted, words):
    volume, host = hosted, hosted.host
    pid = host.pid
    deliveries = Deliveries(volume.dir, threads=2, pause=0.005)
    time.sleep(1)
    quiet, before = list(deliveries.seconds), (descriptors(pid), memory(pid), threads(pid))
    strangers = Strangers(host, WORDS[words])
    most = [0, 0, 0]
    end = time.monotonic() + 3
    while time.monotonic() < end:
        now = descriptors(pid), memory(pid), threads(pid)
        most = [max(pair) for pair in zip(most, now)]
        time.sleep(0.02)
    strangers.stop()
    noisy = deliveries.seconds[len(quiet) :]
    deliveries.stop()
    assert strangers.called > 300
    assert most[0] <= before[0] + 40, "descriptors"
    assert most[1] <= before[1] + (48 << 20), "memory"
    assert most[2] <= before[2] + 24, "threads"
    assert noisy and max(noisy) < 2 * volumes.PATIENCE
    assert statistics.median(noisy) < 10 * statistics.median(quiet) + 0.05 * volumes.PATIENCE
    assert volume.state == "in-sync" and host.pid == pid
    assert "degraded" not in volume.log() and not deliveries.errors
    volume.assert_equal()
    deliveries.assert_in(volume.dir, host.replica())
    # They are gone, and what they cost with them.
    host.wait_until(lambda _: descriptors(pid) <= before[0] + 2, "the descriptors of before", 15)


def test_strangers_are_counted_and_do_not_fill_the_log(hosted):
    host = hosted.host
    before = len(host.log())
    strangers = Strangers(host, WORDS["garbage"], most=50)
    time.sleep(3)
    strangers.stop()
    status = host.wait_until(lambda status: status["refused"] > 10, "they are counted")
    assert hosted.primary.network and "10.44.0.1" in str(status["last_refused"])
    logged = sum(file.stat().st_size for file in host.root.glob("lib/*/*.log")) - before
    assert logged < 300 * strangers.called, "one line for each, at most"


def test_the_primary_comes_back_among_strangers(hosted):
    """Sixteen handshakes at a time may be theirs; ours has its turn all the same."""
    volume, host = hosted, hosted.host
    strangers = Strangers(host, WORDS["garbage"], most=100)
    try:
        for _ in range(3):
            host.plug(False)
            host.plug()
        volume.down()
        volume.up(check=(0, 3))
        volume.wait_state("in-sync", timeout=40)
    finally:
        strangers.stop()
    volume.assert_equal()
