"""Opening a directory where others can put what they like, without being led astray.

A link leads elsewhere. A mount does, too, and worse: a user who owns a directory can mount a file
system of their own on it, FUSE, which then need not answer, and whoever looks through that mount
point waits for ever. So a directory is opened by its name in an open folder, or not at all.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

from mdvp.core.volume import Identity
from mdvp.disk import btrfs
from mdvp.disk.linux import birth_time, open_beneath

LOOK = os.O_PATH  # enough to say which directory it is
# What is added to the number of a subvolume of btrfs for an inode: no inode is that large.
_SUBVOLUME = 1 << 62


class Found(Enum):
    """What is where a directory should be."""

    OURS = auto()  # it is
    NOTHING = auto()
    COVERED = auto()  # a mount point: what is below it cannot be seen, and is not to be moved
    FOREIGN = auto()  # anything else: never to be handed to a container, never to be removed


@contextmanager
def opened(name: str, folder: int, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open the directory `name` of the open `folder` for the time of the block.

    Raises OSError; `obstacle` tells what was in the way.
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
        if error.errno == errno.EXDEV:
            error.strerror = "is a mount point"  # what the kernel says of it helps nobody
        raise


@contextmanager
def listed(folder: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """List the open `folder`, for the time of the block.

    Each listing has its own place in the folder, which several of one descriptor would share.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(fd) as entries:
            yield entries
    finally:
        os.close(fd)


def obstacle(error: OSError) -> Found:
    """Say what is where a directory could not be opened; raise the error if it does not tell."""
    match error.errno:
        case errno.ENOENT:
            return Found.NOTHING
        case errno.EXDEV:
            return Found.COVERED
        case errno.ENOTDIR | errno.ELOOP:
            return Found.FOREIGN
    raise error


def identity(fd: int) -> Identity:
    """Return which directory it is that is open."""
    status = os.fstat(fd)
    number = btrfs.subvolume(fd)
    return Identity(status.st_ino if number is None else _SUBVOLUME | number, birth_time(fd))


def listed_inode(sought: Identity) -> int:
    """Return by which inode a directory is listed in the one that it is in: getdents(2)."""
    return sought.inode & ~_SUBVOLUME  # of a subvolume, its number
