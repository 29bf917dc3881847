"""A directory, a Redis and a clock in memory, for a service that knows no better.

The service's own code runs on them, down to its system calls and to the bytes that it sends. At
each of these, `Turns` lets others go on with what they do: so whatever can happen between two of
the service's steps, at any distance from what it has heard of, can be had here, and had again.

Inodes are used again at once, times are coarse, and contents have the same few sizes, so that
signatures collide as they do on a real disk.
"""

import errno
import fcntl
import logging
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import hiredis
import redis

from sync.core.changes import Change, Changed, Renamed, Signature, Unfinished
from sync.core.manifest import Entries
from sync.disk import files
from sync.disk.watch import Watch
from sync.redis.target import MANIFEST, Target
from sync.service import mirror, reconcile, session

PIECE = 2  # bytes; what has more is a large file
VALUE_MAX = 5  # bytes; what has more is too large for Redis
PAGE = 2  # names in one transaction, or in one look at the directory or at the manifest
HALF = b"!"  # what a file is full of while its writer has locked it
TICK = 4_000_000  # ns
NAP = 0.15  # seconds of waiting after which others have a turn
NO_LOG = logging.Logger("nobody reads it", logging.CRITICAL)  # noqa: LOG001  # of no hierarchy


class Clock:
    """Time passes for those who wait."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.ticks = 1_000_000

    def now(self) -> int:
        return self.ticks * TICK + 1  # not a whole second, as file systems have that know no less

    def tick(self) -> None:
        self.ticks += 1

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.tick()


@dataclass(eq=False)
class Inode:
    number: int
    kind: int
    content: bytes
    mtime: int
    ctime: int
    links: int = 1
    locks: int = 0  # how many readers have locked it
    writer: "Name | None" = None  # who has locked it to write
    then: bytes | None = None  # what that one has yet to write
    # Whether one of several names came or went, which changes ctime, and is heard of that name only
    is_touched: bool = False

    @property
    def signature(self) -> Signature:
        return Signature(self.number, len(self.content), self.mtime, self.ctime)

    def touch(self, now: int) -> None:
        """Take note that a name came or went."""
        self.ctime = now
        self.is_touched = self.is_touched or self.links > 1

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.kind)


@dataclass(eq=False)
class Name:
    """A directory entry. A writer keeps it, and its events bear the name that it has by then."""

    name: bytes
    inode: Inode


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


OVERFLOW = object()


@dataclass
class Open:
    """An open file description of the service's."""

    inode: Inode
    locked: bool = False


class Disk:
    """A directory, what is done to it, and what inotify tells of that."""

    def __init__(self, clock: Clock) -> None:
        self.names: dict[bytes, Name] = {}
        self.outside: list[Inode] = []
        self.events: deque[Change | object] = deque()
        self.open: dict[int, Open] = {}
        self._clock = clock
        self._writers: list[Name] = []
        self.root = Inode(0, stat.S_IFDIR, b"", 0, 0)

    def files(self) -> dict[bytes, Inode]:
        return {name: each.inode for name, each in self.names.items() if each.inode.is_file}

    def names_of(self, inode: Inode) -> list[bytes]:
        return [name for name, each in self.names.items() if each.inode is inode]

    # What is done to it.

    def tick(self) -> None:
        """Let the clock go on, of which times are taken."""
        self._clock.tick()

    def write(self, name: bytes, content: bytes) -> None:
        """Create or truncate, write, and close."""
        if entry := self._begin(name, content):
            self._tell(Changed(entry.name))

    def write_back(self, name: bytes, content: bytes) -> None:
        """Write, set the time of modification back, and close, as `cp -p` does."""
        if entry := self._begin(name, content):
            entry.inode.mtime = 0
            self._tell(Changed(entry.name))

    def rewrite(self, name: bytes, closes: bool) -> None:
        """Write something else of the same size, or what was there before that."""
        if entry := self.names.get(name):
            content = bytes(byte ^ 1 for byte in entry.inode.content)
            (self.write if closes else self.begin)(name, content)

    def begin(self, name: bytes, content: bytes) -> None:
        """Create or truncate, write, and keep open."""
        if entry := self._begin(name, content):
            self._writers.append(entry)

    def more(self, content: bytes) -> None:
        """Have every writer replace what it has written, and keep its file open."""
        for entry in self._writers:
            self._put(entry, content)

    def close_all(self) -> None:
        """Have every writer write what it still has to, and close its file."""
        self.unlock_all()
        for entry in self._writers:
            self._tell(Changed(entry.name))
        self._writers.clear()

    def lock(self, name: bytes, content: bytes) -> None:
        """Lock, and write half of it, if nobody has locked it."""
        if entry := self._lock(name, HALF * len(content)):
            entry.inode.then = content

    def lock_and_write(self, name: bytes, content: bytes) -> None:
        """Lock, and write all of it, if nobody has locked it."""
        self._lock(name, content)

    def unlock_all(self) -> None:
        """Have every writer that has locked a file write the rest, and keep the file open."""
        for entry in self._writers:
            inode = entry.inode
            if inode.writer is entry:
                if inode.then is not None:
                    self._put(entry, inode.then, even_if_unheard=True)
                inode.writer = inode.then = None

    def link(self, old: bytes, new: bytes) -> None:
        entry = self.names.get(old)
        if entry and entry.inode.is_file and new not in self.names:
            self._link(new, entry.inode)
            entry.inode.links += 1
            entry.inode.ctime = self._clock.now()
            self._tell(Unfinished(new))

    def symlink(self, name: bytes) -> None:
        if name not in self.names:
            self._link(name, self._new(stat.S_IFLNK, b""))
            self._tell(Unfinished(name))

    def remove(self, name: bytes) -> None:
        if name in self.names and self._may_go(name):
            self._unlink(name)
            self._tell(Changed(name))

    def rename(self, old: bytes, new: bytes) -> None:
        if self._move(old, new):
            self._tell(Renamed(old, new))

    def rename_in_halves(self, old: bytes, new: bytes) -> None:
        """Rename, but the second event comes too late to be seen as the other half of the first."""
        if self._move(old, new):
            self._tell(Changed(old))
            self._tell(Changed(new))

    def exchange(self, one: bytes, other: bytes) -> None:
        """renameat2(RENAME_EXCHANGE), which the kernel reports as two renames."""
        first, second = self.names.get(one), self.names.get(other)
        if not first or not second or first.inode is second.inode:
            return
        self.names[one], self.names[other] = second, first
        for name in (one, other):
            self.names[name].name = name
            self.names[name].inode.touch(self._clock.now())
        self._tell(Renamed(one, other))
        self._tell(Renamed(other, one))

    def swap(self, one: bytes, other: bytes, third: bytes) -> None:
        if one != other and {one, other} <= self.names.keys() and third not in self.names:
            for old, new in ((one, third), (other, one), (third, other)):
                self.rename(old, new)

    def replace(self, name: bytes, content: bytes) -> None:
        """Write another file and rename it over this one, as editors do."""
        if b"tmp" not in self.names:
            self.write(b"tmp", content)
            self.rename(b"tmp", name)

    def move_out(self, name: bytes) -> None:
        if name in self.names and self._may_go(name):
            entry = self.names.pop(name)
            self.outside.append(entry.inode)
            entry.inode.touch(self._clock.now())
            self._tell(Changed(name))

    def move_in(self, name: bytes) -> None:
        """Have what left last come back under a name that is free."""
        if self.outside and name not in self.names:
            inode = self.outside.pop()
            inode.touch(self._clock.now())
            self._link(name, inode)
            self._tell(Changed(name))

    def overflow(self) -> None:
        """Let the kernel's queue be full: it drops what happens until the queue has been read."""
        if OVERFLOW not in self.events:
            self.events.append(OVERFLOW)

    def _tell(self, change: Change) -> None:
        if OVERFLOW not in self.events:
            self.events.append(change)

    def _begin(self, name: bytes, content: bytes) -> Name | None:
        entry = self.names.get(name)
        if entry is None:
            entry = self._link(name, self._new(stat.S_IFREG, content))
            self._tell(Unfinished(name))
            return entry
        return entry if self._put(entry, content) else None

    def _lock(self, name: bytes, content: bytes) -> Name | None:
        entry = self.names.get(name)
        if entry is None or entry.inode.locks or entry.inode.writer:
            return None
        if not self._put(entry, content):
            return None
        entry.inode.writer = entry
        self._writers.append(entry)
        return entry

    def _put(self, entry: Name, content: bytes, *, even_if_unheard: bool = False) -> bool:
        inode = entry.inode
        if not inode.is_file or not (even_if_unheard or self._is_heard(entry)):
            return False
        inode.content = content
        inode.mtime = inode.ctime = self._clock.now()
        self._tell(Unfinished(entry.name))
        return True

    def _is_heard(self, entry: Name) -> bool:
        """Say whether anybody learns of a write through this name.

        A write is reported under the name through which it is done. When that leads to the file no
        more and others do, no reader of inotify learns of it: such writes are left out here.
        """
        names = self.names_of(entry.inode)
        return not names or entry in self.names.values()

    def _may_go(self, name: bytes) -> bool:
        """Say whether nothing will be written through this name that is not heard of then."""
        entry = self.names[name]
        return entry.inode.writer is not entry or self.names_of(entry.inode) == [name]

    def _new(self, kind: int, content: bytes) -> Inode:
        inodes = [entry.inode for entry in (*self.names.values(), *self._writers)]
        inodes += (each.inode for each in self.open.values())
        used = {inode.number for inode in (*inodes, *self.outside)}
        number = min(set(range(1, len(used) + 2)) - used)
        return Inode(number, kind, content, self._clock.now(), self._clock.now())

    def _link(self, name: bytes, inode: Inode) -> Name:
        self.names[name] = entry = Name(name, inode)
        return entry

    def _unlink(self, name: bytes) -> None:
        inode = self.names.pop(name).inode
        inode.touch(self._clock.now())
        inode.links -= 1

    def _move(self, old: bytes, new: bytes) -> bool:
        entry, over = self.names.get(old), self.names.get(new)
        if entry is None or old == new or (over and over.inode is entry.inode):
            return False
        if over:
            if not self._may_go(new):
                return False
            self._unlink(new)
        del self.names[old]
        self.names[new] = entry
        entry.name = new
        entry.inode.touch(self._clock.now())
        return True


class Turns:
    """Who may go on: the service until its next step, or all others.

    Attributes:
        others: is called before each step of the service, with whether it is about to wait.
        steps: how many there were.

    """

    def __init__(self) -> None:
        self.others: Callable[[bool], None] = lambda _idle: None
        self.steps = 0

    def take(self, *, idle: bool = False) -> None:
        self.steps += 1
        assert self.steps < 100_000, "the service does not come to rest"
        self.others(idle)


@dataclass
class Calls:
    """The system calls that `sync.disk.files` makes; what is none is Python's own."""

    disk: Disk
    turns: Turns
    next: int = 1 << 30  # no descriptor of this process

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any of os
        return getattr(os, name)

    def open(self, name: object, _flags: int, *, dir_fd: int | None = None) -> int:
        self.turns.take()
        inode = self.disk.root if dir_fd is None or name == "." else self._inode(name)
        if stat.S_ISLNK(inode.kind):
            raise OSError(errno.ELOOP, "Too many levels of symbolic links")
        self.next += 1
        self.disk.open[self.next] = Open(inode)
        return self.next

    def close(self, fd: int) -> None:
        self._lock(self.disk.open.pop(fd), locked=False)

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
        first = inode.content[at : at + half]
        self.turns.take()
        return first + inode.content[at + half : at + size] if len(first) == half else first

    def flock(self, fd: int, operation: int) -> None:
        self.turns.take()
        opened = self.disk.open[fd]
        if operation == fcntl.LOCK_UN:
            self._lock(opened, locked=False)
        elif opened.inode.writer:
            raise BlockingIOError
        else:
            self._lock(opened, locked=True)

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
        return Status(self._inode(name))

    def _inode(self, name: object) -> Inode:
        assert isinstance(name, bytes)
        if name not in self.disk.names:
            raise FileNotFoundError
        return self.disk.names[name].inode

    @staticmethod
    def _lock(opened: Open, *, locked: bool) -> None:
        opened.inode.locks += locked - opened.locked
        opened.locked = locked


class Events(Watch):
    """A watch of the disk, from construction on."""

    def __init__(self, disk: Disk, turns: Turns, clock: Clock) -> None:
        self._disk = disk
        self._turns = turns
        self._clock = clock
        self.lost = False
        self.most = 1 << 30  # how many events come out of one read
        disk.events.clear()

    def wait(self, timeout: float) -> bool:
        end = self._clock.seconds + timeout
        while True:
            left = end - self._clock.seconds
            self._turns.take(idle=left > 0 and not self._disk.events)
            if left <= 0 or self._disk.events:
                return bool(self._disk.events)
            self._clock.sleep(min(left, NAP))

    def read(self) -> list[Change]:
        self._turns.take()
        changes: list[Change] = []
        while self._disk.events and len(changes) < self.most:
            change = self._disk.events.popleft()
            if isinstance(change, Changed | Unfinished | Renamed):
                changes.append(change)
            else:
                self.lost = True
        return changes


@dataclass
class Server:
    """What a Redis does with the commands that the service sends.

    Attributes:
        given: the keys and values that were transferred since this was emptied last.

    """

    keys: dict[bytes, Any] = field(default_factory=dict)
    given: list[tuple[bytes, bytes]] = field(default_factory=list)

    def manifest(self) -> dict[bytes, bytes]:
        return self.keys.get(MANIFEST) or {}

    def values(self) -> dict[bytes, bytes]:
        """Return all keys but the service's own."""
        return {key: value for key, value in self.keys.items() if not key.startswith(b"/")}

    def do(self, command: bytes, *arguments: bytes) -> object:
        method: Callable[..., object] = getattr(self, f"_{command.decode().lower()}")
        return method(*arguments)

    def _config(self, _get: bytes, name: bytes) -> list[bytes]:
        return [name, b"%d" % VALUE_MAX]

    def _incr(self, key: bytes) -> int:
        self.keys[key] = b"%d" % (int(self.keys.get(key, 0)) + 1)
        return int(self.keys[key])

    def _get(self, key: bytes) -> object:
        return self.keys.get(key)

    def _strlen(self, key: bytes) -> int:
        return len(self.keys.get(key, b""))

    def _exists(self, key: bytes) -> int:
        return int(key in self.keys)

    def _mset(self, *pairs: bytes) -> bytes:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self._give(key, value)
        return b"OK"

    def _del(self, *keys: bytes) -> int:
        return sum(self.keys.pop(key, None) is not None for key in keys)

    def _rename(self, old: bytes, new: bytes) -> bytes:
        if old not in self.keys:
            raise redis.ResponseError("no such key")
        value = self.keys.pop(old)
        if old.startswith(b"/mdvp-sync/incoming"):
            self._give(new, value)
        else:
            self.keys[new] = value
        return b"OK"

    def _give(self, key: bytes, value: bytes) -> None:
        assert HALF not in value, "a locked file was read half-way"
        self.keys[key] = value
        self.given.append((key, value))

    def _setrange(self, key: bytes, at: bytes, piece: bytes) -> int:
        if int(at) + len(piece) > VALUE_MAX:
            raise redis.ResponseError("string exceeds maximum allowed size")
        value = self.keys.get(key, b"").ljust(int(at), b"\0")
        self.keys[key] = value[: int(at)] + piece + value[int(at) + len(piece) :]
        return len(self.keys[key])

    def _pexpire(self, _key: bytes, _life: bytes) -> int:
        return 1

    def _persist(self, _key: bytes) -> int:
        return 1

    def _hlen(self, key: bytes) -> int:
        return len(self.keys.get(key, ()))

    def _hmget(self, key: bytes, *names: bytes) -> list[object]:
        return [self.keys.get(key, {}).get(name) for name in names]

    def _hset(self, key: bytes, *pairs: bytes) -> int:
        entries = self.keys.setdefault(key, {})
        before = len(entries)
        entries.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(entries) - before

    def _hdel(self, key: bytes, *names: bytes) -> int:
        entries = self.keys.get(key, {})
        removed = sum(entries.pop(name, None) is not None for name in names)
        if not entries:
            self.keys.pop(key, None)
        return removed

    def _hscan(self, key: bytes, cursor: bytes, *_count: bytes) -> list[object]:
        """Go on after the name that the cursor stands for."""
        last = int(cursor).to_bytes(8, "big").lstrip(b"\0")
        entries = self.keys.get(key, {})
        page = sorted(name for name in entries if name > last)[:PAGE]
        more = any(name > page[-1] for name in entries) if page else False
        at = int.from_bytes(page[-1], "big") if more else 0
        return [b"%d" % at, [part for name in page for part in (name, entries[name])]]


class Connection:
    """A connection of redis-py's to the server."""

    def __init__(self, server: Server, turns: Turns) -> None:
        self._server = server
        self._turns = turns
        self.lost = False
        self.connect()

    def connect(self) -> None:
        self._requests = hiredis.Reader()
        self._answers: deque[object] = deque()
        self._watched: dict[bytes, object] = {}
        self._queued: list[list[bytes]] | None = None
        self.lost = False

    def disconnect(self) -> None:
        self._answers.clear()

    def send_packed_command(self, packed: list[bytes], *, check_health: bool) -> None:  # noqa: ARG002
        self._turns.take()
        if self.lost:
            raise redis.ConnectionError("lost before it was sent")
        self._requests.feed(b"".join(packed))
        while (request := self._requests.gets()) is not False:
            self._answers.append(self._do(request))
        self._turns.take()

    def read_response(self) -> object:
        if self.lost:
            raise redis.ConnectionError("lost before it was answered")
        answer = self._answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _do(self, request: list[bytes]) -> object:
        match request:
            case [b"WATCH", *keys]:
                self._watched = {key: self._server.do(b"GET", key) for key in keys}
                return b"OK"
            case [b"MULTI"]:
                self._queued = []
                return b"OK"
            case [b"EXEC"]:
                queued, self._queued = self._queued or [], None
                watched, self._watched = self._watched, {}
                if any(self._server.do(b"GET", key) != was for key, was in watched.items()):
                    return None
                return [self._answer(each) for each in queued]
            case _ if self._queued is not None:
                self._queued.append(request)
                return b"QUEUED"
        return self._answer(request)

    def _answer(self, request: list[bytes]) -> object:
        try:
            return self._server.do(*request)
        except redis.ResponseError as error:
            return error


class Store(Target):
    """The service's own side of Redis, connected to the server in memory."""

    def __init__(self, connection: Connection) -> None:
        super().__init__("redis://memory", None, Entries(trimmed=False))
        self._connection = connection


@contextmanager
def in_memory(disk: Disk, turns: Turns, clock: Clock) -> Iterator[None]:
    """Have the service make its system calls, and look at the clock, in memory."""
    calls = Calls(disk, turns)
    seconds = SimpleNamespace(monotonic=lambda: clock.seconds, thread_time=lambda: 0.0)
    with (
        mock.patch.multiple(
            files,
            os=calls,
            fcntl=SimpleNamespace(
                flock=calls.flock,
                LOCK_SH=fcntl.LOCK_SH,
                LOCK_NB=fcntl.LOCK_NB,
                LOCK_UN=fcntl.LOCK_UN,
            ),
            time=SimpleNamespace(clock_gettime_ns=lambda _clock: clock.now()),
            _PIECE=PIECE,
        ),
        mock.patch.object(session, "time", seconds),
        mock.patch.object(mirror, "time", seconds),
        mock.patch.object(session, "log", NO_LOG),
        mock.patch.object(mirror, "log", NO_LOG),
        mock.patch.object(mirror, "NAMES_MAX", PAGE),
        mock.patch.object(reconcile, "NAMES_MAX", PAGE),
    ):
        yield
