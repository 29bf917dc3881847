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
from typing import Any, NoReturn
from unittest import mock

from unit.memory_disk import Disk, Inode, Open
from unit.memory_redis import PAGE, Server
from unit.memory_turns import Clock, Turns

from sync.disk.files import Directory
from sync.disk.watch import Watch, _Handler, _Notifier
from sync.disk.watches import Watches

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

    def open(self, name: object, flags: int, *, dir_fd: int | None = None) -> int:
        self.turns.take()
        if dir_fd is None:
            inode = self.disk.root
        elif name == ".":
            inode = self.disk.open[dir_fd].inode
        else:
            inode = self._inode(dir_fd, name)
        _fail_if_broken(inode)
        if stat.S_ISLNK(inode.kind):
            if flags & os.O_NOFOLLOW:
                _fail(errno.ENOTDIR if flags & os.O_DIRECTORY else errno.ELOOP)
            inode = self.disk.outside
        if flags & os.O_DIRECTORY and not inode.is_directory:
            _fail(errno.ENOTDIR)
        self.next += 1
        self.disk.open[self.next] = Open(inode)
        return self.next

    def close(self, fd: int) -> None:
        self.disk.close(fd)

    def stat(self, name: bytes, *, dir_fd: int, follow_symlinks: bool) -> Status:
        assert not follow_symlinks
        self.turns.take()
        return _status(self._inode(dir_fd, name))

    def fstat(self, fd: int) -> Status:
        self.turns.take()
        return Status(self.disk.open[fd].inode)

    def fstatvfs(self, fd: int) -> SimpleNamespace:
        self.turns.take()
        return SimpleNamespace(f_fsid=self.disk.open[fd].inode.number)

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

    def readv(self, _fd: int, buffers: tuple[bytearray]) -> int:
        """Read what inotify has to tell; nothing else is read so."""
        self.turns.take()
        events = self.disk.inotify.read()
        buffers[0][: len(events)] = events
        return len(events)

    @contextmanager
    def scandir(self, fd: int) -> Iterator[Iterator[Any]]:
        yield self._scan(self.disk.open[fd].inode)

    def _scan(self, directory: Inode) -> Iterator[Any]:
        """Read the directory in parts, each as it is then; a file that is renamed may be missed."""
        last = b""
        while True:
            self.turns.take()
            part = sorted(name for name in directory.entries if name > last)[:PAGE]
            yield from [self._found(directory, name) for name in part]
            if not part:
                return
            last = part[-1]

    def _found(self, directory: Inode, name: bytes) -> SimpleNamespace:
        inode = directory.entries[name].inode
        return SimpleNamespace(
            name=name.decode(),
            inode=lambda: inode.number,
            is_file=lambda *, follow_symlinks: inode.is_file and not follow_symlinks,
            is_dir=lambda *, follow_symlinks: inode.is_directory and not follow_symlinks,
            stat=lambda *, follow_symlinks: self._status_in(directory, name, follow_symlinks),
        )

    def _status_in(self, directory: Inode, name: bytes, follow_symlinks: bool) -> Status:
        assert not follow_symlinks
        self.turns.take()
        return _status(self._inode_in(directory, name))

    def _inode(self, dir_fd: int, name: object) -> Inode:
        assert isinstance(name, bytes)
        return self._inode_in(self.disk.open[dir_fd].inode, name)

    def _inode_in(self, directory: Inode, name: bytes) -> Inode:
        if not directory.is_directory:
            _fail(errno.ENOTDIR)
        _fail_if_broken(directory)
        inode = self.disk.at(directory, name)
        return inode or _fail(errno.ENOENT)


def _status(inode: Inode) -> Status:
    if inode.broken != errno.EACCES:  # it takes no right to know that it is there
        _fail_if_broken(inode)
    return Status(inode)


def _fail_if_broken(inode: Inode) -> None:
    if inode.broken:
        _fail(inode.broken)


def _fail(error: int) -> NoReturn:
    raise OSError(error, os.strerror(error))


class _MemoryNotifier(_Notifier):
    """The service's own reader of events, without the descriptors of pyinotify's."""

    def __init__(self, handler: _Handler) -> None:
        self._fd = -1
        self._default_proc_fun = handler


class Events(Watch):
    """A watch of the disk, from construction on, but for how it waits the service's own."""

    def __init__(
        self, disk: Disk, turns: Turns, clock: Clock, before: "Events | None" = None
    ) -> None:
        """Begin with no events, in other respects as the watch `before` was."""
        self._disk = disk
        self._turns = turns
        self._clock = clock
        self.lost = False
        self.has_others = False  # nothing is waited for also
        self.nap: float = before.nap if before else NAP  # a wait before others have a turn
        self._tree = None
        self._handler = _Handler()
        self._handler.root = disk.watch()
        self._notifier = _MemoryNotifier(self._handler)

    def follow(self, tree: Directory) -> None:
        """Watch what is below, too."""
        self._tree = tree
        self._watches = Watches(tree, self._handler.root, self._add, self._disk.inotify.remove)
        self._handler.watches = self._watches

    def _add(self, path: str) -> int:
        """Watch the directory that is open under a path of /proc."""
        inode = self._disk.open[int(path.removeprefix("/proc/self/fd/"))].inode
        self._turns.take()
        if inode.broken == errno.EACCES:
            _fail(errno.EACCES)
        return self._disk.inotify.add(inode)

    def wait(self, timeout: float, *, alone: bool = False) -> bool:  # noqa: ARG002  # it always is
        """Wait until there are events, or somebody wakes the service; jobs go on meanwhile."""
        inotify = self._disk.inotify
        end = self._clock.seconds + timeout
        while True:
            left = end - self._clock.seconds
            self._turns.take(idle=left > 0 and not inotify.is_ready)
            if left <= 0 or inotify.is_ready or self._turns.woken:
                self._turns.woken = False
                return inotify.is_ready
            # A piece of a job takes no longer than the least that passes here.
            nap = self.nap / 100 if self._turns.has_jobs else self.nap
            self._clock.sleep(min(left, nap, inotify.until_ready))

    def wake(self) -> None:
        """Have a wait that is going on, or else the next, end now."""
        self._turns.woken = True


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
    sizes = {"_PIECE": PIECE, "_SMALL": SMALL}
    sizes |= dict.fromkeys(("NAMES_MAX", "_RESCANNED", "_TOGETHER", "_OPEN_MAX", "_GONE"), PAGE)
    with ExitStack() as stack:
        for name, module in tuple(sys.modules.items()):
            if name.startswith(("sync.core.", "sync.disk.", "sync.service.", "sync.redis.lease")):
                there = {"time": seconds, "log": NO_LOG, **sizes}
                there |= edges if name.startswith("sync.disk.") else {}
                for each in there.keys() & vars(module).keys():
                    stack.enter_context(mock.patch.object(module, each, there[each]))
        yield
