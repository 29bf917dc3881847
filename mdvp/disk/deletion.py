"""Deleting directories that may have any number of files, at any depth, made by anybody.

Failure model. Users may work in a directory while it is deleted: they have it open, and swap, link,
rename and fill. So each directory is made ours, through its descriptor, before anything in it is
looked at; from then on nobody but root can change what is in it. By induction from the trash, which
is ours, nobody can lead us elsewhere: no link is followed, and no mount point entered. The way back
up is `..`, which must be where we came from. What is very deep is moved up first.

What users have moved in, and is not to be deleted, is spared: the directory of another volume. What
cannot be deleted stays, with what it is in. A user who makes directories below as fast as we delete
them from above can make it last: so a deletion takes turns with the others.
"""

import errno
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Generic, TypeVar

from mdvp import threads
from mdvp.core.volume import Identity
from mdvp.disk import btrfs
from mdvp.disk.entry import identity, open_directory, opened
from mdvp.disk.linux import rename_new

log = logging.getLogger(__name__)

T = TypeVar("T")

_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # for now: clients come and go
_BATCH = 100  # of the names of directories that are listed at a time
_FAILED_MAX = 1000  # in one directory: each is passed over again and again
_DEPTH = 1000  # levels: each turn has to go down again, and must come to delete something


def delete(
    folder: int,
    entry: str,
    go_on: Callable[[], bool] = lambda: True,
    spared: Callable[[Identity], bool] = lambda _: False,
) -> bool:
    """Delete what is called `entry` in the open `folder`, with all that is in it.

    Returns whether it came to an end before `go_on`, which is asked often, said no. A directory in
    it that is `spared` is moved to `folder`, named by its inode. What cannot be deleted stays;
    raises the OSError of the first such thing when all the rest is gone.
    """
    try:
        if not _unlinked(entry, folder):
            if _destroyed(entry, folder):
                return True
            with opened(entry, folder) as fd:
                tree = _Tree(fd, folder, go_on, spared)
                tree.empty()
            if tree.failed is not None:
                raise tree.failed
            os.rmdir(entry, dir_fd=folder)
    except FileNotFoundError:
        pass
    except _TurnOver:
        return False
    return True


def _unlinked(name: str, folder: int) -> bool:
    """Unlink a file of any kind; return False for a directory."""
    # What a listing says an entry is, it may no longer be. The kernel knows.
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    return True


def _destroyed(name: str, folder: int) -> bool:
    """Delete a subvolume of btrfs at once, where we may; return False for what is to be emptied."""
    # Only subvolumes can be moved into one: what is on record in it makes this ENOTEMPTY.
    try:
        btrfs.destroy(name, folder)
    except OSError:
        return False
    return True


class _TurnOver(Exception):  # noqa: N818  # it is no error
    """It is the turn of another."""


@dataclass(slots=True)
class _Level:
    """A directory on the way down from the top.

    Attributes:
        name: what it is called in the one above.
        place: its device and inode.
        below: the directories in it that are known and yet to be entered.
        failed: the names in it that cannot be deleted.

    """

    name: str
    place: tuple[int, int]
    below: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)


class _Tree:
    """An open directory, and what is to be deleted below it.

    Attributes:
        failed: why the first thing that could not be deleted could not.

    """

    def __init__(
        self, top: int, folder: int, go_on: Callable[[], bool], spared: Callable[[Identity], bool]
    ) -> None:
        self.failed: OSError | None = None
        self._top = top
        self._folder = folder
        self._go_on = go_on
        self._spared = spared
        self._here = os.dup(top)  # where the work is
        self._levels = [_Level("", _place(top))]

    def empty(self) -> None:
        """Delete all that is in the directory, and can be."""
        _make_ours(self._top)
        try:
            while self._levels:
                if (name := self._next()) is not None:
                    self._try(self._enter, name)
                else:
                    done = self._levels.pop()
                    if self._levels:
                        self._go_up()
                        self._try(self._remove, done.name)
        finally:
            os.close(self._here)

    def _try(self, work: Callable[[str], object], name: str) -> None:
        try:
            work(name)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.failed = self.failed or error
            self._levels[-1].failed.add(name)

    def _next(self) -> str | None:
        """Return a directory to be entered, None for none; all files are gone by then."""
        level = self._levels[-1]
        # A listing need not show all that is there while it is deleted. So the last shows nothing.
        if not level.below and len(level.failed) < _FAILED_MAX:
            with os.scandir(self._here) as entries:
                for entry in entries:
                    self._check_turn()
                    if entry.name not in level.failed:
                        self._try(self._unlink_or_list, entry.name)
                    if len(level.below) == _BATCH:
                        break
        self._check_turn()
        return level.below.pop() if level.below else None

    def _check_turn(self) -> None:
        if not self._go_on():
            raise _TurnOver

    def _unlink_or_list(self, name: str) -> None:
        if not _unlinked(name, self._here):
            self._levels[-1].below.append(name)

    def _enter(self, name: str) -> None:
        fd = open_directory(name, self._here)
        try:
            which = identity(fd)
            if self._spared(which):
                rename_new(name, self._here, str(which.inode), self._folder)
                return
            if len(self._levels) >= _DEPTH and self._is_moved_up(name):
                return
            _make_ours(fd)
            self._here, fd = fd, self._here
            self._levels.append(_Level(name, _place(self._here)))
        finally:
            os.close(fd)

    def _is_moved_up(self, name: str) -> bool:
        try:
            os.rename(name, secrets.token_hex(8), src_dir_fd=self._here, dst_dir_fd=self._top)
        except OSError:
            return False  # from one of btrfs' subvolumes, or XFS' projects, to another
        return True

    def _go_up(self) -> None:
        fd = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._here)
        os.close(self._here)
        self._here = fd
        if _place(fd) != self._levels[-1].place:
            raise OSError(errno.ESTALE, "was moved by root while it was deleted")

    def _remove(self, name: str) -> None:
        os.rmdir(name, dir_fd=self._here)


def _place(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _make_ours(fd: int) -> None:
    # Where that cannot be, what is in it may still be deleted.
    with suppress(OSError):
        os.fchown(fd, os.geteuid(), -1)
    with suppress(OSError):
        os.fchmod(fd, 0o700)


class Deleter(Generic[T]):
    """A thread that deletes what it finds to be doomed, one after the other, in turns."""

    # The engine waits a minute for a Remove, and some seconds for a plugin to start, and a volume
    # may have millions of files.

    def __init__(
        self,
        doomed: Callable[[], Iterable[T]],
        delete: Callable[[T, Callable[[], bool]], bool],
        end: Callable[[], object],
        *,
        turn: float = 10.0,
    ) -> None:
        """Start the thread; it calls `delete` for all that `doomed` finds, `turn` seconds each.

        `delete` returns False when it is not through when what it is given to ask says no. What it
        raises is logged, and the thing is let be. `end` ends the program when all else fails.
        """
        self._doomed = doomed
        self._delete = delete
        self._length = turn
        self._undeletable: set[T] = set()  # as far as they are doomed still
        self._woken = Event()
        self._closing = False
        self._stopped = False
        self._thread = threads.start("deleter", self._run, end)
        self.wake()

    def wake(self) -> None:
        """Have it look for what is doomed."""
        self._woken.set()

    def close(self, patience: float) -> None:
        """Wait at most `patience` seconds until all is deleted; it touches nothing afterwards."""
        self._closing = True
        self.wake()
        self._thread.join(patience)
        self._stopped = True
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            self._woken.wait()
            self._woken.clear()
            closing = self._closing  # what was doomed before is still to be deleted
            try:
                while self._sweep():
                    pass
            except OSError as error:
                if error.errno not in _SCARCE:
                    raise
                log.warning(
                    "cannot look for what is to be deleted: %(error)s; the next removal, or the "
                    "next start, looks again",
                    {"event": "doomed_not_looked_at", "error": error},
                )

    def _sweep(self) -> bool:
        """Give each thing that is doomed a turn; return whether one is not through."""
        more, left = False, set()
        for it in self._doomed():
            if self._stopped:
                return False
            if it in self._undeletable or (ended := self._turn(it)) is None:
                left.add(it)
            elif not ended:
                more = True
        self._undeletable = left
        return more

    def _turn(self, it: T) -> bool | None:
        """Delete for a turn; return whether it came to an end, None if it cannot be deleted."""
        over = time.monotonic() + self._length
        try:
            return self._delete(it, lambda: not self._stopped and time.monotonic() < over)
        except Exception as error:
            log.error(
                "cannot delete all of a removed volume: %(error)s; the rest stays in mdvp's "
                "folder, and is deleted at the next start if that can be then",
                {"event": "not_deleted", "error": error},
                exc_info=None if isinstance(error, OSError) else error,
            )
            return None
