"""The disk's edge: looks at files by name and reads them, without trusting what is there.

Failure model. A file may vanish, grow or become something else between two looks, and a name may
lead to a link that points out of the directory or to a FIFO that blocks its reader. So names are
resolved against an open descriptor of the directory, no link is followed, and only what is a
regular file, both before and after it was opened, is read. A file that changes while it is read is
read again; one that never stops changing is taken as it was read, and looked at again later.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from sync.core.changes import Signature
from sync.core.errors import DirectoryGoneError
from sync.core.exclude import Excluded

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
# O_NONBLOCK: should a FIFO take the file's place after the look at it, opening it must not wait.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB
_TRIES = 3  # reads of a file that changes meanwhile
_PIECE = 1 << 20  # bytes; larger files are read in pieces of this size
_CLOCK_REALTIME_COARSE = 5  # <linux/time.h>; the time module has no name for it


class File(NamedTuple):
    """A regular file's content, and its signature from before it was read.

    `links` is how many names it has, here or elsewhere. It is not `steady` when it was changing,
    and it is `racy` when a write after the read might not show in its signature: the kernel's clock
    was still at the file's last change.
    """

    signature: Signature
    content: bytes
    links: int
    steady: bool
    racy: bool


class LargeFile:
    """A regular file that is read in pieces. Whoever gets it closes it."""

    def __init__(self, fd: int) -> None:
        """Read what is open as `fd`."""
        self._fd = fd
        self._held = False
        self._began = now()
        self._status = os.fstat(fd)
        # A writer must not be kept out for as long as this may take.
        _unlock(fd)

    @property
    def links(self) -> int:
        """How many names it has, here or elsewhere."""
        return self._status.st_nlink

    @property
    def signature(self) -> Signature:
        """The signature from before it was read."""
        return Signature.of(self._status)

    @property
    def racy(self) -> bool:
        """Say whether a write after the read might not show in the signature."""
        return can_be_now(self._status.st_ctime_ns, self._began)

    def is_to_be_brought(self, size_max: int) -> bool:
        """Say whether it still takes pieces, and together they are not more than `size_max`."""
        return _PIECE < self._status.st_size <= size_max

    def ends_with(self, end: bytes) -> bool:
        """Say whether these are its last bytes."""
        return os.pread(self._fd, len(end), self._status.st_size - len(end)) == end

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield the content, each piece with where it begins; less when the file became shorter."""
        at, size = 0, self._status.st_size
        while at < size and (piece := os.pread(self._fd, min(_PIECE, size - at), at)):
            yield at, piece
            at += len(piece)

    def is_locked(self) -> bool:
        """Say whether a writer wants nobody to read it now: flock(2), LOCK_EX."""
        if not _lock(self._fd):
            return True
        if not self._held:
            _unlock(self._fd)
        return False

    def is_unchanged(self) -> bool:
        """Say whether the file is still what it was before it was read."""
        return _is_unchanged(self._status, os.fstat(self._fd))

    def again(self, *, hold: bool) -> None:
        """Take what the file is now for what is to be read; `hold` its lock meanwhile, if free."""
        self._held = hold and _lock(self._fd)
        self._began = now()
        self._status = os.fstat(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Locked:
    """A regular file that cannot be read just now: its writer has locked it, flock(2) LOCK_EX."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """What is there cannot be a value; `why` completes a sentence that begins with its name."""

    why: str


Found: TypeAlias = File | LargeFile | Locked | Unfit | None  # None: nothing is there


class Directory:
    """A directory, in which names are looked up. Names that are excluded are not there.

    It is open from its construction on; at `rest` it is not, so that it can be unmounted.
    """

    def __init__(self, path: Path, excluded: Excluded | None = None) -> None:
        """Open the directory at `path`; raise DirectoryGoneError if there is none."""
        self.path = path
        self._excluded = (excluded or Excluded()).match
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        self.wake()

    @property
    def handle(self) -> Path:
        """Where it is while it is open, whatever is at `path` by now."""
        return Path(f"/proc/self/fd/{self._fd}")

    def rest(self) -> None:
        """Close it for a while, in which nothing can be looked up."""
        os.close(self._fd)
        self._fd = -1

    def wake(self) -> None:
        """Open it again; raise DirectoryGoneError when another directory, or none, is there now.

        The kernel does not say so when something is mounted over it. When it is open that is not
        looked for.
        """
        if self._fd >= 0:
            return
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DirectoryGoneError(
                f"cannot open the directory {self.path}: {error.strerror}; mount a volume there, "
                "or name another directory in SYNC_ROOT"
            ) from error
        status = os.fstat(self._fd)
        identity = (status.st_dev, status.st_ino)
        if self._identity and identity != self._identity:
            raise DirectoryGoneError(f"{self.path} is another directory now")
        self._identity = identity

    def names(self) -> Iterator[tuple[bytes, bool]]:
        """Yield all names, and of each whether it is a regular file's."""
        with self._scan() as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if not self._excluded(name):
                    yield name, entry.is_file(follow_symlinks=False)

    def files(self) -> Iterator[tuple[bytes, Signature | None, int]]:
        """Yield all names, each with the signature of its regular file and how many names that has.

        What is no regular file has None and 0.
        """
        with self._scan() as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if self._excluded(name):
                    continue
                if not entry.is_file(follow_symlinks=False):
                    yield name, None, 0
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # gone
                yield name, Signature.of(status), status.st_nlink

    def names_of(self, inodes: Container[int]) -> Iterator[tuple[bytes, int]]:
        """Yield each name of these files, and its inode; names that are excluded too."""
        with self._scan() as entries:
            for entry in entries:
                if (inode := entry.inode()) in inodes:
                    yield os.fsencode(entry.name), inode

    def has(self, name: bytes) -> bool:
        """Say whether there is anything of this name, excluded or not."""
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def links(self, name: bytes) -> tuple[int, int]:
        """Return the inode of the regular file `name` and how many names it has, or zeros.

        Here a name that is excluded is there too.
        """
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return 0, 0
        return (status.st_ino, status.st_nlink) if stat.S_ISREG(status.st_mode) else (0, 0)

    @contextmanager
    def _scan(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        try:
            # Another descriptor: how far a scan has come is kept with it, and there may be two.
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
            try:
                with os.scandir(fd) as entries:
                    yield entries
            finally:
                os.close(fd)
        except OSError as error:  # it was removed, or its file system has failed
            raise DirectoryGoneError(f"cannot list {self.path}: {error.strerror}") from error

    def signature(self, name: bytes) -> Signature | None:
        """Return the signature of the regular file `name`, None when there is none."""
        if self._excluded(name):
            return None
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return None
        return Signature.of(status) if stat.S_ISREG(status.st_mode) else None

    def read(self, name: bytes, size_max: int, *, seen: bool = False) -> Found:
        """Read what is there under `name`, if it is a regular file of at most `size_max` bytes.

        A file that was `seen` to be a regular one just now is not looked at before it is opened:
        to open a FIFO or a device can have effects on others.
        """
        try:
            if not seen:
                if self._excluded(name):
                    return None
                status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    return self._wrong_kind(status)
            fd = os.open(name, _OPEN_FLAGS, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return Locked()  # by a lease, fcntl(2)
        except OSError as error:
            return _unreadable(error)
        found: Found = None
        try:
            found = self._read_open(fd, size_max)
        except OSError as error:
            found = _unreadable(error)
        finally:
            if not isinstance(found, LargeFile):
                os.close(fd)
        return found

    def _read_open(self, fd: int, size_max: int) -> Found:
        if not _lock(fd):
            return Locked()
        for _ in range(_TRIES):
            began = now()
            status = os.fstat(fd)
            size = status.st_size
            if not stat.S_ISREG(status.st_mode):
                return self._wrong_kind(status)
            if size > size_max:
                return Unfit(
                    f"is larger than the {size_max} bytes that Redis takes as a value: not "
                    "mirrored; raise proto-max-bulk-len in Redis' configuration"
                )
            if size > _PIECE:
                return LargeFile(fd)
            content = os.pread(fd, size, 0)
            steady = len(content) == size and _is_unchanged(status, os.fstat(fd))
            if steady:
                break
        signature = Signature.of(status)
        racy = can_be_now(signature.ctime, began)
        return File(signature, content, status.st_nlink, steady, racy)

    def _wrong_kind(self, status: os.stat_result) -> Unfit:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        return Unfit(f"is {kind}: not mirrored, only files directly in {self.path} become keys")

    def close(self) -> None:
        """Close the directory."""
        if self._fd >= 0:
            self.rest()


def _lock(fd: int) -> bool:
    """Keep writers out that ask for a lock; say no when one is in already."""
    try:
        fcntl.flock(fd, _SHARED)
    except BlockingIOError:
        return False
    except OSError:
        return True  # there are no locks on this file system
    return True


def _unlock(fd: int) -> None:
    with suppress(OSError):  # there are no locks on this file system
        fcntl.flock(fd, fcntl.LOCK_UN)


def now() -> int:
    """Return the time by the clock of which the kernel takes a file's times, in ns.

    It goes on in steps of some milliseconds.
    """
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def can_be_now(time_of_file: int, clock: int) -> bool:
    """Say whether a change to a file when `now` was `clock` could have given it this time.

    Some file systems keep whole seconds, or two of them.
    """
    if time_of_file % 1_000_000_000:
        return time_of_file >= clock
    return time_of_file >= clock - 2_000_000_000


def _is_unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_ctime_ns == after.st_ctime_ns
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_size == after.st_size
    )


def _unreadable(error: OSError) -> Unfit | Locked:
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE):
        return Locked()  # for a while
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return Unfit("is no longer a regular file: not mirrored")
    return Unfit(
        f"cannot be read ({error.strerror}): not mirrored; mend that, and the next rescan finds it"
    )
