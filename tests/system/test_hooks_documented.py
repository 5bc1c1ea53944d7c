# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/SNAPSHOT-HOOKS.md, as they stand there, with the real servers."""
import contextlib
import re
import shutil
import subprocess
import time
from pathlib import Path

import images
import pytest
from clients import Client
from mariadb import DATABASE, Mariadb
from postgres import Postgres, program
from volume import REPOSITORY

MANUAL = (REPOSITORY / "docs/SNAPSHOT-HOOKS.md").read_text()
STATE = Path("/run/twinspool-mariadb")
ROWS = 2000


def section(title):
    return re.search(rf"^## {title}.*?(?=^## |\Z)", MANUAL, re.M | re.S)[0]


def script(title):
    """Its place, and what is to be there."""
    text = re.search(r"^```sh\n(.*?)^```", section(title), re.M | re.S)[1]
    return re.search(r"^# (\S+)", text, re.M)[1].rstrip(":"), text


def configuration(text):
    return re.search(r"^```toml\n(.*?)^```", text, re.M | re.S)[1]


def started(volume, table):
    volume.create()
    with open(volume.config_file, "a") as config:
        config.write("\n" + table)
    volume.up()
    volume.wait("in-sync")
    return volume


def client_settings(server):
    """What an administrator has in /root/.my.cnf."""
    (server.scratch / ".my.cnf").write_text(f"[client]\nuser=root\nsocket={server.socket}\n")
    return {"HOME": str(server.scratch)}


def inserts(server):
    """Each statement is many rows of a table that has no undo."""
    options = ["--batch", "--skip-column-names", "--unbuffered", DATABASE]
    return Client(
        [*server.command(), *options],
        lambda number: f"insert into plain select {number}, repeat('x', seq % 50) "
        f"from seq_1_to_{ROWS};\nselect {number};\n",
        server.scratch / "inserts.log",
    )


@pytest.fixture
def mariadb_volume(make_volume):
    volume = make_volume(directories=("db",))
    place, text = script("MariaDB")
    installed = volume.base / Path(place).name
    installed.write_text(text)
    installed.chmod(0o755)
    yield started(volume, configuration(MANUAL).replace(place, str(installed)))
    shutil.rmtree(STATE, ignore_errors=True)


@pytest.mark.slow
def test_mariadb_is_between_two_statements(mariadb_volume):
    volume = mariadb_volume
    with Mariadb(volume.dir / "data", volume.base / "mariadb").initialise() as server:
        server.run(f"create database {DATABASE}")
        server.query("create table plain (number int, text varchar(50), key (number)) engine=MyISAM")
        home = client_settings(server)
        client = inserts(server)
        try:
            client.wait(5)
            for attempt in range(4):
                volume.run("snapshot", f"{volume.name}@m{attempt}", env=home)
                assert not STATE.exists()
                client.wait(2)  # it goes on: the lock is gone
        finally:
            client.stop()
    for attempt in range(4):
        copy = images.restored_directory(volume, f"m{attempt}", volume.dir / "data" / DATABASE)
        checked = subprocess.run(
            ["myisamchk", "--check", copy / "plain"], capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "warning" not in checked.stdout + checked.stderr, checked.stdout + checked.stderr
        rows = int(re.search(r"Data records: +(\d+)", checked.stdout)[1])
        assert rows and rows % ROWS == 0, f"m{attempt} has part of a statement: {rows} rows"


@pytest.mark.slow
def test_no_snapshot_where_mariadb_cannot_be_locked(mariadb_volume):
    volume = mariadb_volume
    refused = volume.run(
        "snapshot", f"{volume.name}@never", env={"HOME": "/nonexistent"}, check=(1, 3)
    )
    assert "Can't connect" in refused.err, refused
    assert images.listed(volume) == {}
    assert not STATE.exists()


@pytest.mark.slow
def test_postgresql_recovers_from_a_checkpoint_of_that_moment(make_volume):
    volume = started(make_volume(directories=("db",)), configuration(section("PostgreSQL")))
    with Postgres(volume.dir / "data", volume.base / "postgres").initialise() as server:
        server.fill(scale=1)
        load = server.load()
        try:
            time.sleep(2)
            begun = time.time()
            volume.run("snapshot", f"{volume.name}@p", env={"PGHOST": str(server.scratch)})
        finally:
            load.kill()
            load.wait()
    copy = images.restored_directory(volume, "p", volume.dir / "data")
    shown = subprocess.run(
        [program("pg_controldata"), copy], capture_output=True, text=True, env={"LC_ALL": "C"}
    ).stdout
    stamp = re.search(r"^Time of latest checkpoint: +(.*)$", shown, re.M)[1]
    assert time.mktime(time.strptime(stamp, "%a %b %d %H:%M:%S %Y")) >= int(begun), shown
    with contextlib.ExitStack() as stack:
        again = Postgres(copy, volume.base / "again").from_an_image()
        stack.enter_context(again).check()
