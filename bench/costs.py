# SPDX-License-Identifier: Apache-2.0
"""What a delivery costs beside time: processors, bytes on the disk, memory."""
import os
import statistics
import time
from pathlib import Path

from results import device_of, load, sync

MESSAGE = 2048
TICK = os.sysconf("SC_CLK_TCK")
AT_ONCE = 16
IDLE_SAMPLES = 4


def busy_seconds():
    """Of all processors: user, nice, system, irq, softirq and steal; guest is within user."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, _steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq) / TICK


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def written_by(pid):
    """What the process has given the kernel to write to a disk; less what was taken back unwritten."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])


def resident_mib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0


def written_bytes(device):
    return int(Path(f"/sys/class/block/{device}/stat").read_text().split()[6]) * 512


class Meter:
    """Readings before and after; each is since the meter was made."""

    def __init__(self, processes, directory):
        self.processes, self.directory = processes, directory
        self.device = device_of(directory)
        sync(directory)
        self.begin = self.now()

    def now(self):
        return {
            "time": time.monotonic(),
            "busy": busy_seconds(),
            "written": written_bytes(self.device),
            **{name: processor_seconds(pid) for name, pid in self.processes.items()},
            **{f"{name}_written": written_by(pid) for name, pid in self.processes.items()},
        }

    def read(self):
        sync(self.directory)
        end = self.now()
        return {name: end[name] - self.begin[name] for name in end}


def idle_share(seconds):
    """Processor seconds that the machine uses in a second when nothing is measured; the least of
    some samples, since something else may be running in one of them.
    """
    samples = []
    for _ in range(IDLE_SAMPLES):
        before, begin = busy_seconds(), time.monotonic()
        time.sleep(seconds / IDLE_SAMPLES)
        samples.append((busy_seconds() - before) / (time.monotonic() - begin))
    return min(samples)


def one_round(benches, directory, volume, seconds, idle):
    # Not the mount: its device is the kernel's.
    meter = Meter(volume.processes(), volume.base) if volume else Meter({}, directory)
    sent = volume.status()["standbys"][0] if volume else None
    taken = load(benches, "delivery", directory, AT_ONCE, seconds)
    if volume:
        volume.settle()
    used, messages = meter.read(), taken["operations"]
    found = {
        "messages": messages,
        "machine_ms": (used["busy"] - idle * used["time"]) * 1000 / messages,
        "deliverers_ms": taken["processor_seconds"] * 1000 / messages,
        "written_per_byte": used["written"] / (messages * MESSAGE),
    }
    found["together_ms"] = found["deliverers_ms"]
    for name in meter.processes:
        found["together_ms"] += used[name] * 1000 / messages
        found[f"{name}_ms"] = used[name] * 1000 / messages
        found[f"{name}_written_per_byte"] = used[f"{name}_written"] / (messages * MESSAGE)
    if volume:
        after = volume.status()["standbys"][0]
        for what in ("records", "bytes"):
            found[f"sent_{what}"] = (after[f"sent_{what}"] - sent[f"sent_{what}"]) / messages
    return found


def measure(benches, places, volumes, how):
    """{place: {what: median of the rounds}}; `volumes` has those of the places that are one."""
    idle = idle_share(how["idle_seconds"])
    rounds = {place: [] for place in places}
    for _ in range(how["cost_rounds"]):
        for place, directory in places.items():
            rounds[place].append(
                one_round(benches, directory, volumes.get(place), how["cost_seconds"], idle))
    costs = {place: {what: round(statistics.median(one[what] for one in found), 4)
                     for what in found[0]} for place, found in rounds.items()}
    for place, volume in volumes.items():
        if place in costs:
            for name, pid in volume.processes().items():
                costs[place][f"{name}_resident_mib"] = resident_mib(pid)
    return costs
