"""statx(2), for the one thing that os.stat does not tell on Linux: when a directory was made."""

import ctypes
import os
import struct

_BTIME = 0x800  # STATX_BTIME, in the mask of what is asked and of what was answered
_FLAGS = 0x100 | 0x1000  # AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH
_SIZE = 256  # struct statx
_MASK = struct.Struct("=I")  # at 0: stx_mask
_TIME = struct.Struct("=qI")  # at 80: stx_btime, in seconds and nanoseconds
_TIME_AT = 80

_libc = ctypes.CDLL(None, use_errno=True)


def birth_time(name: str, dir_fd: int) -> int:
    """Return when `name` in `dir_fd` was made, in ns; 0 on a file system that does not record it.

    An empty `name` is `dir_fd` itself. Links are not followed. Raises OSError.
    """
    answer = ctypes.create_string_buffer(_SIZE)
    if _libc.statx(dir_fd, os.fsencode(name), _FLAGS, _BTIME, answer) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    (mask,) = _MASK.unpack_from(answer)
    seconds, nanoseconds = _TIME.unpack_from(answer, _TIME_AT)
    return seconds * 10**9 + nanoseconds if mask & _BTIME else 0
