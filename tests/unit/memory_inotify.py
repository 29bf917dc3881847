"""The kernel's inotify in memory: watches of directories, and one queue of events for all of them.

As inotify(7) has it: a directory has one watch, however often it is asked for; what happens in one
that has none is told to nobody; a watch ends with its directory, and that is told.
"""

import errno
import os
import struct
from collections import deque
from collections.abc import Hashable
from typing import NamedTuple

from pyinotify import IN_IGNORED, IN_Q_OVERFLOW
from unit.memory_turns import Clock

_HEADER = struct.Struct("iIII")


class Event(NamedTuple):
    """A struct inotify_event, and from when on it is in the queue (s)."""

    wd: int
    mask: int
    cookie: int
    name: bytes
    since: float

    def packed(self) -> bytes:
        """Return it as read(2) does, its name padded with zeros."""
        padded = self.name + bytes(-len(self.name) % 16) if self.name else b""
        return _HEADER.pack(self.wd, self.mask, self.cookie, len(padded)) + padded

    def is_like(self, other: "Event") -> bool:
        """Say whether the kernel takes both for one, when one comes right after the other."""
        return self[:2] == other[:2] and self.name == other.name and self.mask != IN_IGNORED


class Inotify:
    """An inotify instance, the service's only one.

    Attributes:
        most: how many events come out of one read.
        watches_max: how many watches there can be; None for no limit.

    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.most: int = 1 << 30
        self.watches_max: int | None = None
        self._queue: deque[Event] = deque()
        self._watches: dict[Hashable, int] = {}
        self._last_wd = 0
        self._last_cookie = 0

    @property
    def is_ready(self) -> bool:
        """Say whether there is something to read."""
        return bool(self._queue) and self._queue[0].since <= self._clock.seconds

    @property
    def until_ready(self) -> float:
        """How many seconds it takes until what is under way can be read."""
        return self._queue[0].since - self._clock.seconds if self._queue else float("inf")

    @property
    def is_full(self) -> bool:
        """Say whether it drops what happens."""
        return bool(self._queue) and self._queue[-1].mask == IN_Q_OVERFLOW

    # What the service does.

    def begin(self, root: Hashable) -> int:
        """Do what inotify_init(2) and the first inotify_add_watch(2) do: nothing was there."""
        self._queue.clear()
        self._watches.clear()
        self._last_wd = 1
        self._watches[root] = 1
        return 1

    def add(self, inode: Hashable) -> int:
        """Return the number of a directory's watch, which is there already, or begins."""
        if (wd := self._watches.get(inode)) is not None:
            return wd
        if self.watches_max is not None and len(self._watches) >= self.watches_max:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._last_wd += 1
        self._watches[inode] = self._last_wd
        return self._last_wd

    def remove(self, wd: int) -> None:
        """Do what inotify_rm_watch(2) does; a watch that has ended is no error for the service."""
        for inode, number in self._watches.items():
            if number == wd:
                self.end(inode)
                return

    def read(self) -> bytes:
        """Return what there is to read, at most so many events."""
        if not self.is_ready:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        events: list[bytes] = []
        while self.is_ready and len(events) < self.most:
            events.append(self._queue.popleft().packed())
        return b"".join(events)

    # What happens.

    def is_watched(self, inode: Hashable) -> bool:
        return inode in self._watches

    def cookie(self) -> int:
        """Return the number of a new rename."""
        self._last_cookie += 1
        return self._last_cookie

    def tell(
        self, inode: Hashable, mask: int, name: bytes = b"", cookie: int = 0, delay: float = 0.0
    ) -> None:
        """Queue an event in a directory, or of one if there is no name, if that has a watch."""
        if (wd := self._watches.get(inode)) is not None:
            self._put(wd, mask, name, cookie, delay)

    def end(self, inode: Hashable) -> None:
        """Have a directory's watch end, if it has one."""
        if (wd := self._watches.pop(inode, None)) is not None:
            self._put(wd, IN_IGNORED)

    def overflow(self) -> None:
        """Let the queue be full: what happens is dropped until all of it was read."""
        if not self.is_full:
            self._put(-1, IN_Q_OVERFLOW)

    def _put(
        self, wd: int, mask: int, name: bytes = b"", cookie: int = 0, delay: float = 0.0
    ) -> None:
        since = self._clock.seconds + delay
        if self._queue:
            since = max(since, self._queue[-1].since)
        event = Event(wd, mask, cookie, name, since)
        if not (self.is_full or (self._queue and event.is_like(self._queue[-1]))):
            self._queue.append(event)
