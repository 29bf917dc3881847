"""System calls that `os` lacks: openat2(2), renameat2(2), and statx(2) for the time of birth."""

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

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [
    *(ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
]


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


def _error(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)
