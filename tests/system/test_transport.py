# SPDX-License-Identifier: Apache-2.0
"""The two ways to speak with the kernel: FUSE over io_uring, and /dev/fuse."""
import os
import threading
import time
from pathlib import Path

import pytest
from load import Call, Load, write_and_sync

SWITCH = Path("/sys/module/fuse/parameters/enable_uring")


def test_status_says_which_transport_is_used(make_volume):
    assert make_volume(transport="dev").start().status()["transport"] == "dev"


def test_without_the_kernels_switch_up_says_so_and_uses_dev_fuse(make_volume):
    volume = make_volume(transport="auto")
    volume.create()
    before = SWITCH.read_text()
    SWITCH.write_text("N")
    try:
        result = volume.up()
    finally:
        SWITCH.write_text(before)
    assert "enable_uring" in result.text
    assert volume.status()["transport"] == "dev"
    volume.down()
    volume.up()
    assert volume.status()["transport"] == ("io_uring" if before.strip() == "Y" else "dev")


def test_over_dev_fuse_everything_is_the_same(make_volume, fresh):
    volume = make_volume(transport="dev").start()
    load = Load(volume, fresh(), "dev")
    for _ in range(3):
        load.start()
        time.sleep(1.5)
        volume.kill_all()
        load.join()
        volume.up()
        load.settle()
        volume.wait("in-sync")
        volume.assert_equal()
    for number in range(50):
        write_and_sync(volume.dir / str(number), os.urandom(20000))
    volume.down()
    assert volume.compare() == []


@pytest.mark.parametrize("transport", ["io_uring", "dev"])
def test_opening_costs_no_message(make_volume, transport):
    """With a daemon that does nothing, a file that is known already opens and closes all the same."""
    volume = make_volume(transport=transport).start()
    file = volume.dir / "file"
    file.write_bytes(b"content")

    def open_and_close():
        for flags in (os.O_RDWR, os.O_RDONLY):
            os.close(os.open(file, flags))

    open_and_close()  # the kernel asks once
    with volume.stopped_primary():
        opening = Call(open_and_close)
        opening.join(5)
        assert opening.returned and opening.error is None
    assert file.read_bytes() == b"content"


@pytest.mark.slow
@pytest.mark.limit(150)
@pytest.mark.parametrize("transport, seconds", [("io_uring", 60), ("dev", 5)])
def test_64_fsyncs_in_flight_all_return(make_volume, transport, seconds):
    """libfuse 3.18.0 to 3.18.3 loses replies over io_uring that come from another thread than the
    queue's.
    """
    volume = make_volume(transport=transport).start()
    end, done = time.monotonic() + seconds, [0] * 64
    since = [time.monotonic()] * 64

    def work(number):
        fd = os.open(volume.dir / f"file{number}", os.O_CREAT | os.O_WRONLY, 0o644)
        while time.monotonic() < end:
            os.pwrite(fd, b"x" * 100, done[number] % 1000 * 100)
            os.fsync(fd)
            done[number] += 1
            since[number] = time.monotonic()
        os.close(fd)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.1, end + 20 - time.monotonic()))
    stuck = [number for number, thread in enumerate(threads) if thread.is_alive()]
    waited = [round(time.monotonic() - since[number]) for number in stuck]
    assert not stuck, f"{len(stuck)} of 64 hang after {sum(done)} fsyncs, since {waited} s"
    print(f"{sum(done)} fsyncs in {seconds} s")
    assert min(done) > 0
    volume.assert_equal()
