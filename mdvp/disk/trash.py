"""Deleting directories that may have any number of files, at any depth, made by anybody.

Each directory below is moved up beside the first before it is emptied. So no path gets long, no
recursion deep, few descriptors are open, and what is left by a crash is found at the next start, at
one level. rename(2) refuses a mount point, so what others have mounted below is never entered; and
no link is followed.
"""

import logging
import os
import secrets
from collections import deque
from collections.abc import Callable
from queue import Queue
from threading import Thread
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def delete(folder: int, entry: str) -> None:
    """Delete the directory `entry` of the open `folder` with all that is in it.

    What cannot be deleted stays, in a directory of its own in `folder`; raises the OSError of the
    first such entry when all the rest is gone.
    """
    waiting = deque([entry])
    failed: OSError | None = None
    while waiting:
        directory = waiting.popleft()
        try:
            failed = _empty(folder, directory, waiting) or failed
            os.rmdir(directory, dir_fd=folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _empty(folder: int, directory: str, waiting: deque[str]) -> OSError | None:
    """Unlink what is in `directory`, moving the directories in it to `folder` to be `waiting`."""
    failed = None
    fd = os.open(directory, _DIRECTORY, dir_fd=folder)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        moved = secrets.token_hex(8)
                        os.rename(entry.name, moved, src_dir_fd=fd, dst_dir_fd=folder)
                        waiting.append(moved)
                    else:
                        os.unlink(entry.name, dir_fd=fd)
                except OSError as error:
                    failed = failed or OSError(error.errno, error.strerror, entry.name)
    finally:
        os.close(fd)
    return failed


class Deleter(Generic[T]):
    """A thread that deletes what it is given, one after the other."""

    # The engine waits a minute for a Remove, and some seconds for a plugin to start, and a volume
    # may have millions of files.

    def __init__(self, delete: Callable[[T], None]) -> None:
        """Start the thread; it calls `delete`, which may raise OSError."""
        self._delete = delete
        self._doomed: Queue[T | None] = Queue()
        # A daemon, so that a directory that takes long does not hold up the end.
        self._thread = Thread(target=self._run, name="deleter", daemon=True)
        self._thread.start()

    def put(self, doomed: T) -> None:
        """Have it deleted some time soon."""
        self._doomed.put(doomed)

    def close(self, patience: float) -> None:
        """Wait at most `patience` seconds until all is deleted."""
        self._doomed.put(None)
        self._thread.join(patience)

    def _run(self) -> None:
        while (doomed := self._doomed.get()) is not None:
            try:
                self._delete(doomed)
            except OSError as error:
                log.error(
                    "cannot delete all of a removed volume: %s; the rest is in .mdvp/trash, and "
                    "deleted at the next start if that can be then",
                    error,
                )
