# SPDX-License-Identifier: Apache-2.0
"""What a program asks of a file system, on the overlay; after each test the replica is equal.

All tests share one volume, each has a directory of its own on it (`area`).
"""
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import select
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

import calls
import pytest

USER, GROUP, SUPPLEMENTARY = 1000, 1001, 1002
O_DIRECT_SIZE = 4096


@pytest.fixture(scope="module")
def shared(make_shared_volume):
    volume = make_shared_volume(directories=("dir", "second")).start()
    yield volume
    volume.down()
    assert volume.compare() == []


@pytest.fixture
def area(shared, request):
    place = shared.dir / request.node.name.replace("/", "_")[:100]
    place.mkdir()
    place.chmod(0o777)
    yield place
    shared.assert_equal(below=place.name)


@contextlib.contextmanager
def opened(path, flags, mode=0o644):
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def errno_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
        return 0
    except OSError as error:
        return error.errno


def as_user(work, uid=USER, gid=GROUP, groups=()):
    """Runs `work` in a process of that user and returns its errno, or raises if it failed
    otherwise.
    """
    child = os.fork()
    if child == 0:
        code = 255
        try:
            os.setgroups(list(groups)), os.setgid(gid), os.setuid(uid)
            work()
            code = 0
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert 0 <= code < 255, f"the child ended with {code}"
    return code


def write(path, data=b"x"):
    path.write_bytes(data)
    return path


# Opening and writing.


def test_o_trunc_empties_the_file(area):
    file = write(area / "file", b"long content")
    with opened(file, os.O_WRONLY | os.O_TRUNC):
        assert file.stat().st_size == 0
    write(file, b"short")
    assert file.read_bytes() == b"short"


def test_o_trunc_of_an_empty_file_sets_its_time(area):
    file = write(area / "file", b"")
    os.utime(file, ns=(1, 1))
    with opened(file, os.O_WRONLY | os.O_TRUNC):
        assert file.stat().st_mtime_ns > 10**18


def test_o_excl_is_exclusive(area):
    with opened(area / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY):
        assert errno_of(os.open, area / "file", os.O_CREAT | os.O_EXCL) == errno.EEXIST
    (area / "link").symlink_to("nowhere")
    assert errno_of(os.open, area / "link", os.O_CREAT | os.O_EXCL) == errno.EEXIST


def test_o_append_always_writes_at_the_end(area):
    with opened(area / "file", os.O_CREAT | os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"one ")
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"two ")
        assert os.fstat(fd).st_size == 8
    assert (area / "file").read_bytes() == b"one two "


def test_appends_of_several_processes_do_not_overlap(area):
    file = write(area / "file", b"")

    def append(letter):
        with opened(file, os.O_WRONLY | os.O_APPEND) as fd:
            for _ in range(200):
                os.write(fd, letter * 100)

    threads = [
        threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = file.read_bytes()
    assert len(content) == 4 * 200 * 100
    assert all(len(set(content[at : at + 100])) == 1 for at in range(0, len(content), 100))


def test_who_opens_a_growing_file_never_sees_zeros(area):
    """As Dovecot reads its log: each reader opens it anew while another process appends."""
    file, seconds = write(area / "file", b""), 3
    read_on = """
import os, sys, time
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    fd = os.open(sys.argv[1], os.O_RDWR)
    size = os.fstat(fd).st_size
    data = os.pread(fd, 10000, max(0, size - 8000))
    os.close(fd)
    if b"\\0" in data:
        sys.exit(f"zeros in the last of {size} bytes")
"""
    readers = [
        subprocess.Popen([sys.executable, "-c", read_on, file, str(seconds)]) for _ in range(3)
    ]
    while any(reader.poll() is None for reader in readers):
        with opened(file, os.O_WRONLY | os.O_APPEND) as fd:
            for _ in range(100):
                os.write(fd, b"x" * 104)
    assert [reader.returncode for reader in readers] == [0, 0, 0]


def test_o_direct_reads_and_writes(area):
    buffer = mmap.mmap(-1, 4 * O_DIRECT_SIZE)
    buffer[:] = os.urandom(len(buffer))
    with opened(area / "file", os.O_CREAT | os.O_RDWR | os.O_DIRECT) as fd:
        assert os.pwrite(fd, buffer, 0) == len(buffer)
        target = mmap.mmap(-1, 4 * O_DIRECT_SIZE)
        assert os.preadv(fd, [target], 0) == len(buffer)
    assert target[:] == buffer[:] == (area / "file").read_bytes()


def test_o_direct_and_buffered_see_each_other(area):
    file = write(area / "file", b"\1" * 8192)
    assert file.read_bytes() == b"\1" * 8192
    buffer = mmap.mmap(-1, O_DIRECT_SIZE)
    buffer[:] = b"\2" * O_DIRECT_SIZE
    with opened(file, os.O_WRONLY | os.O_DIRECT) as fd:
        os.pwrite(fd, buffer, 4096)
    assert file.read_bytes() == b"\1" * 4096 + b"\2" * 4096


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
def test_o_sync_writes(area, flag):
    with opened(area / "file", os.O_CREAT | os.O_WRONLY | flag) as fd:
        for _ in range(5):
            os.write(fd, b"x" * 1000)
    assert (area / "file").stat().st_size == 5000


def test_writes_larger_than_a_request(area):
    data = random.Random(1).randbytes(9 << 20)
    assert write(area / "file", data).read_bytes() == data


def test_writes_of_many_pieces(area):
    with opened(area / "file", os.O_CREAT | os.O_WRONLY) as fd:
        os.writev(fd, [b"%d," % number for number in range(1000)])
        os.pwritev(fd, [b"AB", b"CD"], 100)
    assert (area / "file").read_bytes()[100:104] == b"ABCD"


def test_unlinked_files_stay_until_closed(area):
    file = write(area / "file", b"before")
    with opened(file, os.O_RDWR) as fd:
        file.unlink()
        os.pwrite(fd, b"after the unlink", 0)
        os.fsync(fd)
        os.ftruncate(fd, 9)
        os.fchmod(fd, 0o600)
        assert os.pread(fd, 100, 0) == b"after the"
        assert os.fstat(fd).st_nlink == 0
        write(file, b"another")
        assert os.pread(fd, 100, 0) == b"after the"
    assert file.read_bytes() == b"another"


def test_a_file_replaced_by_rename_stays_until_closed(area):
    old, new = write(area / "old", b"old"), write(area / "new", b"new")
    with opened(old, os.O_RDWR) as fd:
        new.rename(old)
        os.pwrite(fd, b"OLD", 0)
        assert os.pread(fd, 10, 0) == b"OLD" and old.read_bytes() == b"new"


def test_a_removed_directory_stays_until_left(area):
    (area / "gone").mkdir()
    with opened(area / "gone", os.O_RDONLY | os.O_DIRECTORY) as fd:
        (area / "gone").rmdir()
        assert os.listdir(fd) == [] and os.fstat(fd).st_nlink == 0
        assert errno_of(os.open, "new", os.O_CREAT | os.O_WRONLY, dir_fd=fd) == errno.ENOENT


def test_thousands_of_unlinked_open_files(area):
    fds = []
    for number in range(3000):
        fds.append(os.open(area / str(number), os.O_CREAT | os.O_RDWR, 0o644))
        os.write(fds[-1], b"%d" % number)
        os.unlink(area / str(number))
    try:
        assert all(os.pread(fd, 10, 0) == b"%d" % number for number, fd in enumerate(fds))
    finally:
        for fd in fds:
            os.close(fd)


# Names.


def test_rename_noreplace_does_not_replace(area):
    write(area / "a", b"a"), write(area / "b", b"b")
    assert errno_of(calls.renameat2, area / "a", area / "b", calls.RENAME_NOREPLACE) == errno.EEXIST
    calls.renameat2(area / "a", area / "c", calls.RENAME_NOREPLACE)
    assert (area / "b").read_bytes() == b"b" and (area / "c").read_bytes() == b"a"


def test_rename_exchange_swaps_two_names(area):
    write(area / "file"), (area / "dir").mkdir(), write(area / "dir/inside")
    calls.renameat2(area / "file", area / "dir", calls.RENAME_EXCHANGE)
    assert (area / "dir").is_file() and (area / "file/inside").is_file()
    assert (
        errno_of(calls.renameat2, area / "file", area / "missing", calls.RENAME_EXCHANGE)
        == errno.ENOENT
    )


def test_rename_replaces_at_once(area):
    """A reader sees the old file or the new one, never none."""
    write(area / "target", b"0")
    done = threading.Event()

    def replace():
        for number in range(300):
            write(area / "next", b"%d" % number).rename(area / "target")
        done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    while not done.is_set():
        assert (area / "target").read_bytes().isdigit()
    thread.join()


def test_rename_of_directories(area):
    for name in ("a", "b", "b/full", "empty"):
        (area / name).mkdir()
    assert errno_of(os.rename, area / "a", area / "b") == errno.ENOTEMPTY
    os.rename(area / "a", area / "empty")
    assert errno_of(os.rename, area / "b", area / "b/full/inside") == errno.EINVAL
    os.rename(area / "b/full", area / "full")
    assert (area / "b").stat().st_nlink == 2


def test_names_of_one_file_stay_one_file(area):
    write(area / "one", b"1")
    os.link(area / "one", area / "two")
    (area / "sub").mkdir()
    os.link(area / "one", area / "sub/three")
    with open(area / "two", "ab") as file:
        file.write(b"2")
    assert (area / "sub/three").read_bytes() == b"12" and (area / "one").stat().st_nlink == 3
    os.rename(area / "one", area / "two")  # of the same file: nothing happens
    assert (area / "one").exists() and (area / "two").exists()
    (area / "one").unlink()
    assert (area / "two").stat().st_nlink == 2


def test_a_name_outside_the_volume_does_not_trouble_the_standby(make_volume):
    """As backups by `cp -al` leave them: the last name inside goes, and the file is still open."""
    volume = make_volume()
    files = [write(volume.dir / f"file {number}", b"x" * 5000) for number in range(2)]
    for file in files:
        os.link(file, volume.base / file.name)
    volume.start()
    volume.wait("in-sync")
    with opened(files[0], os.O_RDWR) as removed, opened(files[1], os.O_RDWR) as replaced:
        files[0].unlink()
        os.rename(write(volume.dir / "new", b"new"), files[1])
        for fd in (removed, replaced):
            os.pwrite(fd, b"after", 100)
            os.fchmod(fd, 0o600)
            volume.wait("applied")
            os.ftruncate(fd, 200)
    for file in files:
        assert (volume.base / file.name).read_bytes()[100:] == b"after" + b"x" * 95
    volume.wait("in-sync")
    volume.assert_equal()


def test_names_do_not_cross_the_directories_of_a_volume(area, shared):
    write(area / "file")
    for call in (os.link, os.rename):
        assert errno_of(call, area / "file", shared.directories[1] / "file") == errno.EXDEV


def test_symlinks(area):
    (area / "link").symlink_to("x" * 4000)
    assert os.readlink(area / "link") == "x" * 4000
    (area / "dangling").symlink_to("nowhere")
    assert errno_of(os.stat, area / "dangling") == errno.ENOENT
    (area / "loop").symlink_to("loop")
    assert errno_of(os.stat, area / "loop") == errno.ELOOP
    os.utime(area / "link", ns=(5, 5), follow_symlinks=False)
    assert os.lstat(area / "link").st_mtime_ns == 5


def test_names_of_255_bytes_and_no_more(area):
    name = "ä" * 127 + "x"
    write(area / name)
    (area / ("d" * 255)).mkdir()
    assert sorted(os.listdir(area)) == sorted([name, "d" * 255])
    assert errno_of(os.open, area / ("n" * 256), os.O_CREAT | os.O_WRONLY) == errno.ENAMETOOLONG
    assert errno_of(os.mkdir, area / ("n" * 256)) == errno.ENAMETOOLONG
    assert errno_of(os.rename, area / name, area / ("n" * 256)) == errno.ENAMETOOLONG
    assert errno_of(os.stat, area / ("n" * 256)) == errno.ENAMETOOLONG


def test_names_that_are_not_utf8(area):
    write_at = os.fsencode(area) + b"/\xff\xfe\x01\n"
    with opened(write_at, os.O_CREAT | os.O_WRONLY):
        pass
    assert os.listdir(os.fsencode(area)) == [b"\xff\xfe\x01\n"]


def test_the_programs_own_xattrs_and_names_are_hidden(area, shared):
    write(area / "file")
    assert not any(name.startswith("trusted.twinspool") for name in os.listxattr(area / "file"))
    for call, extra in ((os.getxattr, ()), (os.removexattr, ()), (os.setxattr, (b"x",))):
        assert errno_of(call, area / "file", "trusted.twinspool.id", *extra) in (
            errno.ENODATA,
            errno.EPERM,
        )
    assert any(
        name.startswith("trusted.twinspool")
        for name in os.listxattr(shared.backing() / area.name / "file")
    )
    assert not [name for name in os.listdir(shared.dir) if "twinspool" in name]


def test_errors_are_the_usual_ones(area):
    write(area / "file"), (area / "dir").mkdir(), write(area / "dir/full")
    assert errno_of(os.unlink, area / "dir") == errno.EISDIR
    assert errno_of(os.rmdir, area / "file") == errno.ENOTDIR
    assert errno_of(os.rmdir, area / "dir") == errno.ENOTEMPTY
    assert errno_of(os.mkdir, area / "file") == errno.EEXIST
    assert errno_of(os.open, area / "file/below", os.O_RDONLY) == errno.ENOTDIR
    assert errno_of(os.open, area / "dir", os.O_WRONLY) == errno.EISDIR
    assert errno_of(os.truncate, area / "dir", 0) == errno.EISDIR
    assert errno_of(os.stat, area / "missing") == errno.ENOENT
    assert errno_of(os.link, area / "dir", area / "link") == errno.EPERM
    assert errno_of(os.truncate, area / "file", -1) == errno.EINVAL
    assert errno_of(os.getxattr, area / "file", "user.none") == errno.ENODATA


# Space.


def test_truncate_shrinks_and_grows(area):
    file = write(area / "file", b"x" * 10000)
    os.truncate(file, 5000)
    os.truncate(file, 8000)
    assert file.read_bytes() == b"x" * 5000 + b"\0" * 3000
    with opened(file, os.O_RDWR) as fd:
        os.ftruncate(fd, 0)
    assert file.stat().st_size == 0


@pytest.mark.parametrize(
    "mode, expected",
    [
        (0, (b"x" * 20000, 30000)),
        (calls.KEEP_SIZE, (b"x" * 20000, 20000)),
        (calls.PUNCH_HOLE | calls.KEEP_SIZE, (b"x" * 10000 + b"\0" * 10000, 20000)),
        (calls.ZERO_RANGE, (b"x" * 10000 + b"\0" * 20000, 30000)),
        (calls.ZERO_RANGE | calls.KEEP_SIZE, (b"x" * 10000 + b"\0" * 10000, 20000)),
    ],
    ids=["allocate", "keep size", "punch hole", "zero range", "zero range, keep size"],
)
def test_fallocate(area, mode, expected):
    file = write(area / "file", b"x" * 20000)
    with opened(file, os.O_RDWR) as fd:
        calls.fallocate(fd, mode, 10000, 20000)
    assert file.stat().st_size == expected[1]
    assert file.read_bytes()[: len(expected[0])] == expected[0]
    assert not file.read_bytes()[20000:].strip(b"\0")


def test_fallocate_takes_the_space(area):
    with opened(area / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.posix_fallocate(fd, 0, 1 << 20)
        assert os.fstat(fd).st_blocks * 512 >= 1 << 20


def test_collapse_range_is_refused(area):
    with opened(write(area / "file", b"x" * 20000), os.O_RDWR) as fd:
        assert errno_of(calls.fallocate, fd, calls.COLLAPSE_RANGE, 4096, 4096) == errno.EOPNOTSUPP


def test_seek_data_and_hole(area):
    with opened(area / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.ftruncate(fd, 3 << 20)
        os.pwrite(fd, b"x" * 65536, 1 << 20)
        os.fsync(fd)
        assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20
        assert os.lseek(fd, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 65536
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        assert errno_of(os.lseek, fd, 2 << 20, os.SEEK_DATA) == errno.ENXIO
        assert os.lseek(fd, 2 << 20, os.SEEK_HOLE) == 2 << 20


def test_punched_holes_are_holes_in_both_trees(area, shared):
    with opened(write(area / "file", b"x" * (1 << 20)), os.O_RDWR) as fd:
        calls.fallocate(fd, calls.PUNCH_HOLE | calls.KEEP_SIZE, 256 << 10, 512 << 10)
        os.fsync(fd)
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 256 << 10
    shared.wait("applied")
    with opened(shared.replica() / area.name / "file", os.O_RDONLY) as fd:
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 256 << 10
        assert os.lseek(fd, 256 << 10, os.SEEK_DATA) == 768 << 10


def test_sparse_files_above_4_gib(area):
    with opened(area / "file", os.O_CREAT | os.O_RDWR) as fd:
        for offset in ((1 << 32) - 2, (1 << 40) + 5):
            os.pwrite(fd, b"edge", offset)
            assert os.pread(fd, 6, offset - 1) == b"\0edge"
        assert os.fstat(fd).st_size == (1 << 40) + 9
        assert os.fstat(fd).st_blocks * 512 < 1 << 20
        assert os.lseek(fd, 1 << 33, os.SEEK_DATA) >= 1 << 39


def test_copy_file_range(area):
    data = random.Random(2).randbytes(3 << 20)
    with opened(write(area / "source", data), os.O_RDONLY) as source, opened(
        area / "target", os.O_CREAT | os.O_RDWR
    ) as target:
        done = 0
        while done < len(data):
            done += os.copy_file_range(source, target, len(data) - done, done, done + 100)
    assert (area / "target").read_bytes() == b"\0" * 100 + data


def test_statfs_speaks_of_the_disk(area, shared):
    ours, disk = os.statvfs(area), os.statvfs(shared.standby)
    assert ours.f_namemax == 255 and ours.f_bsize >= 512
    assert ours.f_blocks * ours.f_frsize == disk.f_blocks * disk.f_frsize


# Attributes.


def test_times_keep_their_nanoseconds(area):
    file = write(area / "file")
    (area / "dir").mkdir()
    for path in (file, area / "dir"):
        os.utime(path, ns=(1_111_111_111_123_456_789, 1_222_222_222_987_654_321))
        assert path.stat().st_mtime_ns == 1_222_222_222_987_654_321
        assert path.stat().st_atime_ns == 1_111_111_111_123_456_789


def test_changes_set_the_times(area):
    file = write(area / "file")
    os.utime(file, ns=(5, 5)), os.utime(area, ns=(5, 5))
    with open(file, "ab") as opened_file:
        opened_file.write(b"more")
    assert file.stat().st_mtime_ns > 10**18 and area.stat().st_mtime_ns == 5
    before = file.stat().st_ctime_ns
    file.chmod(0o600)
    assert file.stat().st_ctime_ns > before
    write(area / "another")
    assert area.stat().st_mtime_ns > 10**18


def test_modes_and_owners(area):
    file = write(area / "file")
    os.chown(file, USER, GROUP)
    file.chmod(0o4751)
    found = file.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (USER, GROUP, 0o4751)
    os.chown(file, -1, 0)
    assert file.stat().st_uid == USER
    assert not file.stat().st_mode & 0o4000, "a change of owner takes the set-uid bit away"


def test_writing_takes_set_uid_away(area):
    file = write(area / "file")
    os.chown(file, USER, GROUP), file.chmod(0o6777)

    def append():
        with opened(file, os.O_WRONLY | os.O_APPEND) as fd:
            os.write(fd, b"x")

    assert as_user(append, uid=USER + 1) == 0
    assert file.stat().st_mode & 0o6000 == 0


def test_the_umask_applies(area):
    os.umask(0o027)
    try:
        write(area / "file"), (area / "dir").mkdir()
    finally:
        os.umask(0o022)
    assert (area / "file").stat().st_mode & 0o777 == 0o640 and (
        area / "dir"
    ).stat().st_mode & 0o777 == 0o750


def test_set_gid_directories_pass_their_group_on(area):
    (area / "dir").mkdir()
    os.chown(area / "dir", 0, GROUP), (area / "dir").chmod(0o2777)

    def create():
        write(area / "dir/file")
        (area / "dir/sub").mkdir()

    assert as_user(create, gid=USER) == 0
    assert (area / "dir/file").stat().st_gid == GROUP and (area / "dir/file").stat().st_uid == USER
    assert (area / "dir/sub").stat().st_gid == GROUP and (area / "dir/sub").stat().st_mode & 0o2000


def test_sticky_directories_guard_the_files_of_others(area):
    (area / "dir").mkdir(), (area / "dir").chmod(0o1777)
    write(area / "dir/roots")
    assert as_user(lambda: write(area / "dir/own")) == 0
    assert as_user(lambda: (area / "dir/roots").unlink()) == errno.EPERM
    assert as_user(lambda: (area / "dir/own").rename(area / "dir/roots")) == errno.EPERM
    assert as_user(lambda: (area / "dir/own").unlink()) == 0


def test_permissions_are_checked(area):
    secret = write(area / "secret", b"secret")
    secret.chmod(0o600)
    assert as_user(lambda: secret.read_bytes()) == errno.EACCES
    assert as_user(lambda: secret.chmod(0o644)) == errno.EPERM
    assert as_user(lambda: os.truncate(secret, 0)) == errno.EACCES
    (area / "dir").mkdir(), (area / "dir").chmod(0o755)
    assert as_user(lambda: write(area / "dir/file")) == errno.EACCES


def test_supplementary_groups_are_enough(area):
    """The kernel has let the caller through; the daemon, which is in no such group, must not
    refuse.
    """
    (area / "dir").mkdir()
    os.chown(area / "dir", 0, SUPPLEMENTARY), (area / "dir").chmod(0o2770)
    file = write(area / "dir/file")
    os.chown(file, 0, SUPPLEMENTARY), file.chmod(0o660)

    def work():
        with opened(file, os.O_RDWR | os.O_APPEND) as fd:
            os.write(fd, b"y")
        write(area / "dir/own", b"mine")
        (area / "dir/own").rename(area / "dir/renamed")
        os.chown(area / "dir/renamed", -1, SUPPLEMENTARY)
        (area / "dir/sub").mkdir()
        os.symlink("x", area / "dir/link")

    assert as_user(work, groups=[SUPPLEMENTARY]) == 0
    assert as_user(lambda: file.read_bytes()) == errno.EACCES
    assert (area / "dir/renamed").stat().st_uid == USER
    assert os.lstat(area / "dir/link").st_uid == USER


def test_new_objects_belong_to_their_maker(area):
    def work():
        write(area / "file"), (area / "dir").mkdir(), os.symlink("x", area / "link"), os.mkfifo(
            area / "fifo"
        )
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as one:
            os.chdir(area)
            one.bind("socket")

    assert as_user(work) == 0
    for name in ("file", "dir", "link", "fifo", "socket"):
        found = os.lstat(area / name)
        assert (found.st_uid, found.st_gid) == (USER, GROUP), name


def test_a_file_without_write_permission_can_be_made_and_written(area):
    def work():
        with opened(area / "file", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o400) as fd:
            os.write(fd, b"written")

    assert as_user(work) == 0
    assert (area / "file").read_bytes() == b"written"


def test_xattrs(area):
    file = write(area / "file")
    os.setxattr(file, "user.one", b"1", os.XATTR_CREATE)
    assert errno_of(os.setxattr, file, "user.one", b"2", os.XATTR_CREATE) == errno.EEXIST
    assert errno_of(os.setxattr, file, "user.two", b"2", os.XATTR_REPLACE) == errno.ENODATA
    os.setxattr(file, "user.empty", b"")
    os.setxattr(file, "trusted.other", os.urandom(2000))
    os.setxattr(area, "user.on a directory", b"yes")
    assert sorted(os.listxattr(file)) == ["trusted.other", "user.empty", "user.one"]
    os.removexattr(file, "user.empty")
    assert errno_of(os.getxattr, file, "user.empty") == errno.ENODATA
    (area / "link").symlink_to("file")
    os.setxattr(area / "link", "trusted.of the link", b"x", follow_symlinks=False)
    assert os.listxattr(area / "link", follow_symlinks=False) == ["trusted.of the link"]


def test_file_capabilities(area):
    file = write(area / "file")
    value = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(file, "security.capability", value)
    assert os.getxattr(file, "security.capability") == value
    with open(file, "ab") as opened_file:
        opened_file.write(b"x")
    assert (
        errno_of(os.getxattr, file, "security.capability") == errno.ENODATA
    ), "writing takes capabilities away"


def getfacl(path):
    return subprocess.run(
        ["getfacl", "--omit-header", "--numeric", "--absolute-names", path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()


def setfacl(path, *arguments):
    subprocess.run(["setfacl", *arguments, path], check=True)


def test_acls_give_and_take_access(area):
    file = write(area / "file", b"for one user")
    file.chmod(0o600)
    setfacl(file, "-m", f"u:{USER}:r")
    assert f"user:{USER}:r--" in getfacl(file)
    assert as_user(lambda: file.read_bytes()) == 0
    assert as_user(lambda: file.write_bytes(b"x")) == errno.EACCES
    file.chmod(0o600)
    assert as_user(lambda: file.read_bytes()) == errno.EACCES, "chmod has narrowed the mask"
    setfacl(file, "-b")
    assert len(getfacl(file)) == 3


def test_default_acls_are_inherited(area):
    (area / "dir").mkdir()
    setfacl(area / "dir", "-d", "-m", f"u:{USER}:rwX,g::rx,o::-")
    write(area / "dir/file"), (area / "dir/sub").mkdir(), os.mkfifo(area / "dir/fifo")
    assert f"user:{USER}:rwx" in getfacl(area / "dir/file")
    assert f"default:user:{USER}:rwx" in getfacl(area / "dir/sub")
    assert (area / "dir/file").stat().st_mode & 0o007 == 0
    assert as_user(lambda: (area / "dir/file").write_bytes(b"let in")) == 0


def test_special_files(area):
    os.mknod(area / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(area / "block", stat.S_IFBLK | 0o600, os.makedev(7, 300))
    os.mkfifo(area / "fifo", 0o640)
    assert os.lstat(area / "null").st_rdev == os.makedev(1, 3)
    assert os.lstat(area / "block").st_rdev == os.makedev(7, 300)
    assert (area / "null").read_bytes() == b""
    with opened(area / "fifo", os.O_RDWR) as fd:
        os.write(fd, b"through the FIFO")
        assert os.read(fd, 100) == b"through the FIFO"


def test_unix_sockets(area):
    os.chdir(area)
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server, contextlib.closing(
            socket.socket(socket.AF_UNIX)
        ) as client:
            server.bind("socket"), server.listen()
            client.connect("socket")
            client.sendall(b"hello")
            assert server.accept()[0].recv(10) == b"hello"
    finally:
        os.chdir("/")


def test_access_and_execution(area):
    script = write(area / "script", b"#!/bin/sh\necho run\n")
    assert not os.access(script, os.X_OK)
    script.chmod(0o755)
    assert subprocess.run([script], capture_output=True, check=True).stdout == b"run\n"
    program = write(area / "true", open("/bin/true", "rb").read())
    program.chmod(0o755)
    assert subprocess.run([program]).returncode == 0


# Sharing.


def test_shared_mappings_are_written_back(area):
    file = write(area / "file", b"." * 20000)
    with opened(file, os.O_RDWR) as fd, mmap.mmap(fd, 20000) as view:
        view[9000:9005] = b"store"
        view.flush()
        assert os.pread(fd, 5, 9000) == b"store"
        os.pwrite(fd, b"write", 100)
        assert view[100:105] == b"write"
    assert file.read_bytes()[9000:9005] == b"store"


def test_shared_mappings_are_written_back_without_being_asked(area):
    file = write(area / "file", b"." * 4096)
    with opened(file, os.O_RDWR) as fd, mmap.mmap(fd, 4096) as view:
        view[:4] = b"late"
    with opened(file, os.O_RDWR) as fd:
        os.fsync(fd)
    assert file.read_bytes()[:4] == b"late"


def test_mapping_survives_the_unlink(area):
    file = write(area / "file", b"." * 4096)
    with opened(file, os.O_RDWR) as fd, mmap.mmap(fd, 4096) as view:
        file.unlink()
        view[:4] = b"gone"
        view.flush()
        assert os.pread(fd, 4, 0) == b"gone"


def test_private_mappings_stay_private(area):
    file = write(area / "file", b"." * 8192)
    with opened(file, os.O_RDONLY) as fd, mmap.mmap(fd, 8192, mmap.MAP_PRIVATE) as view:
        view[:7] = b"private"
        assert view[:8] == b"private."
    assert file.read_bytes() == b"." * 8192


def test_flock_excludes(area):
    write(area / "file")
    with opened(area / "file", os.O_RDWR) as one, opened(area / "file", os.O_RDWR) as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        assert errno_of(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EWOULDBLOCK
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_fcntl_locks_exclude_by_range_and_wait(area):
    file = write(area / "file", b"x" * 100)

    def try_range(start):
        with opened(file, os.O_RDWR) as fd:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, start)

    with opened(file, os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
        assert as_user(lambda: try_range(5), uid=0, gid=0) in (errno.EAGAIN, errno.EACCES)
        assert as_user(lambda: try_range(50), uid=0, gid=0) == 0


def test_fcntl_locks_end_with_the_process_that_waits_for_them(area):
    file = write(area / "file")
    holder = os.fork()
    if holder == 0:
        with opened(file, os.O_RDWR) as fd:
            fcntl.lockf(fd, fcntl.LOCK_EX)
            write(area / "locked")
            time.sleep(0.5)
            os._exit(0)
    while not (area / "locked").exists():
        time.sleep(0.01)
    with opened(file, os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)
    os.waitpid(holder, 0)


def test_inotify_tells_of_changes(area):
    mask = calls.IN_CREATE | calls.IN_MODIFY | calls.IN_DELETE | calls.IN_MOVED_TO
    with calls.Inotify(area, mask) as watch:
        write(area / "file")
        (area / "file").rename(area / "moved")
        (area / "moved").unlink()
        select.select([watch.fd], [], [], 5)
        events = watch.events()
    assert (calls.IN_CREATE, "file") in events and (calls.IN_MODIFY, "file") in events
    assert (calls.IN_MOVED_TO, "moved") in events and (calls.IN_DELETE, "moved") in events


def test_two_descriptors_see_each_others_writes(area):
    with opened(area / "file", os.O_CREAT | os.O_RDWR) as one, opened(
        area / "file", os.O_RDWR
    ) as two:
        os.write(one, b"first")
        assert os.read(two, 10) == b"first" and os.fstat(two).st_size == 5
        os.ftruncate(two, 2)
        assert os.pread(one, 10, 0) == b"fi" and os.fstat(one).st_size == 2


def test_fsync_of_files_and_directories(area):
    with opened(area / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"x")
        os.fsync(fd), os.fdatasync(fd)
    with opened(area / "file", os.O_RDONLY) as fd:
        os.fsync(fd)
    with opened(area, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


# Directories.


def test_readdir_gives_types_and_dots(area):
    (area / "dir").mkdir(), write(area / "file"), (area / "link").symlink_to("file")
    kinds = {
        entry.name: (entry.is_dir(follow_symlinks=False), entry.is_symlink())
        for entry in os.scandir(area)
    }
    assert kinds == {"dir": (True, False), "file": (False, False), "link": (False, True)}
    inodes = {entry.name: entry.inode() for entry in os.scandir(area)}
    assert inodes == {name: os.lstat(area / name).st_ino for name in kinds}


def read_directory(fd, limit):
    """The names that getdents64 gives next; at most about `limit` bytes of entries."""
    buffer = ctypes.create_string_buffer(limit)
    length = calls.checked(calls.libc.syscall(217, fd, buffer, limit))
    found, at = [], 0
    while at < length:
        _, cookie, size = struct.unpack_from("QqH", buffer.raw, at)
        name = buffer.raw[at + 19 : at + size].split(b"\0")[0].decode()
        found.append((name, cookie))
        at += size
    return [(name, cookie) for name, cookie in found if name not in (".", "..")]


@pytest.mark.slow
@pytest.mark.limit(240)
def test_a_directory_of_100_000_that_changes_while_it_is_read(area):
    """What was there all along is seen exactly once, whatever comes and goes."""
    count = 100_000
    write(area / "0")
    os.mkdir(area / "big")
    for number in range(count):
        # Links cost the disk nothing but the entry; ext4 allows 65 000 of one file.
        if number % 60_000 == 0:
            source = write(area / "big" / f"kept{number}")
        else:
            os.link(source, area / "big" / f"kept{number}")
    done = threading.Event()

    def disturb():
        number = 0
        while not done.is_set():
            write(area / "big" / f"passing{number}")
            if number > 50:
                os.unlink(area / "big" / f"passing{number - 50}")
            number += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        begin = time.monotonic()
        with opened(area / "big", os.O_RDONLY | os.O_DIRECTORY) as fd:
            seen = []
            while names := read_directory(fd, 32768):
                seen += [name for name, _ in names if name.startswith("kept")]
        took = time.monotonic() - begin
    finally:
        done.set(), thread.join()
    assert len(seen) == count and len(set(seen)) == count
    assert took < 30, f"reading took {took:.0f} s"


def test_a_position_in_a_directory_can_be_taken_up_again(area):
    for number in range(500):
        write(area / str(number))
    with opened(area, os.O_RDONLY | os.O_DIRECTORY) as fd:
        first = read_directory(fd, 2048)
        position = first[-1][1]
        rest = [name for name, _ in iter_all(fd)]
        os.lseek(fd, position, os.SEEK_SET)
        assert [name for name, _ in iter_all(fd)] == rest
        os.lseek(fd, 0, os.SEEK_SET)
        assert len(list(iter_all(fd))) == 500


def iter_all(fd):
    while names := read_directory(fd, 4096):
        yield from names


def test_removing_while_reading_empties_a_directory(area):
    (area / "dir").mkdir()
    for number in range(5000):
        write(area / "dir" / str(number), b"")
    subprocess.run(["rm", "-r", area / "dir"], check=True)
    assert not (area / "dir").exists()


# Identity.


def test_inode_numbers_survive_down_and_up(make_volume):
    volume = make_volume().start()
    (volume.dir / "dir").mkdir()
    write(volume.dir / "dir/file"), os.link(volume.dir / "dir/file", volume.dir / "link")
    before = {path: path.lstat().st_ino for path in volume.dir.rglob("*")}
    assert len(set(before.values())) == 2
    volume.down(), volume.up()
    assert {path: path.lstat().st_ino for path in volume.dir.rglob("*")} == before
    volume.kill_all(), volume.up()
    assert {path: path.lstat().st_ino for path in volume.dir.rglob("*")} == before
    volume.assert_equal()


def test_inode_numbers_are_not_used_twice(area):
    first = write(area / "file").stat().st_ino
    (area / "file").unlink()
    assert write(area / "file").stat().st_ino != first


def test_disk_quotas_of_the_owners_hold(disk, make_volume):
    volume = make_volume()
    try:
        place = disk(
            volume.base / "disk",
            128 << 20,
            mkfs_options=["-O", "quota", "-E", "quotatype=usrquota"],
            mount_options=["usrquota"],
        )
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no disk quotas")
    volume.directories = [place.path / "dir"]
    volume.dir.mkdir(), volume.dir.chmod(0o777)
    subprocess.run(
        ["setquota", "-u", str(USER), "1024", "1024", "20", "20", place.path], check=True
    )
    volume.start()

    def too_much():
        with opened(volume.dir / "file", os.O_CREAT | os.O_WRONLY) as fd:
            for _ in range(64):
                os.write(fd, b"x" * 65536)

    def too_many():
        for number in range(64):
            with opened(volume.dir / f"n{number}", os.O_CREAT | os.O_WRONLY):
                pass

    assert as_user(too_much) == errno.EDQUOT
    assert as_user(too_many) == errno.EDQUOT
    assert 0 < (volume.dir / "file").stat().st_size <= 1 << 20
    write(volume.dir / "of root", b"x" * (2 << 20))
    volume.assert_equal()


def test_the_daemon_cannot_override_quotas(shared):
    for line in open(f"/proc/{shared.primary_pid}/status"):
        if line.startswith("CapEff"):
            assert not int(line.split()[1], 16) >> 24 & 1, "it holds CAP_SYS_RESOURCE"


def test_a_full_disk_is_enospc_and_nothing_is_half_done(disk, make_volume):
    volume = make_volume()
    place = disk(volume.base / "disk", 64 << 20)
    volume.directories = [place.path / "dir"]
    volume.dir.mkdir()
    volume.start()
    with opened(volume.dir / "file", os.O_CREAT | os.O_WRONLY) as fd:

        def fill():
            for _ in range(2000):
                os.write(fd, b"x" * 65536)

        assert errno_of(fill) == errno.ENOSPC
    assert volume.state == "in-sync"
    volume.assert_equal()
    (volume.dir / "file").unlink()
    write(volume.dir / "another", b"room again")
    volume.assert_equal()
