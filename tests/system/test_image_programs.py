# SPDX-License-Identifier: Apache-2.0
"""Real programs open images that were taken while they were writing: each passes the program's own
checker, and holds every message or row that was acknowledged before the command was given.
"""
import contextlib
import shutil
import sqlite3
import sys
import time

import images
import pytest
from clients import Client, check_numbers
from dovecot import OWNER, Deliveries, Dovecot
from mariadb import Mariadb
from postgres import Postgres

USERS = ["anna", "bert", "carl"]
SNAPSHOTS = 3


@pytest.fixture
def volume(make_volume):
    """Of two directories: an image is of both."""
    return make_volume(directories=("mail", "db"), standby_timeout="30s").start()


@contextlib.contextmanager
def ended(*clients):
    try:
        yield
    finally:
        for client in clients:
            client.stop()


# Dovecot.


class Numbers:
    """Gives the deliverers their numbers, and knows how far it has come."""

    def __init__(self):
        self.begun, self.ended = 0, False

    def __iter__(self):
        return self

    def __next__(self):
        if self.ended:
            raise StopIteration
        self.begun += 1
        return self.begun - 1


class Mail:
    """One of a moment's writers; several deliver, so that it is a set that was acknowledged."""

    def __init__(self, deliveries, numbers):
        self.deliveries, self.numbers = deliveries, numbers

    @property
    def acknowledged(self):
        with self.deliveries.lock:
            return set(self.deliveries.acknowledged)

    @property
    def begun(self):
        return self.numbers.begun


def check_mail(moment, spool, scratch, form):
    for lock in spool.rglob("*.lock"):  # of deliveries that were in flight; Dovecot would wait
        lock.unlink()
    with Dovecot(scratch, spool, form) as dovecot:
        found = {}
        for user in USERS:
            for number, times in dovecot.messages(user).items():
                found[number] = found.get(number, 0) + times
        complaints = dovecot.complaints()
    # Fails if an acknowledged message is not in the image.
    lost = moment.least[0] - found.keys()
    assert not lost, f"{moment.name} lacks {sorted(lost)[:20]}; {complaints}"
    # Fails if the image goes beyond its moment.
    assert max(found) < moment.most[0], f"{moment.name} holds {max(found)}"
    # Fails if a message is under two names, as before and after a rename.
    assert set(found.values()) == {1}, f"{moment.name} holds a message twice"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["maildir", "mdbox"])
def test_dovecot_reads_every_acknowledged_message_in_an_image(volume, form):
    shutil.chown(volume.dir, OWNER, OWNER)
    numbers, moments = Numbers(), []
    with Dovecot(volume.base / "dovecot", volume.dir, form) as dovecot:
        deliveries = Deliveries(dovecot, USERS, numbers).start()
        try:
            for attempt in range(SNAPSHOTS):
                time.sleep(0.7)
                mail = Mail(deliveries, numbers)
                moments.append(images.take(volume, f"m{attempt}", [mail]))
                with dovecot.mailbox(USERS[0]) as imap:
                    imap.store("1:3", "+FLAGS", r"(\Seen)")
            last = images.restored(volume, moments[-1].name)  # while mail comes in
        finally:
            numbers.ended = True
            deliveries.join()
        assert not deliveries.refused, dovecot.complaints()
    check_mail(moments[-1], last.of(0), volume.base / "dovecot.last", form)
    for moment in moments:
        assert len(moment.least[0]) > 20
        copy = images.restored_directory(volume, moment.name, volume.dir)
        check_mail(moment, copy, volume.base / f"dovecot.{moment.name}", form)
    volume.assert_equal()


# SQLite.

# The writer for one number at a time; every fifth transaction deletes the row of three before.
SQLITE = """
import random, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
db.execute(f"pragma journal_mode = {sys.argv[2]}")
db.execute("pragma synchronous = extra")
writer = int(sys.argv[3])
for line in sys.stdin:
    number = int(line)
    db.execute("begin immediate")
    row = number, writer, number * 37 % 9000
    db.execute("insert into rows values (?, ?, randomblob(?))", row)
    if number % 5 == 0:
        db.execute("delete from rows where writer = ? and number = ?", (writer, number - 3))
    db.execute("commit")
    print(number, flush=True)
    time.sleep(0.02 * random.random())  # SQLite's locks are not fair, and the other shall write too
"""


def deleted(number):
    return number % 5 == 2


def numbers_of_sqlite(database, writer):
    """Opened for writing, as a program would: that is when SQLite recovers."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        rows = db.execute("select number from rows where writer = ?", (writer,))
        # The newest may be there without having been deleted yet.
        return [number for number, in rows if not deleted(number)]


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_sqlite_opens_an_image_with_every_acknowledged_row(volume, mode):
    database = volume.directories[1] / "rows.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute(f"pragma journal_mode = {mode}")
        db.execute("create table rows (number integer, writer integer, data blob)")
    writers = [
        Client(
            [sys.executable, "-c", SQLITE, database, mode, str(number)],
            lambda number: f"{number}\n",
            volume.base / f"client{number}.log",
        )
        for number in (0, 1)
    ]
    moments = []
    with ended(*writers):
        for attempt in range(SNAPSHOTS):
            writers[attempt % 2].wait(30)
            moments.append(images.take(volume, f"m{attempt}", writers))
    for moment in moments:
        copy = images.restored(volume, moment.name).of(1) / database.name
        for index in (0, 1):
            found = numbers_of_sqlite(copy, index)
            check_numbers(moment, found, index, gone=deleted)
    volume.assert_equal()


# PostgreSQL and MariaDB.


@pytest.mark.slow
@pytest.mark.limit(400)
def test_postgresql_recovers_an_image_taken_under_pgbench(volume):
    home, moments = volume.directories[1] / "pg", []
    with Postgres(home, volume.base / "pg.run").initialise() as server:
        server.fill(scale=2)
        pgbench, client = server.load(), server.client()
        with ended(client):
            try:
                for attempt in range(SNAPSHOTS):
                    client.wait(50)
                    moments.append(images.take(volume, f"m{attempt}", [client]))
                    assert pgbench.poll() is None, server.complaints()
            finally:
                pgbench.kill(), pgbench.wait()
        for moment in moments:  # beside the original
            check_postgres(volume, moment, home)
    volume.assert_equal()


def check_postgres(volume, moment, home):
    copy = images.restored_directory(volume, moment.name, home)
    image = Postgres(copy, volume.base / f"pg.{moment.name}").from_an_image()
    with image:
        check_numbers(moment, image.numbers())
        image.check()


@pytest.mark.slow
@pytest.mark.limit(400)
def test_mariadb_recovers_an_image_taken_under_load(volume):
    home, moments = volume.directories[1] / "my", []
    with Mariadb(home, volume.base / "my.run").initialise() as server:
        server.fill()
        teller, movers = server.teller(), server.movers()
        with ended(teller, *movers):
            for attempt in range(SNAPSHOTS):
                teller.wait(50)
                moments.append(images.take(volume, f"m{attempt}", [teller]))
                assert all(mover.is_alive() for mover in movers), movers[0].complaints()
        for moment in moments:
            check_mariadb(volume, moment, home)
    volume.assert_equal()


def check_mariadb(volume, moment, home):
    copy = images.restored_directory(volume, moment.name, home)
    with Mariadb(copy, volume.base / f"my.{moment.name}") as image:
        image.check()
        for table in ("told", "told_aria"):
            check_numbers(moment, image.numbers(table))
