"""The kernel's edge: inotify events, read with pyinotify, become changes.

Failure model. The kernel drops events when its queue is full and says so once (IN_Q_OVERFLOW):
`EventsLostError`, after which only a look at the whole directory helps. The directory itself may be
moved, unmounted or deleted: `DirectoryGoneError`, there is nothing left to watch. A rename is two
events that share a cookie; when only one comes, the file left or entered the directory.
"""

import array
import fcntl
import logging
import os
import select
import struct
import termios
import time
from dataclasses import dataclass
from pathlib import Path

import pyinotify

from sync.changes import Change, Changed, Removed, Renamed, Unfinished
from sync.errors import DirectoryGoneError, EventsLostError

# What it would log, in a format of its own, the service says itself.
pyinotify.log.setLevel(logging.CRITICAL)

_MASK = (
    pyinotify.IN_CREATE
    | pyinotify.IN_MODIFY
    | pyinotify.IN_CLOSE_WRITE
    | pyinotify.IN_DELETE
    | pyinotify.IN_MOVED_FROM
    | pyinotify.IN_MOVED_TO
    | pyinotify.IN_DELETE_SELF
    | pyinotify.IN_MOVE_SELF
)
# The kernel queues the two halves of a rename one right after the other, but a read can end
# between.
_HALF_WAIT = 0.01  # seconds
_HEADER = struct.Struct("iIII")  # struct inotify_event without its name: inotify(7)
_READ_SIZE = 1 << 18


class Watch:
    """A directory under watch, from construction on; what happens to it comes out of `read`."""

    def __init__(self, directory: Path) -> None:
        """Watch `directory`; raise DirectoryGoneError when that is not possible."""
        try:
            manager = pyinotify.WatchManager()
        except OSError as error:
            raise DirectoryGoneError(
                f"cannot watch {directory}: {error.strerror}; fs.inotify.max_user_instances of the "
                "host may be too low"
            ) from error
        self._handler = _Handler()
        self._notifier = _Notifier(manager, self._handler, timeout=0)
        self._poll = select.poll()
        self._fd: int = manager.get_fd()
        self._poll.register(self._fd, select.POLLIN)
        try:
            manager.add_watch(str(directory), _MASK, quiet=False)
        except pyinotify.WatchManagerError as error:
            self.close()
            raise DirectoryGoneError(f"cannot watch {directory}: {error}") from error

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for something to happen; say whether it did."""
        return bool(self._poll.poll(max(0.0, timeout) * 1000))

    def read(self) -> list[Change]:
        """Return what has happened since the last call, in its order; wait for nothing.

        Raises EventsLostError or DirectoryGoneError.
        """
        if self.wait(0):
            self._read_queued()
        end = time.monotonic() + _HALF_WAIT  # and no later: there may be no end of events
        while self._handler.halves and (left := end - time.monotonic()) > 0 and self.wait(left):
            self._read_queued()
        return self._handler.take()

    def _read_queued(self) -> int:
        size: int = self._notifier.read_events()
        self._notifier.process_events()
        return size

    def discard(self) -> None:
        """Forget what has happened until now; events lost are no error here."""
        left = self._notifier.queued()  # and no more: there may be no end of events
        while left > 0:
            left -= self._read_queued()
        self._handler.forget()

    def close(self) -> None:
        """End the watch."""
        self._notifier.stop()


@dataclass(slots=True)
class _RawEvent:
    """An inotify event as pyinotify's notifier wants it."""

    wd: int
    mask: int
    cookie: int
    name: str


class _Notifier(pyinotify.Notifier):  # type: ignore[misc]  # pyinotify has no types
    """pyinotify's notifier, able to read any name.

    Its own `read_events` decodes names as UTF-8, and a name that is not ends the loop with an
    exception; it also formats a debug line for each event.
    """

    def queued(self) -> int:
        """Return how many bytes of events there are to read: inotify(7)."""
        size = array.array("i", [0])
        fcntl.ioctl(self._fd, termios.FIONREAD, size)
        return size[0]

    def read_events(self) -> int:
        """Queue the next events, at most _READ_SIZE bytes of them; return how many bytes it was."""
        data = os.read(self._fd, _READ_SIZE)
        at = 0
        while at < len(data):
            wd, mask, cookie, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            self.append_event(_RawEvent(wd, mask, cookie, name))
        return len(data)


class _Handler(pyinotify.ProcessEvent):  # type: ignore[misc]  # pyinotify has no types
    """Turns events into changes and pairs the halves of renames."""

    def my_init(self) -> None:
        self.halves: dict[int, bytes] = {}  # cookie → old name, until the other half comes
        self._changes: list[Change] = []
        self._lost = False
        self._gone = False

    def take(self) -> list[Change]:
        """Return the changes so far; a rename whose other half has not come is a removal."""
        lost, self._lost = self._lost, False
        changes = [*self._changes, *map(Removed, self.halves.values())]
        self.forget()
        if self._gone:
            raise DirectoryGoneError("the watched directory was deleted, moved or unmounted")
        if lost:
            raise EventsLostError("the kernel's queue of file events overflowed")
        return changes

    def forget(self) -> None:
        self._changes = []
        self.halves = {}
        self._lost = False

    def process_IN_CREATE(self, event: pyinotify.Event) -> None:
        name = os.fsencode(event.name)
        # A directory has no writer whose close to wait for.
        self._changes.append(Changed(name) if event.dir else Unfinished(name))

    def process_IN_MODIFY(self, event: pyinotify.Event) -> None:
        self._changes.append(Unfinished(os.fsencode(event.name)))

    def process_IN_CLOSE_WRITE(self, event: pyinotify.Event) -> None:
        self._changes.append(Changed(os.fsencode(event.name)))

    def process_IN_DELETE(self, event: pyinotify.Event) -> None:
        self._changes.append(Removed(os.fsencode(event.name)))

    def process_IN_MOVED_FROM(self, event: pyinotify.Event) -> None:
        self.halves[event.cookie] = os.fsencode(event.name)

    def process_IN_MOVED_TO(self, event: pyinotify.Event) -> None:
        new = os.fsencode(event.name)
        old = self.halves.pop(event.cookie, None)
        if old is None:
            self._changes.append(Changed(new))
        elif event.dir:
            self._changes += [Removed(old), Changed(new)]  # a directory is no key to rename
        else:
            self._changes.append(Renamed(old, new))

    def process_IN_Q_OVERFLOW(self, _event: pyinotify.Event) -> None:
        self._lost = True

    def _directory_gone(self, _event: pyinotify.Event) -> None:
        self._gone = True

    process_IN_DELETE_SELF = _directory_gone
    process_IN_MOVE_SELF = _directory_gone
    process_IN_UNMOUNT = _directory_gone
    process_IN_IGNORED = _directory_gone
