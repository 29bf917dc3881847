"""Deleting directories that may have any number of files, at any depth, made by anybody.

Failure model. Users may work in a directory while it is deleted: they have it open, and swap, link,
rename and fill. So each directory is made ours, through its descriptor, before anything in it is
looked at; from then on nobody but root can change what is in it. By induction from the trash, which
is ours, nobody can lead us elsewhere: no link is followed, and no mount point entered.

What is deep is moved up, so no path gets long, and few descriptors are open. What cannot be deleted
stays, and all else goes. A user who makes directories below as fast as we delete them from above
can make it last: so a deletion takes turns with the others.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event
from typing import Generic, TypeVar

from mdvp import threads
from mdvp.disk.entry import opened

log = logging.getLogger(__name__)

T = TypeVar("T")

_DEPTH_MAX = 16  # of the directories open at a time; each takes two descriptors


def delete(folder: int, entry: str, go_on: Callable[[], bool] = lambda: True) -> bool:
    """Delete what is called `entry` in the open `folder`, with all that is in it.

    Returns whether it came to an end before `go_on`, which is asked often, said no. What cannot be
    deleted stays; raises the OSError of the first such thing when all the rest is gone.
    """
    try:
        if not _unlinked(entry, folder):
            _delete_directory(entry, folder, go_on)
    except FileNotFoundError:
        pass
    except _TurnOver:
        return False
    return True


def _delete_directory(entry: str, folder: int, go_on: Callable[[], bool]) -> None:
    with opened(entry, folder) as fd:
        tree = _Tree(fd, go_on)
        tree.empty()
    if tree.failed is not None:
        raise tree.failed
    os.rmdir(entry, dir_fd=folder)


def _unlinked(name: str, folder: int) -> bool:
    """Unlink a file of any kind; return False for a directory."""
    # What a listing says an entry is, it may no longer be. The kernel knows.
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    return True


class _TurnOver(Exception):  # noqa: N818  # it is no error
    """It is the turn of another."""


class _Tree:
    """An open directory, and what is to be deleted below it.

    Attributes:
        failed: why the first thing that could not be deleted could not.

    """

    def __init__(self, top: int, go_on: Callable[[], bool]) -> None:
        self.failed: OSError | None = None
        self._top = top
        self._go_on = go_on
        self._moved_up = 0

    def empty(self) -> None:
        """Delete all that is in the directory, and can be."""
        before = -1
        while self._moved_up > before:  # a listing need not show what has come meanwhile
            before = self._moved_up
            self._empty(self._top, 1)

    def _empty(self, fd: int, depth: int) -> None:
        _make_ours(fd)
        with os.scandir(fd) as entries:
            for entry in entries:
                if not self._go_on():
                    raise _TurnOver
                try:
                    self._remove(entry.name, fd, depth)
                except OSError as error:
                    self.failed = self.failed or error

    def _remove(self, name: str, folder: int, depth: int) -> None:
        if _unlinked(name, folder):
            return
        if depth == _DEPTH_MAX:
            os.rename(name, secrets.token_hex(8), src_dir_fd=folder, dst_dir_fd=self._top)
            self._moved_up += 1
            return
        with opened(name, folder) as fd:
            self._empty(fd, depth + 1)
        os.rmdir(name, dir_fd=folder)


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
        self._undeletable: set[T] = set()
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
            while self._sweep():
                pass

    def _sweep(self) -> bool:
        """Give each thing that is doomed a turn; return whether one is not through."""
        more = False
        for it in self._doomed():
            if self._stopped:
                return False
            if it not in self._undeletable and not self._turn(it):
                more = True
        return more

    def _turn(self, it: T) -> bool:
        over = time.monotonic() + self._length
        try:
            return self._delete(it, lambda: not self._stopped and time.monotonic() < over)
        except Exception as error:
            self._undeletable.add(it)
            log.error(
                "cannot delete all of a removed volume: %s; the rest is in .mdvp/trash, and "
                "deleted at the next start if that can be then",
                error,
                exc_info=None if isinstance(error, OSError) else error,
            )
            return True
