"""What btrfs can do that others cannot: subvolumes, snapshots of them, and limits.

A directory that is a subvolume can be copied at one instant, whatever its size, and have a limit.
To make one, or a snapshot of one's own, takes no capability; to limit one takes CAP_SYS_ADMIN, and
so does deleting one at once; emptied like any directory it is removed by rmdir(2).

Source: linux/btrfs.h, btrfs-ioctl(2). Each raises OSError: ENOTTY on any other file system.
"""

import errno
import fcntl
import os
import struct
from contextlib import suppress

_ROOT = 256  # BTRFS_FIRST_FREE_OBJECTID: the inode of the top directory of each subvolume
_READ, _WRITE = 2, 1


def _request(direction: int, number: int, size: int) -> int:
    """Return the number of an ioctl of btrfs, as the macro _IOC makes it."""
    return direction << 30 | size << 16 | 0x94 << 8 | number


_ARGS = struct.Struct("=q4088s")  # struct btrfs_ioctl_vol_args
_ARGS_V2 = struct.Struct("=qQQ32s4040s")  # struct btrfs_ioctl_vol_args_v2
_LOOKUP_ARGS = struct.Struct("=QQ4080s")  # struct btrfs_ioctl_ino_lookup_args
_CHILDREN_ARGS = struct.Struct("=Q4080sB7x")  # struct btrfs_ioctl_get_subvol_rootref_args
_LIMIT_ARGS = struct.Struct("=QQQQQQ")  # struct btrfs_ioctl_qgroup_limit_args
_SUBVOLUME_FLAGS = struct.Struct("=Q")
_READ_ONLY = 1 << 1  # BTRFS_SUBVOL_RDONLY
_MAX_REFERENCED = 1  # BTRFS_QGROUP_LIMIT_MAX_RFER
_NO_LIMIT = (1 << 64) - 1

_FLAGS = struct.Struct("=L")  # an int, whatever the request says
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
_IN_PLACE = 0x00800000  # FS_NOCOW_FL

_CREATE = _request(_WRITE, 14, _ARGS.size)  # BTRFS_IOC_SUBVOL_CREATE
_SNAPSHOT = _request(_WRITE, 23, _ARGS_V2.size)  # BTRFS_IOC_SNAP_CREATE_V2
_DESTROY = _request(_WRITE, 15, _ARGS.size)  # BTRFS_IOC_SNAP_DESTROY
_LOOKUP = _request(_READ | _WRITE, 18, _LOOKUP_ARGS.size)  # BTRFS_IOC_INO_LOOKUP
_GET_SUBVOLUME_FLAGS = _request(_READ, 25, _SUBVOLUME_FLAGS.size)  # BTRFS_IOC_SUBVOL_GETFLAGS
_SET_SUBVOLUME_FLAGS = _request(_WRITE, 26, _SUBVOLUME_FLAGS.size)  # BTRFS_IOC_SUBVOL_SETFLAGS
_LIMIT = _request(_READ, 43, _LIMIT_ARGS.size)  # BTRFS_IOC_QGROUP_LIMIT
_CHILDREN = _request(_READ | _WRITE, 61, _CHILDREN_ARGS.size)  # BTRFS_IOC_GET_SUBVOL_ROOTREF


def is_here(fd: int) -> bool:
    """Say whether an open directory is on btrfs."""
    try:
        fcntl.ioctl(fd, _LOOKUP, bytearray(_LOOKUP_ARGS.pack(0, _ROOT, b"")))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return True


def subvolume(fd: int) -> int | None:
    """Return the number of the subvolume whose top directory is open; None if it is no such.

    A file system never gives a number of that kind a second time.
    """
    if os.fstat(fd).st_ino != _ROOT:
        return None
    args = bytearray(_LOOKUP_ARGS.pack(0, _ROOT, b""))
    # It may be open for a look only (O_PATH), which no ioctl takes.
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        fcntl.ioctl(readable, _LOOKUP, args)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
            return None  # another file system, which has such an inode, too
        raise
    finally:
        os.close(readable)
    number: int = _LOOKUP_ARGS.unpack(args)[0]
    return number


def write_in_place(folder: int, *, wanted: bool) -> None:
    """Say whether files that are made in the open `folder` are to be written where they are.

    Room that is reserved for those is theirs when the file system is full; else btrfs writes to new
    places. Such files have no checksums. Does nothing on other file systems. Source:
    ioctl_iflags(2).
    """
    with suppress(OSError):
        flags = bytearray(_FLAGS.size)
        fcntl.ioctl(folder, _GET_FLAGS, flags)
        (has,) = _FLAGS.unpack(flags)
        flags[:] = _FLAGS.pack(has | _IN_PLACE if wanted else has & ~_IN_PLACE)
        fcntl.ioctl(folder, _SET_FLAGS, flags)


def make_subvolume(name: str, folder: int) -> None:
    """Make an empty subvolume called `name` in the open `folder`."""
    fcntl.ioctl(folder, _CREATE, bytearray(_ARGS.pack(0, os.fsencode(name))))


def snapshot(source: int, name: str, folder: int) -> None:
    """Make a subvolume called `name` in the open `folder`, with all that the open `source` has."""
    fcntl.ioctl(folder, _SNAPSHOT, bytearray(_ARGS_V2.pack(source, 0, 0, b"", os.fsencode(name))))


def has_subvolumes(fd: int) -> bool:
    """Say whether there are others in an open subvolume; a snapshot of it has not their content."""
    args = bytearray(_CHILDREN_ARGS.pack(0, b"", 0))
    try:
        fcntl.ioctl(fd, _CHILDREN, args)
    except OSError as error:
        if error.errno == errno.EOVERFLOW:  # there are more than the answer takes
            return True
        raise
    count: int = _CHILDREN_ARGS.unpack(args)[2]
    return count > 0


def destroy(name: str, folder: int) -> None:
    """Delete the subvolume called `name` in the open `folder`, if no other is in it."""
    fcntl.ioctl(folder, _DESTROY, bytearray(_ARGS.pack(0, os.fsencode(name))))


def make_writable(fd: int) -> bool:
    """Have an open subvolume written to again; say whether its owner had made it read-only.

    Whoever owns one may do that, as a container in its volume; it could not be moved then, either.
    """
    if os.fstat(fd).st_ino != _ROOT:
        return False
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        flags = bytearray(_SUBVOLUME_FLAGS.size)
        fcntl.ioctl(readable, _GET_SUBVOLUME_FLAGS, flags)
        (had,) = _SUBVOLUME_FLAGS.unpack(flags)
        if not had & _READ_ONLY:
            return False
        fcntl.ioctl(
            readable, _SET_SUBVOLUME_FLAGS, bytearray(_SUBVOLUME_FLAGS.pack(had & ~_READ_ONLY))
        )
    except OSError as error:
        if error.errno == errno.ENOTTY:
            return False  # another file system, which has such an inode, too
        raise
    finally:
        os.close(readable)
    return True


def limit(fd: int, size: int | None) -> None:
    """Let there be at most `size` bytes in the open subvolume; None takes a limit off."""
    number = subvolume(fd)
    if number is None:
        raise OSError(errno.ENOTTY, "is no subvolume of btrfs")
    most = _NO_LIMIT if size is None else size
    # By way of the one that it is in: where there is too much already, that alone can be written.
    around = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        fcntl.ioctl(around, _LIMIT, _LIMIT_ARGS.pack(number, _MAX_REFERENCED, most, 0, 0, 0))
    finally:
        os.close(around)
