# SPDX-License-Identifier: Apache-2.0
"""SQLite on the overlay, with a write-ahead log and with rollback journals."""
import contextlib
import os
import sqlite3
import subprocess
import sys
import time

import pytest

# A process of its own: the write-ahead log is mapped, and a store to a dead mount is SIGBUS.
WRITER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
db.execute(f"pragma journal_mode = {sys.argv[2]}")
db.execute("pragma synchronous = extra")
print("ready", flush=True)
number = 0
while True:
    number += 1
    db.execute("begin immediate")
    db.execute("insert into rows values (?, ?, randomblob(?))", (number, int(sys.argv[3]), number * 37 % 9000))
    if number % 5 == 0:
        db.execute("delete from rows where writer = ? and number = ?", (int(sys.argv[3]), number - 3))
    db.execute("commit")
    print(number, flush=True)
"""


class Writers:
    """Synchronous `extra`, because with `full` SQLite does not sync the removal of a rollback journal,
    which is its commit: the newest row may be rolled back after a power cut, and so in the replica.
    """

    def __init__(self, database, mode, count=2):
        # Before there are several: a change of the journal's mode does not wait for a lock.
        with contextlib.closing(sqlite3.connect(database)) as db:
            db.execute(f"pragma journal_mode = {mode}")
            db.execute("create table rows (number integer, writer integer, data blob)")
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, database, mode, str(number)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd="/",
            )
            for number in range(count)
        ]
        for process in self.processes:
            assert process.stdout.readline() == "ready\n"

    def end(self):
        """The last number that each writer was told is committed."""
        last = []
        for process in self.processes:
            process.kill()
            told = process.stdout.read().split()
            process.wait(), process.stdout.close()
            last.append(int(told[-1]) if told else 0)
        return last


def check(database, committed):
    db = sqlite3.connect(database)
    assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
    for writer, last in enumerate(committed):
        numbers = {
            number for number, in db.execute("select number from rows where writer = ?", (writer,))
        }
        # Every fifth transaction deletes the row of three before.
        assert {
            number for number in range(1, last + 1) if (number + 3) % 5
        } <= numbers, f"writer {writer} lost rows"
    db.close()


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_databases_survive_the_death_of_everything(make_volume, mode):
    volume = make_volume(directories=("db",)).start()
    database = volume.dir / "rows.sqlite"
    for attempt in range(2):
        writers = Writers(database, mode)
        time.sleep(1.2)
        volume.kill_all()
        committed = writers.end()
        assert sum(committed) > 10
        volume.run("standby", volume.name, "--once", "--tail")
        copy = volume.base / f"copy{attempt}"
        subprocess.run(["cp", "-a", volume.replica(), copy], check=True)
        check(copy / database.name, committed)
        volume.up()
        check(database, committed)
        os.unlink(database)
        for extra in volume.dir.iterdir():
            extra.unlink()
        volume.wait("in-sync")
        volume.assert_equal()


def test_a_database_in_use_is_the_same_on_both_sides(make_volume):
    volume = make_volume(directories=("db",)).start()
    writers = Writers(volume.dir / "rows.sqlite", "wal", count=4)
    time.sleep(2)
    committed = writers.end()
    check(volume.dir / "rows.sqlite", committed)
    volume.assert_equal()
    volume.down()
    assert volume.compare() == []
    check(volume.dir / "rows.sqlite", committed)
