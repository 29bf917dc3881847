"""The kernel's edge: inotify events, read with pyinotify, become changes.

Failure model. The kernel drops events when its queue is full and says so once (IN_Q_OVERFLOW):
`lost` is set then, and only a look at the whole directory helps. The directory itself may be moved,
unmounted or deleted: `DirectoryGoneError`, there is nothing left to watch. A rename is two events
that share a cookie; when only one comes, the file left or entered the directory.

A tree of directories has one queue for all of them, so that renames from one to another are two
halves there too. Where the directories are is the business of `watches`.

Where the service writes files, it is told of that, too. Such a file is written under a temporary
name, of which nothing is told; that it gets its name, or that what had the name before is taken
away, is told unless the name is as the service left it (`own`).
"""

import logging
import os
import select
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pyinotify

from sync.core.changes import Change, Changed, Created, PlaceChange, Renamed, Unfinished
from sync.core.errors import DirectoryGoneError
from sync.core.exclude import TEMPORARY_BEGINS, is_temporary, token_of
from sync.disk.own import Own
from sync.disk.places import Ground
from sync.disk.watches import Watches

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
_COOKIES_MAX = 1000  # remembered; whoever waits makes one again and again
_READS_MAX = 2  # about what the kernel queues; and no more: there may be no end of events


class Watch:
    """A directory under watch, from construction on; what happens to it comes out of `read`.

    Attributes:
        lost: whether the kernel has dropped events; whoever looks at the directory unsets it first.
        has_others: whether the last wait has found something that was waited for `also`.

    """

    _watches: Watches | None = None
    _own: Own | None = None

    def __init__(self, directory: Path, tree: Ground | None = None, own: Own | None = None) -> None:
        """Watch `directory`, and what is below if it is that of a `tree`; do not tell the `own`.

        Raises DirectoryGoneError when that is not possible.
        """
        try:
            manager = pyinotify.WatchManager()
        except OSError as error:
            raise DirectoryGoneError(
                f"cannot watch {directory}: {error}; the host's fs.inotify.max_user_instances, or "
                "the process' limit of open files, may be too low"
            ) from error
        self._own = own
        self._handler = _OwnHandler() if own else _Handler()
        self._handler.own = own
        kind = _OwnNotifier if own else _Notifier
        self._notifier = kind(manager, self._handler, timeout=0)
        os.set_blocking(manager.get_fd(), False)
        os.set_inheritable(manager.get_fd(), False)
        self._poll = select.poll()
        self._poll_own = select.poll()
        for poll in (self._poll, self._poll_own):
            poll.register(manager.get_fd(), select.POLLIN)
        self._events: int = manager.get_fd()
        self.has_others = False
        self._lock = Lock()
        try:
            self._wakes = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            self._notifier.stop()
            raise DirectoryGoneError(f"cannot watch {directory}: {error.strerror}") from error
        for poll in (self._poll, self._poll_own):
            poll.register(self._wakes, select.POLLIN)
        self.lost = False
        try:
            (root,) = manager.add_watch(str(directory), _MASK, quiet=False).values()
        except pyinotify.WatchManagerError as error:
            self.close()
            raise DirectoryGoneError(f"cannot watch {directory}: {error}") from error
        self._handler.root = root
        self._tree = tree
        if tree:
            kernel = _Kernel(manager)
            self._watches = Watches(tree, root, kernel.add, kernel.remove)
            self._handler.watches = self._watches

    def wait(self, timeout: float, *, alone: bool = False) -> bool:
        """Wait at most `timeout` seconds for something to happen; say whether it did.

        It ends sooner when `wake` was called. For what is waited for `also`, not if `alone`.
        """
        poll = self._poll_own if alone else self._poll
        ready = {fd for fd, _ in poll.poll(max(0.0, timeout) * 1000)}
        if self._wakes in ready:
            os.eventfd_read(self._wakes)
            ready.remove(self._wakes)
        self.has_others = not ready <= {self._events}
        return bool(ready)

    def also(self, fd: int) -> None:
        """Have a wait end when something can be read from a descriptor, too."""
        self._poll.register(fd, select.POLLIN)

    def wake(self) -> None:
        """End a wait; may be called from another thread, and when the watch has ended."""
        with self._lock:
            if self._wakes >= 0:
                os.eventfd_write(self._wakes, 1)

    def read(self) -> list[Change]:
        """Return what has happened since the last call, in its order; wait for nothing.

        Raises DirectoryGoneError.
        """
        if self._tree:
            self._tree.forget()
        # All that is queued: in a burst one read's worth comes in no time.
        is_all = False
        for _ in range(_READS_MAX):
            if self._notifier.read_events() < _READ_SIZE // 2:
                is_all = True
                break
        handler = self._handler
        if handler.is_waiting:
            end = time.monotonic() + _HALF_WAIT  # and no later: there may be no end of events
            while handler.is_waiting and (left := end - time.monotonic()) > 0 and self.wait(left):
                self._notifier.read_events()
        if self._own and is_all:  # the kernel queues an event before it returns from its cause
            self._own.clear()
        changes = handler.take()
        self.lost = self.lost or self._handler.lost
        self._handler.lost = False
        return changes

    def read_places(self) -> list[PlaceChange]:
        """Return what has happened to directories below, as far as `read` has come to know it."""
        return self._watches.take() if self._watches else []

    def take_cookies(self) -> list[bytes]:
        """Return the tokens of the cookies that have come; `read` had all that came before them."""
        cookies, self._handler.cookies = list(self._handler.cookies), {}
        return cookies

    def enter(self, place: bytes) -> bool:
        """Have a directory watched before it is looked into; say whether there is one.

        Raises OSError when it cannot be looked into, or must not be.
        """
        return self._watches.enter(place) if self._watches else not place

    def listed(self, place: bytes, below: Iterable[bytes]) -> None:
        """Take up which directories were found in one that was listed."""
        if self._watches:
            self._watches.listed(place, below)

    def pass_through(self, place: bytes) -> bool:
        """Do as `enter` does, faster where the directory is watched as far as is known."""
        return self._watches.pass_through(place) if self._watches else not place

    @property
    def unwatched(self) -> tuple[int, int]:
        """How many directories are not watched, and of how many."""
        if self._watches is None:
            return 0, 1
        return self._watches.tree.unwatched, len(self._watches.tree)

    @property
    def is_short(self) -> bool:
        """Whether that is so for want of watches; else they are in the tree more than once."""
        return self._watches is not None and self._watches.is_short

    def is_watched(self, path: bytes) -> bool:
        """Say whether it is told what happens to the file with a path."""
        return self._watches is None or self._watches.is_watched(path)

    def close(self) -> None:
        """End the watch."""
        self._notifier.stop()
        with self._lock:  # its number will soon be that of another file
            os.close(self._wakes)
            self._wakes = -1


def watches_max() -> tuple[str, int]:
    """Return which setting allows a user the fewest watches, and how many: inotify(7).

    That of a user namespace counts, too: namespaces(7).
    """
    settings = ("fs.inotify.max_user_watches", "user.max_inotify_watches")
    return min(((name, _setting(name)) for name in settings), key=lambda each: each[1])


def _setting(name: str) -> int:
    try:
        return int(Path("/proc/sys", *name.split(".")).read_text())
    except (OSError, ValueError):
        return sys.maxsize


@dataclass(slots=True)
class _Event:
    """What there is to know about an inotify event."""

    mask: int
    cookie: int
    name: bytes
    wd: int


class _Kernel:
    """Adds and removes watches by pyinotify's system calls.

    Its own `Watch` objects would take more memory than all the rest, in a tree of 100,000
    directories, and it knows them by their paths.
    """

    def __init__(self, manager: pyinotify.WatchManager) -> None:
        self._fd = manager.get_fd()
        self._calls = manager._inotify_wrapper  # it has no other way to them

    def add(self, path: str) -> int:
        wd = int(self._calls.inotify_add_watch(self._fd, path, _MASK))
        if wd < 0:
            number = self._calls.get_errno()
            raise OSError(number, os.strerror(number))
        return wd

    def remove(self, wd: int) -> None:
        self._calls.inotify_rm_watch(self._fd, wd)  # it fails when the directory is gone


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
        self._process(bytes(memoryview(self._buffer)[:size]))
        return int(size)

    def _process(self, data: bytes) -> None:
        handler = self._default_proc_fun
        process, root = handler.by_mask, handler.root
        at, end = 0, len(data)
        while at < end:
            wd, mask, cookie, length = _HEADER.unpack_from(data, at)
            at += 16
            name = data[at : at + length].rstrip(b"\0")
            at += length
            if wd != root and name:
                place = handler.watches.place(wd)
                if place is None:
                    continue  # that directory is gone, and will be looked into if it comes back
                name = place + name
            elif name.startswith(TEMPORARY_BEGINS) and handler.cookie(mask, name):
                continue
            process[mask](_Event(mask, cookie, name, wd))


class _OwnNotifier(_Notifier):
    """The same where the service writes files: most events are of its temporary ones."""

    def _process(self, data: bytes) -> None:
        handler = self._default_proc_fun
        process, root = handler.by_mask, handler.root
        at, end, last = 0, len(data), b" "
        while at < end:
            wd, mask, cookie, length = _HEADER.unpack_from(data, at)
            at += 16
            name = data[at : at + length].rstrip(b"\0")
            at += length
            # There are some for each in a row.
            if name == last or (name.startswith(TEMPORARY_BEGINS) and is_temporary(name)):
                last = name
                if cookie:
                    handler.temporary(mask, cookie)
                continue
            if wd != root and name:
                place = handler.watches.place(wd)
                if place is None:
                    continue
                name = place + name
            elif name.startswith(TEMPORARY_BEGINS) and handler.cookie(mask, name):
                continue
            process[mask](_Event(mask, cookie, name, wd))


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
        self.root = -1  # the number of the root's watch
        self.watches: Watches | None = None  # of a tree
        self.own: Own | None = None  # where the service writes files
        self.halves: dict[int, bytes] = {}  # cookie → old name, until the other half comes
        self.lost = False
        self._halves_of_places: set[int] = set()  # cookies of directories
        self._changes: list[Change] = []
        self._unfinished: set[bytes] = set()  # names whose last change was of that kind
        self._created: dict[bytes, int] = {}  # the same, and where those changes are
        self._gone = False
        self.cookies: dict[bytes, None] = {}  # the tokens of those that came, in their order

    def cookie(self, mask: int, name: bytes) -> bool:
        """Take up what happened to a name in the root, if it is a cookie's; say whether it is.

        It comes and goes at once. That it came is told after all that had happened before.
        """
        token = token_of(name)
        if token and mask & pyinotify.IN_CREATE and len(self.cookies) < _COOKIES_MAX:
            self.cookies[token] = None
        return token is not None

    @property
    def is_waiting(self) -> bool:
        """Whether a rename has told one half."""
        return bool(self.halves or self._halves_of_places)

    def take(self) -> list[Change]:
        """Return the changes so far; a rename whose other half has not come is a removal."""
        if self._gone:
            raise DirectoryGoneError("the watched directory was deleted, moved or unmounted")
        if self.watches:
            self._halves_of_places.clear()
            self.watches.settle()
        changes = [*self._changes, *map(Changed, self.halves.values())]
        self._changes, self.halves, self._unfinished, self._created = [], {}, set(), {}
        return changes

    def _changed(self, name: bytes) -> None:
        self._unfinished.discard(name)
        self._created.pop(name, None)
        self._changes.append(Changed(name))

    def _directory(self, place: bytes, *, has_left: bool = False) -> None:
        """Take up that something happened to a directory; in a flat one that is a name."""
        if self.watches is None:
            self._changed(place)
            return
        self._unfinished.clear()  # another directory may be there by now, with other files
        self._created.clear()
        self.watches.happened(place + b"/", has_left=has_left)

    def process_IN_CREATE(self, event: _Event) -> None:
        # A directory has no writer whose close to wait for.
        if event.mask & pyinotify.IN_ISDIR:
            self._directory(event.name)
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

    def process_IN_DELETE(self, event: _Event) -> None:
        if event.mask & pyinotify.IN_ISDIR:
            self._directory(event.name)
        else:
            self._changed(event.name)

    def process_IN_MOVED_FROM(self, event: _Event) -> None:
        if event.mask & pyinotify.IN_ISDIR and self.watches:
            self._halves_of_places.add(event.cookie)
            self._directory(event.name, has_left=True)
        else:
            self.halves[event.cookie] = event.name

    def process_IN_MOVED_TO(self, event: _Event) -> None:
        old = self.halves.pop(event.cookie, None)
        self._halves_of_places.discard(event.cookie)
        if event.mask & pyinotify.IN_ISDIR:  # a directory is no key to rename
            if old is not None:
                self._changed(old)
            self._directory(event.name)
        elif old is None:
            self._changed(event.name)
        else:
            for name in (old, event.name):
                self._unfinished.discard(name)
                self._created.pop(name, None)
            self._changes.append(Renamed(old, event.name))

    def process_IN_Q_OVERFLOW(self, _event: _Event) -> None:
        self.lost = True
        if self.watches:
            self.watches.distrust()

    def _directory_gone(self, event: _Event) -> None:
        if event.wd == self.root:
            self._gone = True
        elif self.watches and event.mask & pyinotify.IN_IGNORED:
            self.watches.ignored(event.wd)

    process_IN_DELETE_SELF = _directory_gone
    process_IN_MOVE_SELF = _directory_gone
    process_IN_UNMOUNT = _directory_gone
    process_IN_IGNORED = _directory_gone


class _OwnHandler(_Handler):
    """The same where the service writes files: what it has done itself is not told."""

    own: Own

    def my_init(self) -> None:
        super().my_init()
        self._from_temporary = 0  # the cookie of the last rename of a temporary file

    def temporary(self, mask: int, cookie: int) -> None:
        """Take up a half of a rename from or to a temporary name. The other is not waited for."""
        if mask & pyinotify.IN_MOVED_FROM:
            self._from_temporary = cookie
            return
        self._halves_of_places.discard(cookie)
        old = self.halves.pop(cookie, None)
        if old is not None:
            self._changed_unless(self.own.has_left(old), old)

    def process_IN_MOVED_TO(self, event: _Event) -> None:
        old = self.halves.get(event.cookie)
        if event.mask & pyinotify.IN_ISDIR:
            super().process_IN_MOVED_TO(event)
        elif event.cookie == self._from_temporary:
            self._changed_unless(self.own.has_left(event.name), event.name)
        elif old is not None and self.own.has_moved(old, event.name):
            del self.halves[event.cookie]
            for name in (old, event.name):
                self._changed_unless(True, name)
        else:
            super().process_IN_MOVED_TO(event)

    def _changed_unless(self, is_own: bool, name: bytes) -> None:
        """Have it told that something happened to a name, or not; another file is there now."""
        if is_own:
            self._unfinished.discard(name)
            self._created.pop(name, None)
        else:
            self._changed(name)
