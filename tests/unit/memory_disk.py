"""A directory in memory: what is done to it, and what inotify tells of that.

Inodes are used again at once, times are coarse, and contents have the same few sizes, so that
signatures collide as they do on a real disk.
"""

import stat
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from unit.memory_redis import HALF
from unit.memory_turns import Clock

from sync.core.changes import Change, Changed, Created, Renamed, Signature, Unfinished

PATIENCE = 0.5  # seconds that a file stays open before a reader may see what is in it


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
    elsewhere: int = 0  # how many of its names are in other directories
    opened: float | None = None  # when a writer opened it, if one has it open
    broken: int = 0  # the error that looking at it ends with, if any
    # What a reader of keys may be shown: what was in it at a close, while no writer had it open, or
    # when one had for longer than anybody waits.
    whole: set[bytes] = field(default_factory=set)

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


OVERFLOW = object()


@dataclass
class Open:
    """An open file description of the service's."""

    inode: Inode
    locked: bool = False
    leased: bool = False


class Disk:
    """A directory, what is done to it, and what inotify tells of that.

    Attributes:
        names: the entries of the directory.
        outside: files that were moved out of it, and come back.
        events: what inotify has to tell, OVERFLOW where it has dropped some.
        open: what the service has open.
        has_leases: whether the file system knows leases, fcntl(2).

    """

    def __init__(self, clock: Clock, *, has_leases: bool = True) -> None:
        self.names: dict[bytes, Name] = {}
        self.outside: list[Name] = []
        self.has_leases = has_leases
        self.events: deque[Change | object] = deque()
        self.open: dict[int, Open] = {}
        self._clock = clock
        self._writers: list[Name] = []
        self._elsewhere: list[Inode] = []  # files that have, or had, names there
        self._named: defaultdict[bytes, set[Inode]] = defaultdict(set)  # by all names they ever had
        self.root = Inode(0, stat.S_IFDIR, b"", 0, 0)

    def files(self) -> dict[bytes, Inode]:
        return {name: each.inode for name, each in self.names.items() if each.inode.is_file}

    def names_of(self, inode: Inode) -> list[bytes]:
        return [name for name, each in self.names.items() if each.inode is inode]

    def is_whole(self, name: bytes, value: bytes) -> bool:
        """Say whether this was once what a file of that name had to show to a reader of keys."""
        for inode in self._named[name]:
            self._see(inode)
        return any(value in inode.whole for inode in self._named[name])

    def watched(self) -> None:
        """Take note that a watch begins, which has nothing to tell of what was done before.

        So nobody has heard of those who write just now, and the service asks for a lease only when
        the file has changed in this very tick.
        """
        self.events.clear()
        self._excuse(entry.inode for entry in self._writers)

    # What the service does, beside looking at it.

    def lock_shared(self, opened: Open) -> bool:
        """flock(2), LOCK_SH; say whether that was possible."""
        if opened.inode.writer:
            return False
        opened.inode.locks += not opened.locked
        opened.locked = True
        return True

    def unlock_shared(self, opened: Open) -> None:
        opened.inode.locks -= opened.locked
        opened.locked = False

    def lease(self, opened: Open) -> bool:
        """fcntl(2), F_SETLEASE, F_RDLCK; say whether that was possible."""
        if opened.inode.opened is not None:
            return False
        opened.leased = True
        return True

    @property
    def is_leased(self) -> bool:
        """Say whether there is a file that nobody can open to write just now."""
        return any(each.leased for each in self.open.values())

    def end_lease(self, opened: Open) -> bool:
        """fcntl(2), F_SETLEASE, F_UNLCK; say whether there was one."""
        was_leased, opened.leased = opened.leased, False
        return was_leased

    def break_leases(self) -> None:
        """Have the kernel take leases back, as it does when the service is frozen for long."""
        for opened in self.open.values():
            opened.leased = False

    def close(self, number: int) -> None:
        opened = self.open.pop(number)
        self.unlock_shared(opened)
        self.end_lease(opened)

    # What is done to it.

    def tick(self) -> None:
        """Let the clock go on, of which times are taken."""
        self._clock.tick()

    def write(self, name: bytes, content: bytes) -> None:
        """Create or truncate, write, and close."""
        if entry := self._begin(name, content):
            self._close(entry)

    def write_back(self, name: bytes, content: bytes) -> None:
        """Write, set the time of modification back, and close, as `cp -p` does."""
        if entry := self._begin(name, content):
            entry.inode.mtime = 0
            self._close(entry)

    def rewrite(self, name: bytes, closes: bool) -> None:
        """Write something else of the same size, or what was there before that."""
        if entry := self.names.get(name):
            content = bytes(byte ^ 1 for byte in entry.inode.content)
            (self.write if closes else self.begin)(name, content)

    def begin(self, name: bytes, content: bytes) -> None:
        """Create or truncate, write, and keep open."""
        self._begin(name, content)

    def truncate(self, name: bytes) -> None:
        """Create or truncate, and keep open: what there is to write comes later."""
        self._begin(name, b"")

    def finish(self, name: bytes, content: bytes) -> None:
        """Have the first that has a file open under a name write, and close it."""
        for entry in self._writers:
            if entry.name == name and entry.inode.writer is not entry:
                self._put(entry, content)
                self._close(entry)
                return

    def more(self, content: bytes) -> None:
        """Have every writer replace what it has written, and keep its file open."""
        for entry in self._writers:
            self._put(entry, content)

    def close_all(self) -> None:
        """Have every writer write what it still has to, and close its file."""
        self.unlock_all()
        for entry in tuple(self._writers):
            self._close(entry)

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
        """Give a file one more name.

        If one of the two is left out, that is as a name elsewhere: what is written through it in
        the very tick in which the file was read, before it is another file's, leaves no trace.
        """
        if b"~" in old + new:
            self.tick()
        entry = self.names.get(old)
        if entry and entry.inode.is_file and new not in self.names:
            self._link(new, entry.inode)
            entry.inode.links += 1
            entry.inode.ctime = self._clock.now()
            self._tell(Created(new))

    def link_elsewhere(self, name: bytes) -> None:
        """Give a file one more name, in another directory, of which nobody here is told."""
        entry = self.names.get(name)
        if entry and entry.inode.is_file:
            inode = entry.inode
            inode.links += 1
            inode.elsewhere += 1
            inode.touch(self._clock.now())
            if inode not in self._elsewhere:
                self._elsewhere.append(inode)

    def write_elsewhere(self, name: bytes, content: bytes) -> None:
        """Write through a name in another directory, of which nobody here is told.

        What is so written in the very tick in which the file was read has left no trace at all.
        """
        entry = self.names.get(name)
        if entry and entry.inode.elsewhere:
            self.tick()
            self._fill(entry.inode, content)

    def unlink_elsewhere(self, name: bytes) -> None:
        entry = self.names.get(name)
        if entry and entry.inode.elsewhere:
            entry.inode.touch(self._clock.now())
            entry.inode.links -= 1
            entry.inode.elsewhere -= 1

    def break_(self, name: bytes, error: int) -> None:
        """Have all that looks at a file, or reads it, end with an error, under all its names."""
        if entry := self.names.get(name):
            entry.inode.broken = error

    def mend(self) -> None:
        """Have nothing end with an error any more."""
        for inode in self._inodes():
            inode.broken = 0

    def symlink(self, name: bytes) -> None:
        if name not in self.names:
            self._link(name, self._new(stat.S_IFLNK))
            self._tell(Created(name))

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
        for name, entry in ((one, second), (other, first)):
            self._name(name, entry)
            if not self.has_leases:
                self._excuse([entry.inode])
            entry.inode.touch(self._clock.now())
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
            self.outside.append(entry)
            entry.inode.touch(self._clock.now())
            self._tell(Changed(name))

    def move_in(self, name: bytes) -> None:
        """Have what left last come back under a name that is free."""
        if self.outside and name not in self.names:
            entry = self.outside.pop()
            entry.inode.touch(self._clock.now())
            self._name(name, entry)
            self._tell(Changed(name))

    def overflow(self) -> None:
        """Let the kernel's queue be full: it drops what happens until the queue has been read."""
        if OVERFLOW not in self.events:
            self.events.append(OVERFLOW)
            self._excuse(entry.inode for entry in self._writers)  # as when a watch begins

    def _tell(self, change: Change) -> None:
        if OVERFLOW not in self.events:
            self.events.append(change)
        else:
            self._excuse(entry.inode for entry in self._writers)

    def _begin(self, name: bytes, content: bytes) -> Name | None:
        """Open to write, and write; return what was opened, or None if that cannot be."""
        entry = self.names.get(name)
        if entry is None:
            entry = self._link(name, self._new(stat.S_IFREG))
            self._open(entry)
            entry.inode.content = content
            self._tell(Created(name, is_written=bool(content)))
            return entry
        if not self._may_write(entry):
            return None
        self._open(entry)
        self._put(entry, content)
        return entry

    def _lock(self, name: bytes, content: bytes) -> Name | None:
        entry = self.names.get(name)
        if entry is None or entry.inode.locks or entry.inode.writer:
            return None
        begun = self._begin(name, content)
        if begun:
            begun.inode.writer = begun
        return begun

    def _open(self, entry: Name) -> None:
        """Have one more writer at work."""
        inode = entry.inode
        self._writers.append(entry)
        if inode.opened is None:
            inode.opened = self._clock.seconds

    def _close(self, entry: Name) -> None:
        self._writers.remove(entry)
        entry.inode.whole.add(entry.inode.content)  # whoever else has it open
        if not any(each.inode is entry.inode for each in self._writers):
            entry.inode.opened = None
        if entry not in self.outside:
            self._tell(Changed(entry.name))

    def _put(self, entry: Name, content: bytes, *, even_if_unheard: bool = False) -> None:
        inode = entry.inode
        if even_if_unheard or self._may_write(entry):
            self._fill(inode, content)
            if inode.links > 1 and not self.has_leases:
                self._excuse([inode])  # under the other names nothing is heard
            if entry not in self.outside:
                self._tell(Unfinished(entry.name))

    def _fill(self, inode: Inode, content: bytes) -> None:
        self._see(inode)
        inode.content = content
        inode.mtime = inode.ctime = self._clock.now()
        self._see(inode)

    def _may_write(self, entry: Name) -> bool:
        return entry.inode.is_file and self._is_heard(entry)

    def _see(self, inode: Inode) -> None:
        """Take note of what a reader may be shown now."""
        if inode.opened is None or self._clock.seconds - inode.opened >= PATIENCE:
            inode.whole.add(inode.content)

    def _excuse(self, inodes: Iterable[Inode]) -> None:
        """Let readers be shown what these files hold just now, though their writers are at work.

        For some it takes a lease to know of the writer: see where this is called.
        """
        for inode in inodes:
            inode.whole.add(inode.content)

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

    def _inodes(self) -> list[Inode]:
        """Return all that are in use, for whatever reason; one may come more than once."""
        inodes = [entry.inode for entry in (*self.names.values(), *self._writers)]
        inodes += (each.inode for each in self.open.values())
        return (
            inodes
            + [each.inode for each in self.outside]
            + [each for each in self._elsewhere if each.elsewhere]
        )

    def _new(self, kind: int) -> Inode:
        used = {inode.number for inode in self._inodes()}
        number = min(set(range(1, len(used) + 2)) - used)
        return Inode(number, kind, b"", self._clock.now(), self._clock.now())

    def _link(self, name: bytes, inode: Inode) -> Name:
        entry = Name(name, inode)
        self._name(name, entry)
        return entry

    def _name(self, name: bytes, entry: Name) -> None:
        """Give a name to what has no other by now."""
        self.names[name] = entry
        entry.name = name
        self._named[name].add(entry.inode)

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
        self._name(new, entry)
        if not self.has_leases:
            self._excuse([entry.inode])  # what was heard of was about the old name
        entry.inode.touch(self._clock.now())
        return True
