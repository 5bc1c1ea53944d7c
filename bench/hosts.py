#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what a standby on another host costs and prints a section of docs/BENCHMARKS.md. Called
by bench/run.

  bench/hosts.py [--quick] PROGRAM BENCH_DIRECTORY PLACE

Both "hosts" are this machine: TLS over loopback, with a longer way added by bench_delay_proxy. The
volumes are made below PLACE, which must be on the file system to be measured, and taken away again.
"""
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from figures import spread
from volume import Volume, end_on_signals, fail, free_port

FULL = {"rounds": 7, "seconds": 0.7, "files": 50_000, "big": 1 << 30, "seed_rounds": 3}
QUICK = {"rounds": 3, "seconds": 0.3, "files": 4_000, "big": 128 << 20, "seed_rounds": 1}
MESSAGE = 4096
ROUND_TRIPS_MS = (0.2, 1, 10)


# Deliveries.


def variants(program, benches, place):
    yield "overlay alone", Volume(program, benches, place, "alone", None)
    yield "standby disk", Volume(program, benches, place, "disk", "disk")
    yield "standby host, TLS", Volume(program, benches, place, "tls", "host")
    for number, trip in enumerate(ROUND_TRIPS_MS):
        volume = Volume(program, benches, place, f"far{number}", "host", trip)
        yield f"standby host, TLS, round trip + {trip} ms", volume


def measure_deliveries(program, benches, place, how):
    rates, frames = {}, {}
    with contextlib.ExitStack() as stack:
        places = {"raw": Path(place) / "raw"}
        places["raw"].mkdir()
        volumes = {}
        for label, volume in variants(program, benches, place):
            volumes[label] = stack.enter_context(volume)
            places[label] = volume.dir
        names = {f"p{number}": label for number, label in enumerate(places)}
        out = Path(place) / "hosts.json"
        command = [
            Path(benches) / "bench_durable",
            *(f"{name}={places[label]}" for name, label in names.items()),
            "--benchmark_filter=delivery/",
            f"--benchmark_min_time={how['seconds']}",
            f"--benchmark_repetitions={how['rounds']}",
            "--benchmark_enable_random_interleaving=true",
            f"--benchmark_out={out}",
            "--benchmark_out_format=json",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            fail(f"a delivery failed: {done.stderr}")
        for run in json.loads(out.read_text())["benchmarks"]:
            if run["run_type"] == "iteration":
                label = names[run["run_name"].split("/")[1]]
                rates.setdefault((label, run["threads"]), []).append(run["items_per_second"])
        for label, volume in volumes.items():
            frames[label] = volume.status()["state"]
    print("### Durable deliveries of 2 KiB, per second\n")
    print(f"Medians of {how['rounds']} rounds, interleaved in random order; in brackets lowest to")
    print("highest, and the ratio to the raw directory.\n")
    print("| where | 1 deliverer | 4 | 16 | state at the end |")
    print("| --- | --- | --- | --- | --- |")
    for label in places:
        cells = []
        for threads in (1, 4, 16):
            ratio = statistics.median(rates[(label, threads)]) / statistics.median(
                rates[("raw", threads)]
            )
            cells.append(f"{spread(rates[(label, threads)])}, {ratio:.2f}")
        print(f"| {label} | {' | '.join(cells)} | {frames.get(label, '')} |")
    print(flush=True)


# Seeding.


WORDS = (
    "the of and to in for is on that with you this be are as from your have it or we at by not will "
    "can please attached meeting report invoice order account customer project schedule update "
    "question answer regards thanks monday tuesday delivery server message number address office "
    "system service change request review draft version summary details payment contract"
).split()


def message(number):
    """Words, so that it compresses as mail does; a number makes each another."""
    words, size, state = [f"Message-Id: <{number}@bench>\n\n"], 0, number * 0x9E3779B97F4A7C15 + 1
    while size < MESSAGE:
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        words.append(WORDS[(state >> 40) % len(WORDS)])
        size += len(words[-1]) + 1
    return " ".join(words)[:MESSAGE].encode()


def make_tree(directory, how):
    for number in range(how["files"]):
        if number % 1000 == 0:
            folder = directory / f"box{number // 1000}"
            folder.mkdir()
        (folder / f"{number}.M{number}.host").write_bytes(message(number))
    with open(directory / "big", "wb") as file:
        for number in range(how["big"] >> 20):
            file.write(b"".join(message(number * 256 + i) for i in range(256)))
    os.sync()


def size_of(directory):
    return sum(
        os.lstat(os.path.join(at, name)).st_size
        for at, _, names in os.walk(directory)
        for name in names
    )


def rsync_seconds(directory, place):
    """The same tree over the same link: rsync's own daemon on loopback."""
    target, port = Path(place) / "rsynced", free_port()
    target.mkdir()
    config = Path(place) / "rsyncd.conf"
    config.write_text(f"use chroot = no\nuid = 0\ngid = 0\n[t]\npath = {target}\nread only = no\n")
    daemon = subprocess.Popen(
        ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}",
         f"--config={config}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        begin = time.monotonic()
        subprocess.run(["rsync", "-a", f"{directory}/", f"rsync://127.0.0.1:{port}/t/"], check=True)
        os.sync()
        return time.monotonic() - begin
    finally:
        daemon.kill()
        daemon.wait()
        shutil.rmtree(target, ignore_errors=True)


def measure_seeding(program, benches, place, how):
    rows = {"rsync -a": [], "seed over TLS": []}
    sent = 0
    for number in range(how["seed_rounds"]):
        volume = Volume(program, benches, place, f"seed{number}", "host")
        make_tree(volume.dir, how)
        size = size_of(volume.dir)
        rows["rsync -a"].append(rsync_seconds(volume.dir, place))
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        begin = time.monotonic()
        with volume:
            rows["seed over TLS"].append(time.monotonic() - begin)
            sent = volume.status()["standbys"][0]["sent_bytes"]
    print("### Seeding\n")
    print(f"{how['files']} messages of {MESSAGE} bytes and a file of {how['big'] >> 20} MiB, until"
          " the copy is whole and on the disk.\n")
    print("| how | seconds | MiB/s | files/s | rounds |")
    print("| --- | --- | --- | --- | --- |")
    for label, seconds in rows.items():
        middle = statistics.median(seconds)
        print(f"| {label} | {spread(seconds, 1)} | {size / middle / (1 << 20):.0f} "
              f"| {how['files'] / middle:.0f} | {len(seconds)} |")
    print(f"\nBytes of frames sent for each byte of mail: {sent / size:.2f} (LZ4).\n", flush=True)


def main(arguments):
    how = FULL
    if arguments[:1] == ["--quick"]:
        how, arguments = QUICK, arguments[1:]
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    program, benches, place = arguments
    end_on_signals()
    print("## A standby on another host\n")
    measure_deliveries(program, benches, place, how)
    measure_seeding(program, benches, place, how)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
