# SPDX-License-Identifier: Apache-2.0
"""What comes back from a snapshot: in a new place, in place under load, and undone; and what is said
of it: diff, log, export.
"""
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time

import images
import machine
import pytest
from load import Load
from volume import PROGRAM


def fill(home):
    """One of each kind, in the manner of a mailbox."""
    home.mkdir()
    (home / "mail").mkdir()
    for number in range(20):
        (home / f"mail/{number}").write_bytes(f"message {number}\n".encode() * 50)
    os.link(home / "mail/3", home / "link")
    os.symlink("mail/4", home / "symlink")
    os.mkfifo(home / "fifo")
    os.mknod(home / "device", 0o020600, os.makedev(1, 3))
    with open(home / "sparse", "wb") as file:
        file.write(b"head")
        file.seek(1 << 20)
        file.write(b"tail")
    os.setxattr(home / "mail/5", "user.flag", b"seen")
    subprocess.run(["setfacl", "-m", "u:8:rw", home / "mail/6"], check=True)
    os.chown(home / "mail/7", 8, 12)
    os.chmod(home / "mail/7", 0o4750)
    os.utime(home / "mail/8", ns=(10**18, 10**18 + 7))
    (home / os.fsdecode(b"odd \xff\n name")).write_text("odd")
    return home


def change(home):
    (home / "mail/0").unlink()
    (home / "mail/1").write_text("changed")
    os.rename(home / "mail/2", home / "moved")
    (home / "new").mkdir()
    (home / "new/file").write_text("new")
    os.chmod(home / "mail/9", 0o600)
    os.truncate(home / "sparse", 3)
    (home / "symlink").unlink()
    (home / "symlink").write_text("a file now")
    os.rename(home / "mail/10", home / "mail/11")


def copy(source, target):
    subprocess.run(["cp", "-a", source, target], check=True)
    return target


@pytest.fixture
def mailbox(volume):
    """A volume with a mailbox in a snapshot `monday`, changed since; and a copy of it as it was."""
    home = fill(volume.dir / "anna")
    (volume.dir / "other").write_text("other")
    images.take(volume, "monday")
    volume.before = copy(home, volume.base / "before")
    change(home)
    volume.home = home
    return volume


def at(volume, path, name="monday"):
    return f"{volume.name}@{name}:{path}"


def test_a_mailbox_comes_back_in_a_new_place(mailbox):
    done = mailbox.run("restore", at(mailbox, mailbox.home), mailbox.base / "back")
    assert "read back" in done.out
    assert images.differences(mailbox.before, mailbox.base / "back") == []


def test_it_becomes_an_entry_of_a_directory(mailbox):
    (mailbox.base / "into").mkdir()
    mailbox.run("restore", at(mailbox, mailbox.home), mailbox.base / "into")
    assert images.differences(mailbox.before, mailbox.base / "into/anna") == []
    mailbox.run("restore", at(mailbox, mailbox.home / "mail/1"), f"{mailbox.base}/into/")
    assert (mailbox.base / "into/1").read_bytes() == (mailbox.before / "mail/1").read_bytes()


def test_it_may_come_back_into_the_volume(mailbox):
    mailbox.run("restore", at(mailbox, mailbox.home), mailbox.dir / "anna.monday")
    assert images.differences(mailbox.before, mailbox.dir / "anna.monday") == []
    mailbox.assert_equal()


def test_the_whole_has_full_paths(mailbox):
    mailbox.run("restore", f"{mailbox.name}@monday", mailbox.base / "whole")
    there = mailbox.base / "whole" / str(mailbox.dir).lstrip("/")
    assert images.differences(mailbox.before, there / "anna") == []
    assert (there / "other").read_text() == "other"


def test_in_place_it_is_as_it_was_and_can_be_undone(mailbox):
    now = copy(mailbox.home, mailbox.base / "now")
    dry = mailbox.run("restore", at(mailbox, mailbox.home), "--in-place", "--dry-run")
    assert images.differences(now, mailbox.home) == [], "a dry run changes nothing"
    assert f"- {mailbox.home}/new" in dry.out and f"+ {mailbox.home}/mail/0" in dry.out
    done = mailbox.run("restore", at(mailbox, mailbox.home), "--in-place")
    assert images.differences(mailbox.before, mailbox.home) == []
    mailbox.assert_equal()
    (undo,) = [name for name in images.listed(mailbox) if name.startswith("before-restore-")]
    assert undo in done.out
    mailbox.run("restore", at(mailbox, mailbox.home, undo), "--in-place")
    assert images.differences(now, mailbox.home) == []
    mailbox.assert_equal()
    again = mailbox.run("restore", at(mailbox, mailbox.home, undo), "--in-place", "--dry-run")
    assert again.out.startswith("0 would be made, 0 changed, 0 removed"), again.out


@pytest.mark.slow
def test_in_place_while_the_rest_keeps_running(mailbox, fresh):
    """Fails if the restore holds up, or touches, what it is not about."""
    load = Load(mailbox, fresh(), "restore").start()
    try:
        for _ in range(3):
            mailbox.run("restore", at(mailbox, mailbox.home), "--in-place")
            assert images.differences(mailbox.before, mailbox.home) == []
            before, deadline = load.steps, time.monotonic() + 10
            change(mailbox.home)
            # A writer whose call was cut short looks for two seconds whether the daemon is dying.
            while load.steps == before:
                assert time.monotonic() < deadline, "nobody writes any more"
                time.sleep(0.05)
            assert images.differences(mailbox.before, mailbox.home) != []
        load.stop()
        load.settle()
    finally:
        load.close()
    mailbox.assert_equal()


def test_one_file_comes_back_in_place(mailbox):
    path = mailbox.home / "mail/1"
    mailbox.run("restore", at(mailbox, path), "--in-place")
    assert path.read_bytes() == (mailbox.before / "mail/1").read_bytes()
    assert (mailbox.home / "new/file").read_text() == "new"
    mailbox.run("restore", at(mailbox, mailbox.home / "mail/0"), "--in-place")
    assert (mailbox.home / "mail/0").read_bytes() == (mailbox.before / "mail/0").read_bytes()


def test_the_whole_in_place(make_volume):
    volume = make_volume(directories=("one", "two")).start()
    for directory in volume.directories:
        fill(directory / "anna")
    images.take(volume, "monday")
    before = [copy(each, volume.base / f"before{i}") for i, each in enumerate(volume.directories)]
    for directory in volume.directories:
        change(directory / "anna")
        (directory / "extra").write_text("goes")
    volume.run("restore", "vol@monday", "--in-place")
    for was, directory in zip(before, volume.directories):
        assert images.differences(was, directory) == []
    volume.assert_equal()


@pytest.mark.parametrize(
    "arguments, code, says",
    [
        (["vol@never", "{base}/x"], 2, "no snapshot"),
        (["vol@monday"], 2, "either a destination or --in-place"),
        (["vol@monday", "{base}/x", "--in-place"], 2, "either a destination or --in-place"),
        (["vol@monday:/nowhere", "{base}/x"], 2, "/nowhere"),
        (["vol@monday:{dir}/anna", "{base}/before/mail/1"], 2, "nothing is overwritten"),
        (["vol@monday:{dir}/anna", "{base}/missing/x"], 2, "not there"),
        (["vol@monday", "{base}/before"], 2, ""),
        (["vol@monday", "{dir}/whole"], 2, "its own volume"),
        (["vol@monday", "{base}/standby/tree/x"], 2, "Twinspool's own"),
        (["vol@2026-11-22T09:14:03", "{base}/x"], 2, ""),
    ],
)
def test_what_is_refused_changes_nothing(mailbox, arguments, code, says):
    filled = [each.format(base=mailbox.base, dir=mailbox.dir) for each in arguments]
    done = mailbox.run("restore", *filled, check=code)
    assert says in done.err and done.err.count("\n") == 1, done
    assert not (mailbox.base / "x").exists()
    assert list(images.listed(mailbox)) == ["monday"]


def test_without_the_daemon_only_a_new_place(mailbox):
    mailbox.down()
    assert "down" in mailbox.run("restore", "vol@monday", "--in-place", check=1).err
    mailbox.run("restore", at(mailbox, mailbox.home), mailbox.base / "back")
    assert images.differences(mailbox.before, mailbox.base / "back") == []


def test_interrupted_it_says_so_and_the_same_command_completes_it(mailbox):
    many = mailbox.dir / "many"
    many.mkdir()
    for number in range(6000):
        (many / str(number)).write_bytes(b"x" * 3000)
    images.take(mailbox, "many")
    before = copy(many, mailbox.base / "many before")
    for number in range(6000):
        (many / str(number)).unlink()
    command = [PROGRAM, "restore", at(mailbox, many, "many"), "--in-place"]
    environment = dict(os.environ, TWINSPOOL_ROOT=str(mailbox.root))
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, cwd="/", text=True)
    deadline = time.monotonic() + 60
    while len(os.listdir(many)) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "interrupted" in said, said
    mailbox.run("restore", at(mailbox, many, "many"), "--in-place", timeout=120)
    assert images.differences(before, many) == []
    mailbox.assert_equal()


def test_diff_says_what_changed(mailbox):
    rows = json.loads(mailbox.run("diff", "vol@monday", "--json").out)
    found = {(row["change"], row["path"]) for row in rows}
    home = str(mailbox.home)
    assert ("created", f"{home}/new/file") in found
    assert ("deleted", f"{home}/mail/0") in found
    assert ("changed", f"{home}/mail/1") in found
    assert ("renamed", f"{home}/moved") in found
    assert not any(path.endswith("/mail/12") or path.endswith("/other") for _, path in found)
    assert list(images.listed(mailbox)) == ["monday"], "the one it was compared with is gone"
    images.take(mailbox, "tuesday")
    assert json.loads(mailbox.run("diff", "vol@monday", "vol@tuesday", "--json").out) == rows
    assert json.loads(mailbox.run("diff", "vol@tuesday", "vol@tuesday", "--json").out) == []
    mailbox.run("diff", "vol@monday", "vol@never", check=2)
    mailbox.run("diff", "vol@monday", "other@tuesday", check=2)


def test_log_says_in_which_snapshots_a_file_differs(mailbox):
    path = mailbox.home / "mail/1"
    images.take(mailbox, "tuesday")
    images.take(mailbox, "wednesday")
    path.unlink()
    images.take(mailbox, "thursday")
    rows = json.loads(mailbox.run("log", f"vol:{path}", "--json").out)
    assert [(row["name"], row["change"]) for row in rows] == [
        ("monday", "created"),
        ("tuesday", "changed"),
        ("thursday", "removed"),
    ], rows
    mailbox.run("log", "vol:relative", check=2)


def test_export_is_a_tar_that_others_read(mailbox):
    (mailbox.base / "tar").mkdir()
    environment = dict(os.environ, TWINSPOOL_ROOT=str(mailbox.root))
    with subprocess.Popen(
        [PROGRAM, "export", at(mailbox, mailbox.home)], stdout=subprocess.PIPE, env=environment
    ) as export:
        subprocess.run(
            ["tar", "-x", "--xattrs", "--xattrs-include=*", "--acls", "-C", mailbox.base / "tar"],
            stdin=export.stdout,
            check=True,
        )
    assert export.returncode == 0
    assert images.differences(mailbox.before, mailbox.base / "tar/anna") == []
    whole = mailbox.base / "whole.tar"
    with open(whole, "wb") as out:
        subprocess.run([PROGRAM, "export", "vol@monday"], stdout=out, env=environment, check=True)
    names = subprocess.run(["tar", "-tf", whole], capture_output=True, text=True, check=True).stdout
    assert f"{str(mailbox.home)[1:]}/mail/4\n" in names
    assert machine.alive(os.getpid())


def test_a_killed_restore_is_gone_on_with(mailbox):
    """Nothing is at the destination before all is; in place, each file is the old or the new one."""
    many = mailbox.dir / "many"
    many.mkdir()
    for number in range(4000):
        (many / str(number)).write_bytes(b"x" * 2000)
    images.take(mailbox, "many")
    before = copy(many, mailbox.base / "many before")
    environment = dict(os.environ, TWINSPOOL_ROOT=str(mailbox.root))
    back = mailbox.base / "back"
    for seconds in (0.3, 0.6, 0.9):
        command = [PROGRAM, "restore", at(mailbox, many, "many"), back]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
        if back.exists():
            break
    if not back.exists():
        mailbox.run("restore", at(mailbox, many, "many"), back, timeout=120)
    assert images.differences(before, back) == []
    (back / "many").mkdir()
    mailbox.run("restore", at(mailbox, many, "many"), back, check=2)
    for number in range(0, 4000, 2):
        (many / str(number)).write_bytes(b"other")
    for seconds in (0.5, 1.0):
        command = [PROGRAM, "restore", at(mailbox, many, "many"), "--in-place"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
        odd = [file for file in many.iterdir() if file.read_bytes() not in (b"other", b"x" * 2000)]
        assert all(file.name.startswith(".twinspool-restore-") for file in odd), odd
    mailbox.run("restore", at(mailbox, many, "many"), "--in-place", timeout=120)
    assert images.differences(before, many) == []
    mailbox.assert_equal()


def test_in_place_is_refused_before_anything_is_changed(mailbox):
    """Nor is a snapshot taken for what cannot be."""
    inside = mailbox.home / "mail"
    subprocess.run(["mount", "-t", "tmpfs", "none", inside], check=True)
    try:
        for path in (mailbox.home, inside):
            done = mailbox.run("restore", at(mailbox, path), "--in-place", check=2)
            assert str(inside) in done.err and "unmount" in done.err, done
    finally:
        subprocess.run(["umount", inside], check=True)
    for name in os.listdir(inside):
        (inside / name).unlink()
    inside.rmdir()
    inside.write_text("a file now")
    done = mailbox.run("restore", at(mailbox, inside / "3"), "--in-place", check=2)
    assert f"no directory {inside}" in done.err, done
    assert list(images.listed(mailbox)) == ["monday"]
    mailbox.run("restore", at(mailbox, inside), "--in-place")
    assert images.differences(mailbox.before / "mail", inside) == []


def test_one_restore_in_place_at_a_time(mailbox):
    with open(mailbox.run_dir / "restore.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = mailbox.run("restore", at(mailbox, mailbox.home), "--in-place", check=1)
    assert "another restore" in done.err
    assert list(images.listed(mailbox)) == ["monday"]


def test_a_symlink_in_the_way_does_not_lead_out(mailbox):
    outside = copy(mailbox.before, mailbox.base / "outside")
    shutil.rmtree(mailbox.home)
    mailbox.home.symlink_to(outside)
    mailbox.run("restore", at(mailbox, mailbox.home / "mail/1"), "--in-place", check=2)
    mailbox.run("restore", at(mailbox, mailbox.home), "--in-place")
    assert not mailbox.home.is_symlink()
    assert images.differences(mailbox.before, mailbox.home) == []
    assert images.differences(mailbox.before, outside) == []
    dangling = mailbox.base / "dangling"
    dangling.symlink_to(mailbox.base / "nowhere")
    mailbox.run("restore", at(mailbox, mailbox.home), dangling, check=2)
    assert not (mailbox.base / "nowhere").exists()


def test_odd_names_stay_on_their_line(mailbox):
    name = os.fsdecode(b"\xfe new\nline")
    (mailbox.home / name).write_text("odd")
    rows = json.loads(mailbox.run("diff", "vol@monday", "--json").out)
    (row,) = [row for row in rows if "path_hex" in row]
    assert bytes.fromhex(row["path_hex"]) == os.fsencode(mailbox.home / name)
    assert "\\xfe new\\nline" in row["path"]
    text = mailbox.run("diff", "vol@monday").out.splitlines()
    assert f"+ {mailbox.home}/\\xfe new\\nline" in text
    assert all(line[:2] in ("+ ", "- ", "R ", "M ") for line in text), text
    dry = mailbox.run("restore", at(mailbox, mailbox.home), "--in-place", "--dry-run")
    assert f"- {mailbox.home}/\\xfe new\\nline" in dry.out.splitlines()


def test_log_of_what_was_renamed_and_of_what_never_was(mailbox):
    images.take(mailbox, "tuesday")
    rows = json.loads(mailbox.run("log", f"vol:{mailbox.home}/mail/10", "--json").out)
    assert [(row["name"], row["change"], row.get("to")) for row in rows] == [
        ("monday", "created", None),
        ("tuesday", "renamed", "11"),
    ]
    assert "there is no" in mailbox.run("log", f"vol:{mailbox.home}/never", check=2).err


def test_diff_and_log_while_the_volume_is_down(mailbox):
    up = mailbox.run("diff", "vol@monday", "--json").out
    mailbox.down()
    assert mailbox.run("diff", "vol@monday", "--json").out == up
    mailbox.run("log", f"vol:{mailbox.home}/mail/1")


def test_a_diff_that_was_killed_leaves_nothing_for_long(mailbox):
    """Its snapshot is not held any more, so the next one takes it away."""
    many = mailbox.dir / "many"
    many.mkdir()
    for number in range(3000):
        (many / str(number)).write_bytes(b"x" * 3000)
    environment = dict(os.environ, TWINSPOOL_ROOT=str(mailbox.root))
    command = [PROGRAM, "diff", "vol@monday"]
    for _ in range(20):  # it may be quicker than we are
        diff = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while diff.poll() is None and len(images.listed(mailbox)) == 1:
            pass
        diff.kill()
        diff.wait()
        if len(images.listed(mailbox)) == 2:
            break
    else:
        pytest.fail("no diff was killed in time")
    mailbox.run("diff", "vol@monday")
    assert list(images.listed(mailbox)) == ["monday"]


def test_export_ends_quietly_without_a_reader_and_refuses_a_terminal(mailbox):
    environment = dict(os.environ, TWINSPOOL_ROOT=str(mailbox.root))
    (mailbox.home / "large").write_bytes(os.urandom(4 << 20))
    images.take(mailbox, "large")
    read, write = os.pipe()
    export = subprocess.Popen(
        [PROGRAM, "export", "vol@large"], stdout=write, stderr=subprocess.PIPE, env=environment
    )
    os.close(write), os.read(read, 1), os.close(read)
    assert export.communicate()[1] == b"" and export.returncode == 1
    main, terminal = os.openpty()
    done = subprocess.run(
        [PROGRAM, "export", "vol@large"], stdout=terminal, stderr=subprocess.PIPE, env=environment
    )
    os.close(main), os.close(terminal)
    assert done.returncode == 2 and b"terminal" in done.stderr
