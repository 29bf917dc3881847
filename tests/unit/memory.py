"""A directory, a Redis and a clock in memory, for a service that knows no better.

The service's own code runs on them, down to its system calls and to the bytes that it sends. At
each of these, `Turns` lets others go on with what they do: so whatever can happen between two of
the service's steps, at any distance from what it has heard of, can be had here, and had again.
"""

import errno
import fcntl
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from unit.memory_disk import Disk, Inode, Open
from unit.memory_redis import PAGE, Server
from unit.memory_turns import Clock, Turns

from sync.core.changes import Change, Changed, Created, PlaceChange, Renamed, Unfinished
from sync.disk.watch import Watch

__all__ = ["Clock", "Disk", "Server", "Turns"]

SMALL = 1  # bytes; what has more is locked twice
PIECE = 2  # bytes; what has more is a large file
NAP = 0.15  # seconds of waiting after which others have a turn
NO_LOG = logging.Logger("nobody reads it", logging.CRITICAL)  # noqa: LOG001  # of no hierarchy


class Status(SimpleNamespace):
    """What stat(2) returns."""

    def __init__(self, inode: Inode) -> None:
        super().__init__(
            st_dev=1,
            st_ino=inode.number,
            st_mode=inode.kind,
            st_nlink=inode.links,
            st_size=len(inode.content),
            st_mtime_ns=inode.mtime,
            st_ctime_ns=inode.ctime,
        )


@dataclass
class Calls:
    """The system calls that the service makes on its directory; what is none is Python's own."""

    disk: Disk
    turns: Turns
    next: int = 1 << 30  # no descriptor of this process

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any of os
        return getattr(os, name)

    def open(self, name: object, _flags: int, *, dir_fd: int | None = None) -> int:
        self.turns.take()
        inode = self.disk.root if dir_fd is None or name == "." else self._inode(name)
        _fail_if_broken(inode)
        if stat.S_ISLNK(inode.kind):
            raise OSError(errno.ELOOP, "Too many levels of symbolic links")
        self.next += 1
        self.disk.open[self.next] = Open(inode)
        return self.next

    def close(self, fd: int) -> None:
        self.disk.close(fd)

    def stat(self, name: bytes, *, dir_fd: int, follow_symlinks: bool) -> Status:
        assert self.disk.open[dir_fd].inode is self.disk.root
        return self._status(name, follow_symlinks)

    def fstat(self, fd: int) -> Status:
        self.turns.take()
        return Status(self.disk.open[fd].inode)

    def pread(self, fd: int, size: int, at: int) -> bytes:
        """Read the first half, and some time later the second."""
        inode = self.disk.open[fd].inode
        half = size // 2
        self.turns.take()
        _fail_if_broken(inode)
        first = inode.content[at : at + half]
        self.turns.take()
        _fail_if_broken(inode)
        return first + inode.content[at + half : at + size] if len(first) == half else first

    def flock(self, fd: int, operation: int) -> None:
        self.turns.take()
        opened = self.disk.open[fd]
        if operation == fcntl.LOCK_UN:
            self.disk.unlock_shared(opened)
        elif not self.disk.lock_shared(opened):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def fcntl(self, fd: int, command: int, argument: int = 0) -> int:
        """Know leases to read, and no others."""
        assert command == fcntl.F_SETLEASE
        self.turns.take()
        opened = self.disk.open[fd]
        if not self.disk.has_leases:
            raise PermissionError(errno.EACCES, "Permission denied")
        done = self.disk.end_lease if argument == fcntl.F_UNLCK else self.disk.lease
        if not done(opened):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return 0

    @contextmanager
    def scandir(self, fd: int) -> Iterator[Iterator[Any]]:
        assert self.disk.open[fd].inode is self.disk.root
        yield self._scan()

    def _scan(self) -> Iterator[Any]:
        """Read the directory in parts, each as it is then; a file that is renamed may be missed."""
        last = b""
        while True:
            self.turns.take()
            part = sorted(name for name in self.disk.names if name > last)[:PAGE]
            yield from [self._found(name) for name in part]
            if not part:
                return
            last = part[-1]

    def _found(self, name: bytes) -> SimpleNamespace:
        inode = self.disk.names[name].inode
        return SimpleNamespace(
            name=name.decode(),
            inode=lambda: inode.number,
            is_file=lambda *, follow_symlinks: inode.is_file and not follow_symlinks,
            stat=lambda *, follow_symlinks: self._status(name, follow_symlinks),
        )

    def _status(self, name: bytes, follow_symlinks: bool) -> Status:  # as it is called
        self.turns.take()
        assert not follow_symlinks
        inode = self._inode(name)
        _fail_if_broken(inode)
        return Status(inode)

    def _inode(self, name: object) -> Inode:
        assert isinstance(name, bytes)
        if name not in self.disk.names:
            raise FileNotFoundError
        return self.disk.names[name].inode


def _fail_if_broken(inode: Inode) -> None:
    if inode.broken:
        raise OSError(inode.broken, os.strerror(inode.broken))


class Events(Watch):
    """A watch of the disk, from construction on."""

    def __init__(
        self, disk: Disk, turns: Turns, clock: Clock, before: "Events | None" = None
    ) -> None:
        """Begin with no events, in other respects as the watch `before` was."""
        self._disk = disk
        self._turns = turns
        self._clock = clock
        self.lost = False
        # How many events come out of one read, and how long a wait is before others have a turn.
        self.most: int = before.most if before else 1 << 30
        self.nap: float = before.nap if before else NAP
        disk.watched()

    def wait(self, timeout: float) -> bool:
        """Wait until there are events, or somebody wakes the service; jobs go on meanwhile."""
        end = self._clock.seconds + timeout
        while True:
            left = end - self._clock.seconds
            self._turns.take(idle=left > 0 and not self._disk.events)
            if left <= 0 or self._disk.events or self._turns.woken:
                self._turns.woken = False
                return bool(self._disk.events)
            # A piece of a job takes no longer than the least that passes here.
            self._clock.sleep(min(left, self.nap / 100 if self._turns.has_jobs else self.nap))

    def wake(self) -> None:
        """Have a wait that is going on, or else the next, end now."""
        self._turns.woken = True

    def read_places(self) -> list[PlaceChange]:
        return []

    def read(self) -> list[Change]:
        self._turns.take()
        changes: list[Change] = []
        while self._disk.events and len(changes) < self.most:
            change = self._disk.events.popleft()
            if isinstance(change, Created | Changed | Unfinished | Renamed):
                changes.append(change)
            else:
                self.lost = True
        return changes


class Real:
    """A module, but for what is put in its place."""

    def __init__(self, module: ModuleType, **instead: object) -> None:
        self._module = module
        vars(self).update(instead)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any of the module
        return getattr(self._module, name)


@contextmanager
def in_memory(disk: Disk, turns: Turns, clock: Clock) -> Iterator[None]:
    """Have the service make its system calls, and look at the clock, in memory."""
    calls = Calls(disk, turns)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        turns.take()

    seconds = Real(
        time,
        monotonic=lambda: clock.seconds,
        sleep=sleep,
        thread_time=lambda: 0.0,
        clock_gettime_ns=lambda _clock: clock.now(),
    )
    edges = {"os": calls, "fcntl": Real(fcntl, flock=calls.flock, fcntl=calls.fcntl)}
    sizes = {"_PIECE": PIECE, "_SMALL": SMALL, "NAMES_MAX": PAGE, "_RESCANNED": PAGE}
    with ExitStack() as stack:
        for name, module in tuple(sys.modules.items()):
            if name.startswith(("sync.core.", "sync.disk.", "sync.service.")):
                there = {"time": seconds, "log": NO_LOG, **sizes}
                there |= edges if name.startswith("sync.disk.") else {}
                for each in there.keys() & vars(module).keys():
                    stack.enter_context(mock.patch.object(module, each, there[each]))
        yield
