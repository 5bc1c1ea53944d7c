# SPDX-License-Identifier: Apache-2.0
"""The commands of a volume with a standby on another host: here two TWINSPOOL_ROOT of one machine,
with loopback between them.
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import machine
import pytest
import volume as volumes
from volume import run


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Primary(volumes.Volume):
    """Its standby is on another host."""

    def __init__(self, base, port, **options):
        super().__init__(base, **options)
        self.port = port

    @property
    def target(self):
        return f"127.0.0.1:{self.port}:{self.standby}"

    def create(self, *arguments, check=True):
        listed = [part for directory in self.directories for part in ("--dir", directory)]
        result = self.run("create", self.name, *listed, "--standby", self.target, *arguments)
        self.configure(**self.config)
        return result


class Host:
    """The other host."""

    def __init__(self, primary):
        self.primary, self.name = primary, primary.name
        self.root = primary.base / "root2"
        self.etc = self.root / "etc"
        self.state_dir = self.root / "lib" / self.name

    def copy_files(self):
        """As an administrator does with what `create` has written."""
        self.etc.mkdir(parents=True, mode=0o700)
        for suffix in ("toml", "secret"):
            shutil.copy2(self.primary.config_file.with_suffix("." + suffix), self.etc)

    @property
    def config_file(self):
        return self.etc / f"{self.name}.toml"

    @property
    def secret(self):
        return self.etc / f"{self.name}.secret"

    def run(self, command, *arguments, **options):
        return run(command, *arguments, root=self.root, **options)

    def standby(self, *arguments, **options):
        return self.run(
            "standby", self.name, "--listen", f"127.0.0.1:{self.primary.port}", *arguments, **options
        )

    def down(self, **options):
        return self.run("down", self.name, **options)

    def status(self):
        return json.loads(self.run("status", self.name, "--json", check=(0, 3)).out)

    def wait_status(self, holds, what, timeout=30):
        deadline = time.monotonic() + timeout * volumes.PATIENCE
        while not holds(status := self.status()):
            assert time.monotonic() < deadline, f"{what} is not so: {json.dumps(status)}"
            time.sleep(0.05)
        return status

    def log(self):
        return "".join(file.read_text(errors="replace") for file in self.state_dir.glob("*.log"))

    def clean_up(self):
        pids = machine.processes_with_environment("TWINSPOOL_ROOT", str(self.root))
        machine.kill(*pids)


@pytest.fixture
def pair(request, program, fresh):
    """Both hosts, with the files in place and nothing running."""
    primary = Primary(fresh(), free_port())
    request.node.volumes = [primary]
    host = Host(primary)
    primary.create()
    host.copy_files()
    yield primary, host
    print(host.log())
    primary.clean_up()
    host.clean_up()
    machine.unmount_below(primary.base)


@pytest.fixture
def serving(pair):
    """Both up and in sync."""
    primary, host = pair
    host.standby()
    primary.up()
    primary.wait("in-sync")
    return pair


def everything(directory):
    return {
        path: (path.read_bytes() if path.is_file() else None, path.lstat().st_mode)
        for path in sorted(directory.rglob("*"))
    }


# create


def test_create_writes_two_files_and_says_what_comes_next(program, fresh):
    base = fresh()
    (base / "dir").mkdir()
    made = run(
        "create", "mail", "--dir", base / "dir", "--standby", "mx2:/srv/standby/mail", root=base
    )
    config, secret = base / "etc/mail.toml", base / "etc/mail.secret"
    assert 'host = "mx2"' in config.read_text() and "port" not in config.read_text()
    assert re.fullmatch("[0-9a-f]{64}\n", secret.read_text())
    assert secret.stat().st_mode & 0o777 == 0o600 and secret.stat().st_uid == 0
    for word in (str(config), str(secret), "mx2", "twinspool standby mail", "twinspool up mail"):
        assert word in made.out
    assert not os.path.exists("/srv/standby/mail")


def test_two_volumes_have_two_secrets(program, fresh):
    base = fresh()
    for name in ("a", "b"):
        (base / name).mkdir()
        run("create", name, "--dir", base / name, "--standby", f"mx2:/srv/{name}", root=base)
    assert (base / "etc/a.secret").read_text() != (base / "etc/b.secret").read_text()


@pytest.mark.parametrize(
    "targets, word",
    [
        (["mx2:srv"], "absolute path"),
        (["mx2:0:/srv"], "65535"),
        (["[::1:/srv"], "]"),
        (["mx2:/srv/x", "mx2:/srv/x"], "twice"),
        (["mx2:/srv/x", "mx2:/srv/y"], "port"),
        (["{base}/s", "{base}/s"], "twice"),
        (["{base}/s", "{base}/s/below"], "inside"),
        (["{base}/dir"], "directory"),
    ],
)
def test_targets_that_cannot_be_are_refused(program, fresh, targets, word):
    base = fresh()
    (base / "dir").mkdir(), (base / "s").mkdir()
    before = everything(base)
    listed = [part for one in targets for part in ("--standby", one.format(base=base))]
    refused = run("create", "mail", "--dir", base / "dir", *listed, root=base, check=2)
    assert word in refused.err
    assert everything(base) == before


def test_local_and_remote_standbys_together(program, fresh):
    base = fresh()
    (base / "dir").mkdir()
    standbys = [base / "one", base / "two", "mx2:/srv/x", "[2001:db8::3]:4480:/srv/x"]
    listed = [part for one in standbys for part in ("--standby", one)]
    run("create", "mail", "--dir", base / "dir", *listed, root=base)
    down = json.loads(run("status", "mail", "--json", root=base, check=3).out)
    assert [one["target"] for one in down["standbys"]] == [str(one) for one in standbys]
    for one in standbys[:2]:
        assert (one / "volume").is_file()
    removed = run("remove", "mail", root=base)
    assert "mx2:/srv/x" in removed.out
    assert not (base / "etc/mail.secret").exists() and not (base / "one/volume").exists()


def test_a_create_that_fails_leaves_no_secret(program, fresh):
    base = fresh()
    (base / "dir").mkdir(), (base / "standby").mkdir()
    (base / "standby/file").write_text("somebody's")
    run(
        *("create", "mail", "--dir", base / "dir", "--standby", base / "standby"),
        *("--standby", "mx2:/srv/x"),
        root=base,
        check=2,
    )
    assert not (base / "etc").exists()


# Secrets.


def spoil(secret, how):
    if how == "missing":
        secret.unlink()
    elif how == "readable":
        secret.chmod(0o640)
    elif how == "somebody's":
        os.chown(secret, 1000, -1)
    elif how == "short":
        secret.write_text("abc\n")
    elif how == "no digits":
        secret.write_text("x" * 64 + "\n")
    elif how == "a link":
        secret.rename(secret.with_name("elsewhere"))
        secret.symlink_to(secret.with_name("elsewhere"))


@pytest.mark.parametrize(
    "how", ["missing", "readable", "somebody's", "short", "no digits", "a link"]
)
def test_a_bad_secret_is_refused_on_both_hosts(pair, how):
    primary, host = pair
    for secret in (primary.config_file.with_suffix(".secret"), host.secret):
        spoil(secret, how)
    before = everything(primary.base)
    for refused in (primary.up(check=2), host.standby(check=2)):
        assert primary.name + ".secret" in refused.err and len(refused.err.split()) > 6
    assert everything(primary.base) == before


def test_a_volume_of_this_machine_only_needs_no_secret(make_volume):
    volume = make_volume()
    volume.create()
    volume.config_file.with_suffix(".secret").unlink()
    volume.up()
    volume.down()


# standby, down and what each machine is.


def test_standby_listens_and_a_second_one_says_so(pair):
    primary, host = pair
    assert str(primary.standby) in host.standby().out
    assert "is up already" in host.standby().out
    assert host.status()["role"] == "standby" and host.status()["state"] == "empty"
    socket.create_connection(("127.0.0.1", primary.port)).close()
    host.down()
    assert host.status()["state"] == "down"
    assert "is down already" in host.down().out
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", primary.port))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(pair, number):
    _, host = pair
    host.standby()
    pid = host.status()["pid"]
    os.kill(pid, number)
    machine.wait_ended(pid)
    assert host.status()["state"] == "down" and host.status()["received_lsn"] == 0
    host.standby()


def test_in_the_foreground_it_stays_until_a_signal(pair):
    primary, host = pair
    environment = dict(os.environ, TWINSPOOL_ROOT=str(host.root))
    listen = f"127.0.0.1:{primary.port}"
    with subprocess.Popen(
        [volumes.PROGRAM, "standby", host.name, "--listen", listen, "--foreground"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        host.wait_status(lambda status: status["pid"], "it runs")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert host.status()["state"] == "down"


def test_a_taken_port_is_said_and_leaves_nothing(pair):
    primary, host = pair
    with socket.socket() as other:
        other.bind(("127.0.0.1", primary.port)), other.listen()
        assert str(primary.port) in host.standby(check=1).err
    assert not (host.state_dir / "last-standby.toml").exists()
    host.standby()


def test_a_store_is_made_once_and_has_to_be_there_later(pair):
    primary, host = pair
    text = host.config_file.read_text()
    store = primary.base / "deep/standby"
    host.config_file.write_text(text.replace(str(primary.standby), str(store)))
    host.standby()
    host.down()
    store.parent.rename(primary.base / "away")  # its disk is not mounted
    assert "mounted" in host.standby(check=1).err and not store.parent.exists()
    (primary.base / "away").rename(store.parent)
    host.standby()


def test_a_store_of_somebody_else_is_refused(pair):
    primary, host = pair
    primary.standby.mkdir()
    (primary.standby / "file").write_text("somebody's")
    assert str(primary.standby) in host.standby(check=2).err
    assert [path.name for path in primary.standby.iterdir()] == ["file"]


def test_which_of_several_hosts_must_be_said(pair):
    primary, host = pair
    with open(host.config_file, "a") as file:
        file.write('\n[[standby]]\npath = "/srv/x"\nhost = "192.0.2.9"\n')
    host.standby()  # the other one is no address of this machine
    host.down()
    text = host.config_file.read_text()
    host.config_file.write_text(text.replace("127.0.0.1", "192.0.2.8"))
    refused = host.standby(check=2)
    assert "--host" in refused.err and "192.0.2.8" in refused.err and "192.0.2.9" in refused.err
    assert "192.0.2.7" in host.standby("--host", "192.0.2.7", check=2).err
    host.standby("--host", "192.0.2.8")


def test_without_a_standby_on_a_host_there_is_nothing_to_serve(make_volume):
    volume = make_volume()
    volume.create()
    assert "host" in volume.run("standby", volume.name, check=2).err


def test_a_machine_is_primary_or_standby(serving):
    primary, host = serving
    for command in ("up", "snapshot", "destroy", "prune"):
        point = host.name if command in ("up", "prune") else f"{host.name}@x"
        assert "standby of" in host.run(command, point, check=1).err
    assert "primary" in primary.run("standby", primary.name, check=1).err
    host.down(), primary.down(check=(0, 3))
    assert "standby of" in host.run("up", host.name, check=1).err
    assert "has been the primary" in primary.run("standby", primary.name, check=1).err


def test_remove_forgets_the_standby_and_leaves_its_tree(serving):
    primary, host = serving
    (primary.dir / "file").write_text("x")
    primary.down()
    assert "not down" in host.run("remove", host.name, check=1).err
    host.down()
    host.run("remove", host.name)
    assert primary.replica().joinpath("file").read_text() == "x"
    assert not host.config_file.exists() and not host.secret.exists()
    assert not (primary.standby / "volume").exists() and not host.state_dir.exists()
    assert primary.tail().exists() or primary.config_file.exists()


# What both say.


def test_the_status_of_both_sides(serving):
    primary, host = serving
    (primary.dir / "file").write_text("x" * 5000)
    primary.wait("applied")
    there = host.wait_status(lambda status: status["state"] == "in-sync", "in sync")
    here = primary.status()["standbys"][0]
    assert here["target"] == primary.target and here["connected"] and here["pid"] == 0
    assert there["role"] == "standby" and there["volume"] == host.name and there["connected"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", there["from"]) and there["trouble"] == ""
    assert there["received_lsn"] >= there["durable_lsn"] >= there["applied_lsn"] > 0
    assert there["received_records"] > 0 and there["received_bytes"] > 5000
    assert there["epoch"] == primary.status()["epoch"] and there["heard_seconds"] < 10
    assert there["store"] == str(primary.standby)
    shown = host.run("status", host.name, check=0).out
    assert re.match(
        rf"{host.name}\s+standby in-sync \| from 127\.0\.0\.1:\d+, "
        r"received/applied \d+/\d+ \(\d+ B\)",
        shown,
    ), shown
    assert f"{primary.target} connected, queued/sent" in primary.run("status", primary.name).out


def test_a_standby_whose_primary_is_gone_is_behind(serving):
    primary, host = serving
    primary.down()
    host.wait_status(lambda status: status["state"] == "behind", "behind")
    host.run("status", host.name, check=3)
    assert "no primary" in host.run("status", host.name, check=3).out


def test_a_stranger_is_counted_with_the_reason(serving):
    primary, host = serving
    with socket.create_connection(("127.0.0.1", primary.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
    there = host.wait_status(lambda status: status["refused"] >= 1, "refused")
    assert "127.0.0.1" in there["last_refused"] and there["last_refused_at"]
    assert "refused" in host.run("status", host.name, check=(0, 3)).out
    assert there["connected"]


def test_watch_prints_each_second(pair):
    _, host = pair
    host.standby()
    environment = dict(os.environ, TWINSPOOL_ROOT=str(host.root))
    with subprocess.Popen(
        [volumes.PROGRAM, "status", "--watch"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        lines = [process.stdout.readline() for _ in range(2)]
        process.kill()
    assert all(line.startswith(f"{host.name}  standby") for line in lines), lines


# Snapshots.


def test_snapshots_are_taken_here_and_read_there(serving):
    primary, host = serving
    (primary.dir / "file").write_text("old")
    primary.run("snapshot", f"{primary.name}@one")
    (primary.dir / "file").write_text("new")
    primary.run("snapshot", f"{primary.name}@two")
    for side in (primary, host):
        listed = json.loads(side.run("list", side.name, "--json").out)
        assert [one["name"] for one in listed] == ["one", "two"]
    point = f"{host.name}@one:{primary.dir}"
    for command in (["diff", f"{host.name}@one"], ["export", point], ["log", f"{host.name}:/x"]):
        refused = primary.run(*command, check=1)
        assert "on the host 127.0.0.1" in refused.err and "run this there" in refused.err
    host.run("restore", point, primary.base / "restored")
    assert (primary.base / "restored/file").read_text() == "old"
    assert "M" in host.run("diff", f"{host.name}@one", f"{host.name}@two").out
    assert str(primary.dir) in host.run("log", f"{host.name}:{primary.dir}/file").out or True
    (primary.base / "view").mkdir()
    host.run("mount", f"{host.name}@one", primary.base / "view")
    inside = (primary.base / "view") / str(primary.dir).lstrip("/")
    assert (inside / "file").read_text() == "old"
    host.run("umount", primary.base / "view")
    assert "primary" in host.run("restore", point, "--in-place", check=1).err
    assert "exists" in primary.run("snapshot", f"{primary.name}@two", check=2).err or True
    primary.run("destroy", f"{primary.name}@one")
    assert [one["name"] for one in json.loads(host.run("list", host.name, "--json").out)] == ["two"]


def test_once_works_on_the_store_of_this_host(serving):
    primary, host = serving
    (primary.dir / "file").write_text("x")
    primary.down()
    assert "is up" in host.run("standby", host.name, "--once", check=1).err
    host.down()
    assert "stands at record" in host.run("standby", host.name, "--once", "--tail").out
    assert primary.replica().joinpath("file").read_text() == "x"


# Metrics.


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            key, value = line.rsplit(" ", 1)
            found[key] = float(value)
    return found, text


def test_both_daemons_answer_prometheus(pair):
    primary, host = pair
    ports = free_port(), free_port()
    primary.configure(metrics=f"127.0.0.1:{ports[0]}")
    text = host.config_file.read_text()
    host.config_file.write_text(f'metrics = "{ports[1]}"\n' + text)
    host.standby()
    primary.up()
    primary.wait("in-sync")
    host.wait_status(lambda status: status["state"] == "in-sync", "in sync")
    here, there = scrape(ports[0])[0], scrape(ports[1])[0]
    volume = f'volume="{primary.name}"'
    for found, state in ((here, "in-sync"), (there, "in-sync")):
        assert found[f'twinspool_state{{{volume},state="{state}"}}'] == 1
    standby = f'{volume},standby="{primary.target}"'
    assert here[f"twinspool_standby_connected{{{standby}}}"] == 1
    assert here[f"twinspool_standby_applied_lsn{{{standby}}}"] > 0
    assert here[f"twinspool_journal_limit_bytes{{{volume}}}"] == 8 << 30
    assert there[f"twinspool_primary_connected{{{volume}}}"] == 1
    assert there[f"twinspool_received_bytes_total{{{volume}}}"] > 0
    primary.down(), host.down()
    for port in ports:
        with pytest.raises(OSError):
            scrape(port)


def test_every_metric_is_in_the_manual(pair):
    primary, host = pair
    ports = free_port(), free_port()
    primary.configure(metrics=str(ports[0]))
    host.config_file.write_text(f'metrics = "{ports[1]}"\n' + host.config_file.read_text())
    host.standby()
    primary.up()
    primary.wait("in-sync")
    primary.run("snapshot", f"{primary.name}@one")
    manual = (volumes.REPOSITORY / "docs/METRICS.md").read_text()
    for port in ports:
        for kind, name in re.findall(r"^# (TYPE|HELP) (twinspool_\w+)", scrape(port)[1], re.M):
            assert f"`{name}`" in manual, name


def test_a_taken_metrics_port_is_a_warning(make_volume):
    volume = make_volume()
    volume.create()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0)), other.listen()
        port = other.getsockname()[1]
        volume.configure(metrics=str(port))
        assert str(port) in volume.up().err
    volume.wait("in-sync")
    assert f"listen at 127.0.0.1:{port}" in volume.log()


def test_the_dashboard_asks_only_for_metrics_that_there_are():
    text = (volumes.REPOSITORY / "docs/grafana-dashboard.json").read_text()
    manual = (volumes.REPOSITORY / "docs/METRICS.md").read_text()
    json.loads(text)
    for name in set(re.findall(r"twinspool_\w+", text)):
        assert f"`{name}`" in manual, name
