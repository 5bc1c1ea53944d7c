# SPDX-License-Identifier: Apache-2.0
"""Snapshots that the daemon has taken, and those that a rule does not keep: nobody else's are ever
destroyed. The status says what there is.
"""
import calendar
import re
import time

import images
import pytest
from test_seed import plant

OWN = re.compile(r"frequent-(\d{8}T\d{6})Z")


def due_of(name):
    """When the schedule's own snapshot was due; None for others."""
    own = OWN.fullmatch(name)
    return calendar.timegm(time.strptime(own[1], "%Y%m%dT%H%M%S")) if own else None


@pytest.fixture
def scheduled(make_volume):
    """Makes a volume with a table [snapshot]; up and in sync."""

    def make(up=True, options=None, prepare=None, **snapshot):
        volume = make_volume(**(options or {}))
        if prepare:
            prepare(volume)
        volume.create()
        with open(volume.config_file, "a") as config:
            config.write("\n[snapshot]\n")
            config.writelines(f'{key} = "{value}"\n' for key, value in snapshot.items())
        if up:
            volume.up()
            volume.wait("in-sync")
        return volume

    return make


def own(volume):
    return [name for name in images.listed(volume) if due_of(name)]


def wait_for_own(volume, holds, timeout=30):
    deadline = time.monotonic() + timeout
    while not holds(names := own(volume)):
        assert time.monotonic() < deadline, f"{names}\n{volume.log()}"
        time.sleep(0.2)
    return names


def schedule_status(volume):
    return volume.status()["snapshots"]["schedule"]


def seconds_of(text):
    return calendar.timegm(time.strptime(re.sub(r"(\.\d+)?Z$", "", text), "%Y-%m-%dT%H:%M:%S"))


def test_they_come_when_they_are_due(scheduled):
    volume = scheduled(every="2s")
    wait_for_own(volume, lambda names: len(names) >= 3)
    for name, row in images.listed(volume).items():
        due = due_of(name)
        assert due % 2 == 0 and due <= seconds_of(row["time"]) <= due + 1, (name, row)
        assert not row["incomplete"] and not row["broken"]
    schedule = schedule_status(volume)
    assert schedule["every"] == "2s" and schedule["trouble"] == "", schedule
    assert seconds_of(schedule["next"]) % 2 == 0


def test_none_comes_without_a_schedule(volume):
    time.sleep(2)
    assert images.listed(volume) == {}
    assert volume.status()["snapshots"]["schedule"] is None


def test_what_is_not_kept_goes_and_what_people_took_stays(scheduled):
    volume = scheduled(every="1s", keep="3 frequent")
    theirs = ["mine", "frequent-mine", "hourly-20261122", "before-restore-20261122T0900Z"]
    for name in theirs:
        images.take(volume, name)
    first = wait_for_own(volume, lambda names: len(names) >= 2)[0]
    wait_for_own(volume, lambda names: names and first not in names)
    assert 3 <= len(own(volume)) <= 4  # the newest is there before the oldest goes
    assert [name for name in images.listed(volume) if not due_of(name)] == theirs


def test_prune_does_what_its_dry_run_says(scheduled):
    volume = scheduled(keep="1 hourly, 1 frequent")
    kept = ["mine", "weekly-20200105T0000Z"]
    # All of one hour, as the mark's time counts; the newest stays.
    gone = ["hourly-20200101T0000Z", "daily-20200102T0000Z", "frequent-20200103T000002Z"]
    for name in [*gone, *kept[::-1]]:
        images.take(volume, name)
    before = images.listed(volume)
    dry = volume.run("prune", volume.name, "--dry-run")
    assert dry.out.splitlines() == [f"{volume.name}@{name}: would be destroyed" for name in gone]
    assert images.listed(volume).keys() == before.keys()
    done = volume.run("prune", volume.name)
    assert done.out.splitlines() == [f"{volume.name}@{name}: destroyed" for name in gone]
    assert sorted(images.listed(volume)) == sorted(kept)
    again = volume.run("prune", volume.name)
    assert again.out == f"{volume.name}: nothing to prune\n"


def test_prune_passes_over_what_is_mounted(scheduled):
    volume = scheduled(keep="1 frequent")
    names = [f"hourly-2020010{day}T0000Z" for day in range(1, 5)]
    for name in names:
        (volume.dir / "which").write_text(name)
        images.take(volume, name)
    with images.mounted(volume, names[1]) as shown:
        done = volume.run("prune", volume.name)
        assert len(done.out.splitlines()) == 3, done
        assert re.search(rf"^{volume.name}@{names[1]}: kept, .*in use", done.out, re.M), done
        assert list(images.listed(volume)) == [names[1], names[3]]
        assert (shown.of() / "which").read_text() == names[1]
    volume.run("prune", volume.name)
    assert list(images.listed(volume)) == [names[3]]


def test_prune_without_a_rule_or_a_volume_destroys_nothing(volume):
    images.take(volume, "hourly-20200101T0000Z")
    images.take(volume, "hourly-20200102T0000Z")
    done = volume.run("prune", volume.name)
    assert "keep" in done.out and str(volume.config_file) in done.out
    assert len(images.listed(volume)) == 2
    assert "no volume" in volume.run("prune", "other", check=2).err
    volume.down()
    assert volume.run("prune", volume.name).code == 0


def test_prune_of_a_volume_that_is_down_destroys_nothing(scheduled):
    volume = scheduled(keep="1 frequent")
    for day in (1, 2):
        images.take(volume, f"hourly-2020010{day}T0000Z")
    volume.down()
    assert "is down" in volume.run("prune", volume.name, check=(1, 3)).err
    assert len(images.listed(volume)) == 2


def test_one_that_was_missed_is_not_made_up_for(scheduled):
    volume = scheduled(every="4s")
    wait_for_own(volume, lambda names: len(names) >= 1)
    down_at = time.time()
    volume.down()
    time.sleep(max(0, down_at + 9 - time.time()))
    up_at = time.time()
    volume.up()
    names = wait_for_own(volume, lambda names: any(due_of(name) > up_at for name in names))
    between = [name for name in names if down_at < due_of(name) < up_at]
    assert between == []


def test_none_is_taken_while_the_standby_is_being_filled(scheduled):
    volume = scheduled(up=False, every="1s", options={"standby_timeout": "60s"})
    plant(volume.dir, files=1500)
    volume.up()
    with volume.stopped_standby():
        assert volume.state == "seeding", "too fast to be stopped"
        filling = "the standby is still being filled"
        volume.wait_until(
            lambda status: status["snapshots"]["schedule"]["trouble"] == filling, filling
        )
        time.sleep(2)
        assert not volume.status()["snapshots"]["count"]
    volume.wait("in-sync")
    wait_for_own(volume, len)
    assert schedule_status(volume)["trouble"] == ""
    assert volume.log().count(filling) == 1
    assert not any(row["incomplete"] for row in images.listed(volume).values())


def test_why_one_fails_is_said_once(scheduled, fresh):
    switch = fresh() / "works"
    volume = scheduled(every="1s", before=f"test -e {switch} || {{ echo broken; false; }}")
    status = volume.wait_until(lambda status: status["snapshots"]["schedule"]["trouble"], "trouble")
    assert "broken" in status["snapshots"]["schedule"]["trouble"]
    shown = volume.run("status", volume.name, check=(0, 3)).out
    assert re.search(r"^ +trouble .*broken", shown, re.M), shown
    time.sleep(3)
    complaint = re.compile(r" error: scheduled snapshot frequent-\S+: .*broken")
    assert len(complaint.findall(volume.log())) == 1, volume.log()
    assert images.listed(volume) == {}
    switch.touch()
    wait_for_own(volume, len)
    assert schedule_status(volume)["trouble"] == ""
    assert "succeed again" in volume.log()


def test_the_status_says_what_there_is(volume):
    nothing = volume.status()["snapshots"]
    assert (nothing["count"], nothing["newest"], nothing["oldest"]) == (0, None, None)
    assert "snapshots" not in volume.run("status", volume.name).out
    for name in ("one", "two", "three"):
        images.take(volume, name)
    rows = images.listed(volume)
    status = volume.wait_until(lambda status: status["snapshots"]["count"] == 3, "three snapshots")
    snapshots = status["snapshots"]
    assert (snapshots["broken"], snapshots["incomplete"]) == (0, 0)
    for which, name in (("newest", "three"), ("oldest", "one")):
        assert (snapshots[which]["name"], snapshots[which]["lsn"]) == (name, rows[name]["lsn"])
        assert seconds_of(snapshots[which]["time"]) == seconds_of(rows[name]["time"])
        assert 0 <= snapshots[which]["age_seconds"] < 60
    shown = volume.run("status", volume.name).out
    assert re.search(r"^vol .*\| snapshots 3, oldest \d+s \|", shown), shown
    assert re.search(rf"^ +newest +three, \d+s ago, record {rows['three']['lsn']}$", shown, re.M)
    images.destroy(volume, "two")
    volume.wait_until(lambda status: status["snapshots"]["count"] == 2, "two snapshots")


def test_the_status_knows_them_after_a_start_and_when_down(volume):
    images.take(volume, "one")
    volume.wait()
    volume.down()
    down = volume.status()["snapshots"]
    assert (down["count"], down["newest"]["name"]) == (1, "one")
    assert "| snapshots 1, oldest " in volume.run("status", volume.name, check=3).out
    volume.up()
    volume.wait("in-sync")
    assert volume.status()["snapshots"]["newest"]["name"] == "one"
    volume.kill_standby()
    volume.wait("in-sync")
    assert volume.status()["snapshots"]["count"] == 1


def test_a_wrong_schedule_is_refused(scheduled):
    volume = scheduled(up=False, every="1h", keep="24 hours")
    refused = volume.up(check=2)
    assert re.search(r"vol\.toml:\d+:8: keep is \"24 hours\"", refused.err), refused
