"""Renames that `os` lacks: renameat2(2), which replaces nothing, or has two files trade places."""

import ctypes
import errno
import os

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
