"""The kernel's edge: inotify events, read with pyinotify, become changes.

Failure model. The kernel drops events when its queue is full and says so once (IN_Q_OVERFLOW):
`lost` is set then, and only a look at the whole directory helps. The directory itself may be moved,
unmounted or deleted: `DirectoryGoneError`, there is nothing left to watch. A rename is two events
that share a cookie; when only one comes, the file left or entered the directory.
"""

import logging
import os
import select
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pyinotify

from sync.core.changes import Change, Changed, Created, Renamed, Unfinished
from sync.core.errors import DirectoryGoneError

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
_READS_MAX = 2  # about what the kernel queues; and no more: there may be no end of events


class Watch:
    """A directory under watch, from construction on; what happens to it comes out of `read`.

    Attributes:
        lost: whether the kernel has dropped events; whoever looks at the directory unsets it first.

    """

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
        os.set_blocking(manager.get_fd(), False)
        self._poll = select.poll()
        self._poll.register(manager.get_fd(), select.POLLIN)
        self._lock = Lock()
        self._wakes = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wakes, select.POLLIN)
        self.lost = False
        try:
            manager.add_watch(str(directory), _MASK, quiet=False)
        except pyinotify.WatchManagerError as error:
            self.close()
            raise DirectoryGoneError(f"cannot watch {directory}: {error}") from error

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for something to happen; say whether it did.

        It ends sooner when `wake` was called.
        """
        ready = {fd for fd, _ in self._poll.poll(max(0.0, timeout) * 1000)}
        if self._wakes in ready:
            os.eventfd_read(self._wakes)
            ready.remove(self._wakes)
        return bool(ready)

    def wake(self) -> None:
        """End a wait; may be called from another thread, and when the watch has ended."""
        with self._lock:
            if self._wakes >= 0:
                os.eventfd_write(self._wakes, 1)

    def read(self) -> list[Change]:
        """Return what has happened since the last call, in its order; wait for nothing.

        Raises DirectoryGoneError.
        """
        # All that is queued: in a burst one read's worth comes in no time.
        for _ in range(_READS_MAX):
            if self._notifier.read_events() < _READ_SIZE // 2:
                break
        if self._handler.halves:
            end = time.monotonic() + _HALF_WAIT  # and no later: there may be no end of events
            while self._handler.halves and (left := end - time.monotonic()) > 0 and self.wait(left):
                self._notifier.read_events()
        changes = self._handler.take()
        self.lost = self.lost or self._handler.lost
        self._handler.lost = False
        return changes

    def close(self) -> None:
        """End the watch."""
        self._notifier.stop()
        with self._lock:  # its number will soon be that of another file
            os.close(self._wakes)
            self._wakes = -1


@dataclass(slots=True)
class _Event:
    """What there is to know about an inotify event."""

    mask: int
    cookie: int
    name: bytes


class _Notifier(pyinotify.Notifier):  # type: ignore[misc]  # pyinotify has no types
    """pyinotify's notifier, able to read any name, and fast enough for a burst.

    Its own `read_events` decodes names as UTF-8, and a name that is not ends the loop with an
    exception; and it makes some twenty calls of each event, which in a burst takes longer than all
    the rest, so that the kernel's queue overflows. Here an event goes to its method at once.
    """

    _buffer = bytearray(_READ_SIZE)  # once for all: most reads are small

    def read_events(self) -> int:
        """Read the next events, at most _READ_SIZE bytes of them; have them processed.

        Return how many bytes that was.
        """
        try:
            size = os.readv(self._fd, (self._buffer,))
        except BlockingIOError:
            return 0  # there are none
        data = bytes(memoryview(self._buffer)[:size])
        process = self._default_proc_fun.by_mask
        at, end = 0, len(data)
        while at < end:
            _, mask, cookie, length = _HEADER.unpack_from(data, at)
            at += 16
            process[mask](_Event(mask, cookie, data[at : at + length].rstrip(b"\0")))
            at += length
        return int(size)


class _Methods(dict[int, Callable[[_Event], None]]):
    """Which method of a ProcessEvent is for the events of a mask."""

    def __init__(self, process: pyinotify.ProcessEvent) -> None:
        super().__init__()
        self._process = process

    def __missing__(self, mask: int) -> Callable[[_Event], None]:
        name = pyinotify.EventsCodes.ALL_VALUES.get(mask & ~pyinotify.IN_ISDIR)
        method: Callable[[_Event], None] = getattr(
            self._process, f"process_{name}", self._process.process_default
        )
        self[mask] = method
        return method


class _Handler(pyinotify.ProcessEvent):  # type: ignore[misc]  # pyinotify has no types
    """Turns events into changes and pairs the halves of renames."""

    def my_init(self) -> None:
        self.by_mask = _Methods(self)
        self.halves: dict[int, bytes] = {}  # cookie → old name, until the other half comes
        self.lost = False
        self._changes: list[Change] = []
        self._unfinished: set[bytes] = set()  # names whose last change was of that kind
        self._created: dict[bytes, int] = {}  # the same, and where those changes are
        self._gone = False

    def take(self) -> list[Change]:
        """Return the changes so far; a rename whose other half has not come is a removal."""
        if self._gone:
            raise DirectoryGoneError("the watched directory was deleted, moved or unmounted")
        changes = [*self._changes, *map(Changed, self.halves.values())]
        self._changes, self.halves, self._unfinished, self._created = [], {}, set(), {}
        return changes

    def _changed(self, name: bytes) -> None:
        self._unfinished.discard(name)
        self._created.pop(name, None)
        self._changes.append(Changed(name))

    def process_IN_CREATE(self, event: _Event) -> None:
        # A directory has no writer whose close to wait for.
        if event.mask & pyinotify.IN_ISDIR:
            self._changed(event.name)
        else:
            self._created[event.name] = len(self._changes)
            self._changes.append(Created(event.name))

    def process_IN_MODIFY(self, event: _Event) -> None:
        # Most tell nothing new: one comes for each write.
        if event.name in self._unfinished:
            return
        self._unfinished.add(event.name)
        at = self._created.pop(event.name, None)
        if at is None:
            self._changes.append(Unfinished(event.name))
        else:  # nothing else has happened to it: one change tells both
            self._changes[at] = Created(event.name, is_written=True)

    def process_IN_CLOSE_WRITE(self, event: _Event) -> None:
        self._changed(event.name)

    process_IN_DELETE = process_IN_CLOSE_WRITE

    def process_IN_MOVED_FROM(self, event: _Event) -> None:
        self.halves[event.cookie] = event.name

    def process_IN_MOVED_TO(self, event: _Event) -> None:
        old = self.halves.pop(event.cookie, None)
        if old is None:
            self._changed(event.name)
        elif event.mask & pyinotify.IN_ISDIR:  # a directory is no key to rename
            self._changed(old)
            self._changed(event.name)
        else:
            for name in (old, event.name):
                self._unfinished.discard(name)
                self._created.pop(name, None)
            self._changes.append(Renamed(old, event.name))

    def process_IN_Q_OVERFLOW(self, _event: _Event) -> None:
        self.lost = True

    def _directory_gone(self, _event: _Event) -> None:
        self._gone = True

    process_IN_DELETE_SELF = _directory_gone
    process_IN_MOVE_SELF = _directory_gone
    process_IN_UNMOUNT = _directory_gone
    process_IN_IGNORED = _directory_gone
