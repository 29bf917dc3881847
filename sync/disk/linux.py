"""What `os` lacks: renameat2(2), that replaces nothing, or has two files trade places; statx(2).

And errors in words that say whom they are about.
"""

import ctypes
import errno
import os
import struct

_NOREPLACE = 1  # RENAME_NOREPLACE
_EXCHANGE = 2  # RENAME_EXCHANGE
# A file system that has no such renames, such as NFS, or a kernel before 3.15.
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = _libc.renameat2
_renameat2.restype = ctypes.c_int
_renameat2.argtypes = (
    *(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p),
    ctypes.c_uint,
)
_statx = _libc.statx
_statx.restype = ctypes.c_int
_statx.argtypes = (
    *(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint),
    ctypes.c_char_p,
)
_EMPTY_PATH = 0x1000  # AT_EMPTY_PATH
_BIRTH = 0x800  # STATX_BTIME
_STATX_SIZE = 256  # bytes
_BIRTH_AT = 80  # stx_btime: seconds, nanoseconds


def reason(error: OSError) -> str:
    """Say what an error is; of one of rights, whose they are, as that is what can be changed."""
    words = error.strerror or str(error)
    return f"{words} for user {os.geteuid()}" if error.errno == errno.EACCES else words


def birth(fd: int) -> int:
    """Return when what is open was made, in ns since 1970; 0 where nobody knows."""
    found = ctypes.create_string_buffer(_STATX_SIZE)
    if _statx(fd, b"", _EMPTY_PATH, _BIRTH, found):
        return 0
    (mask,) = struct.unpack_from("=I", found)
    seconds, nanoseconds = struct.unpack_from("=qI", found, _BIRTH_AT)
    return int(seconds * 1_000_000_000 + nanoseconds) if mask & _BIRTH else 0


class Renames:
    """The three ways to rename, each between open directories."""

    def replace(self, old: bytes, old_folder: int, new: bytes, new_folder: int) -> None:
        """Rename as rename(2) does, over whatever file is there."""
        os.rename(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)

    def new(self, old: bytes, old_folder: int, new: bytes, new_folder: int) -> None:
        """Rename, and replace nothing; raises FileExistsError, or what is UNSUPPORTED."""
        if _renameat2(old_folder, old, new_folder, new, _NOREPLACE):
            raise _error(new)

    def exchange(self, one: bytes, other: bytes, folder: int) -> None:
        """Have two files, which must be there, trade places; raises what is UNSUPPORTED."""
        if _renameat2(folder, one, folder, other, _EXCHANGE):
            raise _error(other)


def _error(name: bytes) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)
