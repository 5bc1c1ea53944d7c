# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the system tests. They need root, /dev/fuse and the built program."""
import contextlib
import faulthandler
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tools")]

pytest.register_assert_rewrite(
    *("machine", "volume", "model", "load", "steps", "images", "clients", "postgres", "mariadb"),
    "hosts",
)
import hosts  # noqa: E402
import machine  # noqa: E402
import volume as volumes  # noqa: E402

SLOWEST = 120  # seconds for a test without a `limit` mark of its own


class Overdue(Exception):
    pass


def pytest_configure(config):
    # A shell without job control starts what is in the background with SIGINT ignored, and so would
    # be every program that a test interrupts.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slow: takes more than about ten seconds")
    config.addinivalue_line("markers", "limit(seconds): the test is ended after that time")
    config.addinivalue_line("markers", "plain: needs neither root nor the program")


def raise_overdue(*_):
    raise Overdue("the test took too long; the threads' stacks are above")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """A call that hangs in the overlay heeds no signal of ours, but it returns when the daemon is
    gone.
    """
    mark = item.get_closest_marker("limit")
    limit = (mark.args[0] if mark else SLOWEST) * volumes.PATIENCE
    main = threading.get_ident()

    def expire():
        faulthandler.dump_traceback(file=sys.__stderr__)
        machine.kill(*machine.processes_with_environment(machine.MARK, str(machine.base())))
        signal.pthread_kill(main, signal.SIGALRM)

    signal.signal(signal.SIGALRM, raise_overdue)
    timer = threading.Timer(limit, expire)
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        shared = getattr(item.getparent(pytest.Module), "volumes", [])
        for volume in shared + getattr(item, "volumes", []):
            report.sections.append((f"log of {volume.name} in {volume.base}", volume.log()))


@pytest.fixture(scope="session", autouse=True)
def base():
    """The directory below which everything of this run is. Afterwards nothing of it may be left."""
    found = machine.new_base()
    os.umask(0o022)
    yield found
    left = {
        "processes": machine.processes_with_environment(machine.MARK, str(found)),
        "mounts": machine.mounts_below(found),
        "loop devices": machine.loop_devices_below(found),
    }
    machine.kill(*left["processes"])
    machine.unmount_below(found)
    machine.detach_loops_below(found)
    if "TWINSPOOL_KEEP" not in os.environ and not machine.mounts_below(found):
        machine.remove(found)
    assert not any(left.values()), f"left behind: {left}"


@pytest.fixture(scope="session")
def program():
    """The built program, on a machine that can run it."""
    assert os.geteuid() == 0, "the system tests mount file systems: run them as root"
    assert os.access(volumes.PROGRAM, os.X_OK), f"{volumes.PROGRAM} is not built: run tests/run"
    if volumes.TRANSPORT == "io_uring":
        missing = machine.demand_io_uring()
        assert missing is None, missing
    return volumes.PROGRAM


def names(base):
    for number in range(10**6):
        yield base / str(number)


@pytest.fixture(scope="session")
def fresh(base):
    """Makes a new directory at each call; none is ever used twice."""
    counter = names(base)

    def make():
        directory = next(counter)
        directory.mkdir()
        return directory

    return make


@contextlib.contextmanager
def volume_maker(request, fresh, kind=volumes.Volume):
    made = request.node.volumes = getattr(request.node, "volumes", [])

    def make(**options):
        one = kind(options.pop("base", None) or fresh(), **options)
        made.append(one)
        return one

    try:
        yield make
    finally:
        for one in made:
            one.clean_up()
        for one in made:
            machine.detach_loops_below(one.base)
            if "TWINSPOOL_KEEP" not in os.environ:
                machine.drop_large_files(one.base)


@pytest.fixture
def make_volume(request, program, fresh):
    """Makes volumes that end with the test."""
    with volume_maker(request, fresh) as make:
        yield make


@pytest.fixture
def make_hosted(request, program, fresh):
    """Makes volumes whose standbys are hosts."""
    with volume_maker(request, fresh, hosts.HostedVolume) as make:
        yield make


@pytest.fixture
def hosted(make_hosted):
    """One volume with one standby host, up and in sync."""
    return make_hosted().start()


@pytest.fixture(scope="module")
def make_shared_hosted(request, program, fresh):
    with volume_maker(request, fresh, hosts.HostedVolume) as make:
        yield make


@pytest.fixture(scope="module")
def make_shared_volume(request, program, fresh):
    """Makes volumes that end with the module."""
    with volume_maker(request, fresh) as make:
        yield make


@pytest.fixture
def volume(make_volume):
    """One volume with one directory, up and in sync."""
    return make_volume().start()


@pytest.fixture
def disk(fresh):
    """Makes disks of their own below `directory`; they end with the test, after its volumes if
    asked for first.
    """
    made = []

    def make(directory, size, kind="ext4", **options):
        made.append(machine.Disk(directory, size, kind, **options))
        return made[-1]

    yield make
    for one in reversed(made):
        machine.unmount_below(one.path)
        machine.detach_loops_below(one.image)
