"""The disk's edge: looks at files by name and reads them, without trusting what is there.

Failure model. A file may vanish, grow or become something else between two looks, and a name may
lead to a link that points out of the directory or to a FIFO that blocks its reader. So names are
resolved against an open descriptor of the directory, no link is followed, and only what is a
regular file, both before and after it was opened, is read.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from sync.changes import Signature
from sync.errors import DirectoryGoneError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
# O_NONBLOCK: should a FIFO take the file's place after the look at it, opening it must not wait.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class File:
    """A regular file's content, and its signature from before it was read."""

    signature: Signature
    content: bytes


@dataclass(frozen=True, slots=True)
class Unfit:
    """What is there cannot be a value; `why` completes a sentence that begins with its name."""

    why: str


Found: TypeAlias = File | Unfit | None  # None: nothing is there


class Directory:
    """An open directory, in which names are looked up."""

    def __init__(self, path: Path) -> None:
        """Open the directory at `path`; raise DirectoryGoneError if there is none."""
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DirectoryGoneError(
                f"cannot open the directory {path}: {error.strerror}; mount a volume there, "
                "or name another directory in SYNC_ROOT"
            ) from error

    def check(self) -> None:
        """Raise DirectoryGoneError when the directory was deleted.

        The kernel says so only when nobody has it open any more, and here it is open.
        """
        if os.fstat(self._fd).st_nlink == 0:
            raise DirectoryGoneError("the watched directory was deleted, moved or unmounted")

    def names(self) -> Iterator[bytes]:
        """Yield the name of all that is in the directory."""
        with os.scandir(self._fd) as entries:
            for entry in entries:
                yield os.fsencode(entry.name)

    def signature(self, name: bytes) -> Signature | None:
        """Return the signature of the regular file `name`, None when there is none."""
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return None
        return _signature(status) if stat.S_ISREG(status.st_mode) else None

    def read(self, name: bytes, size_max: int) -> Found:
        """Read what is there under `name`, if it is a regular file of at most `size_max` bytes."""
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                return self._wrong_kind(status)
            fd = os.open(name, _OPEN_FLAGS, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            return _unreadable(error)
        try:
            return self._read_open(fd, size_max)
        except OSError as error:
            return _unreadable(error)
        finally:
            os.close(fd)

    def _read_open(self, fd: int, size_max: int) -> Found:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return self._wrong_kind(status)
        if status.st_size > size_max:
            return Unfit(
                f"is larger than the {size_max} bytes that Redis takes as a value: not mirrored; "
                "raise proto-max-bulk-len in Redis' configuration"
            )
        return File(_signature(status), _read(fd, status.st_size))

    def _wrong_kind(self, status: os.stat_result) -> Unfit:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        return Unfit(f"is {kind}: not mirrored, only files directly in {self.path} become keys")

    def close(self) -> None:
        """Close the directory."""
        os.close(self._fd)


def _read(fd: int, size: int) -> bytes:
    """Read `size` bytes, or less if the file ends before.

    Not to wherever the end is by now: that of a file that grows all the time is never reached. What
    is written after the look at its size has an event of its own.
    """
    pieces = []
    while size > 0 and (piece := os.read(fd, size)):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_ino, status.st_size, status.st_mtime_ns)


def _unreadable(error: OSError) -> Unfit:
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return Unfit("is no longer a regular file: not mirrored")
    return Unfit(
        f"cannot be read ({error.strerror}): not mirrored; when that is mended, write it again"
    )
