# SPDX-License-Identifier: Apache-2.0
"""What is measured, and what is aimed at; for the scripts beside this one."""
import collections

Work = collections.namedtuple("Work", "title actor unit")

WORKS = {
    "delivery": Work("durable delivery, 2 KiB, a Maildir each", "deliverer", "per s"),
    "shared": Work("durable delivery, 2 KiB, all into one Maildir", "deliverer", "per s"),
    "log": Work("8 KiB pwrite + fdatasync, a file each", "writer", "per s"),
    "pgbench": Work("pgbench, scale 10", "client", "transactions per s"),
    "sequential": Work("sequential write + fsync", "writer", "MiB/s"),
    "read": Work("open + read + close of messages, warm", "reader", "per s"),
    "scan": Work("readdir + stat of a Maildir, warm", "reader", "entries per s"),
    "first": Work("the first `ls -l` of a Maildir", "reader", "entries per s"),
    "empty": Work("create, stat, unlink of empty files", "program", "files per s"),
    "growth-delivery": Work("durable delivery, 2 KiB", "deliverer", "per s"),
    "growth-read": Work("open + read + close, warm", "reader", "per s"),
}

PLACES = {
    "raw": "raw directory",
    "overlay": "overlay",
    "every": "overlay, mode `every`",
    "tls": "overlay, standby over TLS on loopback",
    "dev": "overlay over /dev/fuse",
    "bindfs": "bindfs (one copy)",
}

# Ratio to the raw directory at least: on ext4 without journal, and on ext4 with journal and XFS.
TARGETS = {
    ("delivery", 1, "overlay"): (0.8, 1.2),
    ("delivery", 4, "overlay"): (1.0, 1.5),
    ("delivery", 16, "overlay"): (1.0, 1.5),
    ("delivery", 16, "tls"): (0.8, 1.2),
    ("log", 1, "overlay"): (0.75, 1.2),
    ("log", 8, "overlay"): (1.0, 1.5),
    ("pgbench", 8, "overlay"): (0.85, 1.0),
    ("sequential", 1, "overlay"): (0.4, 0.4),
    ("read", 1, "overlay"): (0.7, 0.7),
    ("scan", 1, "overlay"): (0.8, 0.8),
    ("empty", 1, "overlay"): (0.3, 0.3),
}
TARGET_PROCESSOR_MS = 0.25  # for each message, everything together, 16 deliverers
TARGET_GROWTH = 0.2  # figures stay within

CONCURRENCY = (1, 2, 4, 8, 16)


def target(figure, description):
    found = TARGETS.get((figure["work"], figure["at_once"], figure["place"]))
    return found and found[0 if description.startswith("ext4 without journal") else 1]
