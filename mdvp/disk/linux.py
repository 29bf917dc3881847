"""System calls that `os` lacks.

openat2(2), renameat2(2), statx(2) for the time of birth; and for mounts open_tree(2),
mount_setattr(2), move_mount(2) and umount2(2).
"""

import ctypes
import errno
import os
import struct
from pathlib import Path

_OPENAT2 = 437  # its number, on all architectures; the C library has no function of that name
_OPEN_HOW = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve
_NO_SYMLINKS = 0x04  # RESOLVE_NO_SYMLINKS
_BENEATH = _NO_SYMLINKS | 0x01 | 0x08  # and RESOLVE_NO_XDEV, RESOLVE_BENEATH
_AT_FDCWD = -100

_NOREPLACE = 1  # RENAME_NOREPLACE

_BTIME = 0x800  # STATX_BTIME, in the mask of what is asked and of what was answered
_EMPTY_PATH = 0x1000  # AT_EMPTY_PATH
_STATX_SIZE = 256  # struct statx
_MASK = struct.Struct("=I")  # at 0: stx_mask
_TIME = struct.Struct("=qI")  # at 80: stx_btime, in seconds and nanoseconds
_TIME_AT = 80

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # on all architectures, too
_CLONE = 1  # OPEN_TREE_CLONE: without AT_RECURSIVE, nothing that is mounted below
_MOUNT_ATTR = struct.Struct(
    "=QQQQ"
)  # struct mount_attr: to set, to clear, propagation, a namespace
_RDONLY, _NODIRATIME = 0x01, 0x80
_PRIVATE = 1 << 18  # MS_PRIVATE
_FROM_EMPTY_TO_EMPTY = 0x04 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH and _T_
_DETACH, _NOFOLLOW = 2, 8  # MNT_DETACH, UMOUNT_NOFOLLOW

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [
    *(ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
]


# The same, for arguments of any kind.
_any_libc = ctypes.CDLL(None, use_errno=True)
_any_libc.syscall.restype = ctypes.c_long


def open_beneath(name: str, folder: int, flags: int) -> int:
    """Open `name` in the open `folder`, and nothing else; return the descriptor.

    Raises OSError: ELOOP for a link on the way, EXDEV for what something is mounted on, or what is
    not below `folder`, ENOSYS on a kernel before 5.6.
    """
    return _open(name, folder, flags, _BENEATH)


def open_without_links(path: Path, flags: int) -> int:
    """Open what is at `path`; return the descriptor.

    Raises OSError: ELOOP for a link on the way, ENOSYS on a kernel before 5.6.
    """
    return _open(str(path), _AT_FDCWD, flags, _NO_SYMLINKS)


def _open(name: str, folder: int, flags: int, resolve: int) -> int:
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    fd: int = _libc.syscall(_OPENAT2, folder, os.fsencode(name), how, len(how))
    if fd < 0:
        raise _error(name)
    return fd


def rename_new(name: str, folder: int, new_name: str, new_folder: int) -> None:
    """Rename as rename(2) does, but replace nothing; raises FileExistsError.

    A file system that cannot be asked for that, such as NFS, can replace an empty directory.
    """
    names = os.fsencode(name), os.fsencode(new_name)
    if _libc.renameat2(folder, names[0], new_folder, names[1], _NOREPLACE) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:
        raise _error(new_name)
    os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)


def sync_file_system(fd: int) -> None:
    """Return when all of the file system that an open file is in is on disk: syncfs(2)."""
    if _libc.syncfs(fd) != 0:
        raise _error("syncfs")


def birth_time(fd: int) -> int:
    """Return when an open directory was made, in ns; 0 on a file system that does not record it."""
    answer = ctypes.create_string_buffer(_STATX_SIZE)
    if _libc.statx(fd, b"", _EMPTY_PATH, _BTIME, answer) != 0:
        raise _error("statx")
    (mask,) = _MASK.unpack_from(answer)
    seconds, nanoseconds = _TIME.unpack_from(answer, _TIME_AT)
    return seconds * 10**9 + nanoseconds if mask & _BTIME else 0


def mount_read_only(source: int, point: int) -> None:
    """Mount the open directory `source` at the open directory `point`, with the mark of readers.

    It is read-only before anybody can see it, in all namespaces that it comes to. What is mounted
    below `source` is not in it, and what will be does not come to it. Raises OSError: EPERM without
    CAP_SYS_ADMIN, ENOSYS on a kernel before 5.12.
    """
    tree = _call(_OPEN_TREE, source, b"", _EMPTY_PATH | _CLONE | os.O_CLOEXEC)
    try:
        attributes = _MOUNT_ATTR.pack(_RDONLY | _NODIRATIME, 0, _PRIVATE, 0)
        _call(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH, attributes, len(attributes))
        _call(_MOVE_MOUNT, tree, b"", point, b"", _FROM_EMPTY_TO_EMPTY)
    finally:
        os.close(tree)


def unmount(name: str, folder: int) -> None:
    """Take away what is mounted at `name` in the open `folder`; who has files of it open has them.

    Raises OSError.
    """
    path = os.fsencode(f"/proc/self/fd/{folder}/{name}")
    if _libc.umount2(path, _DETACH | _NOFOLLOW) != 0:
        raise _error(name)


def _call(number: int, *arguments: int | bytes) -> int:
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _any_libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise _error("mount")
    return result


def _error(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)
