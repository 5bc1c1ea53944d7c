# SPDX-License-Identifier: Apache-2.0
"""System calls that Python's standard library does not have."""
import ctypes
import os
import struct

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]

AT_FDCWD = -100
MS_SYNC = 4
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16
IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
RWF_APPEND = 0x10

ACL_ACCESS, ACL_DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER = 1, 2, 4, 16, 32


def checked(result, *paths):
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), *paths[:1])
    return result


def renameat2(source, target, flags):
    checked(
        libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags), source
    )


def fallocate(fd, mode, offset, length):
    checked(libc.fallocate(fd, mode, offset, length))


def msync(view):
    """mmap.flush() would hold all other threads up meanwhile."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    checked(libc.msync(ctypes.c_void_p(address), ctypes.c_size_t(len(view)), MS_SYNC))


def as_user(uid, gid):
    """This thread's identity for file systems, the capabilities that go with it too. 0, 0 takes it
    back.
    """
    if uid:
        libc.setfsgid(gid), libc.setfsuid(uid)
    else:
        libc.setfsuid(0), libc.setfsgid(0)


def acl(user, permissions, owner=6, group=4, other=0):
    """The kernel's form of u::owner,u:user:permissions,g::group,m::rwx,o::other."""
    entries = [
        (ACL_USER_OBJ, owner, 2**32 - 1),
        (ACL_USER, permissions, user),
        (ACL_GROUP_OBJ, group, 2**32 - 1),
        (ACL_MASK, 7, 2**32 - 1),
        (ACL_OTHER, other, 2**32 - 1),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


class Inotify:
    def __init__(self, path, mask):
        self.fd = checked(libc.inotify_init1(os.O_NONBLOCK))
        checked(libc.inotify_add_watch(self.fd, os.fsencode(path), mask))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def events(self):
        """(mask, name) of what has happened up to now."""
        found = []
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return found
        while data:
            _, mask, _, length = struct.unpack_from("iIII", data)
            found.append((mask & 0xFFF, data[16 : 16 + length].rstrip(b"\0").decode()))
            data = data[16 + length :]
        return found
