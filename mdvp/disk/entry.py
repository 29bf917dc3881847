"""Opening a directory where others can put what they like, without being led astray.

A link leads elsewhere. A mount does, too, and worse: a user who owns a directory can mount a file
system of their own on it, FUSE, which then need not answer, and whoever looks through that mount
point waits for ever. So a directory is opened by its name in an open folder, or not at all.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mdvp.core.volume import Identity
from mdvp.disk.linux import birth_time, open_beneath

LOOK = os.O_PATH  # enough to say which directory it is
_NO_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)


@contextmanager
def opened(name: str, folder: int, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open the directory `name` of the open `folder` for the time of the block.

    Raises OSError; `is_no_directory` and `is_covered` tell what was in the way.
    """
    fd = open_directory(name, folder, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def open_directory(name: str, folder: int, flags: int = os.O_RDONLY) -> int:
    """Open the directory `name` of the open `folder`, for the caller to close; raises as above."""
    try:
        return open_beneath(name, folder, flags | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if is_covered(error):
            error.strerror = "is a mount point"  # what the kernel says of it helps nobody
        raise


def is_no_directory(error: OSError) -> bool:
    """Say whether a directory could not be opened as it is something else."""
    return error.errno in _NO_DIRECTORY


def is_covered(error: OSError) -> bool:
    """Say whether a directory could not be opened as something is mounted on it."""
    return error.errno == errno.EXDEV


def identity(fd: int) -> Identity:
    """Return which directory it is that is open."""
    return Identity(os.fstat(fd).st_ino, birth_time(fd))
