"""A directory in memory, with all that is below: what is done to it, and told of that by inotify.

What is done has a path, or two, from the directory on; where the file system would refuse it,
nothing is done. Inodes are used again at once, times are coarse, and contents have the same few
sizes, so that signatures collide as they do on a real disk.
"""

import errno
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pyinotify import (
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from unit.memory_inotify import Inotify
from unit.memory_redis import HALF
from unit.memory_turns import Clock

from sync.core.changes import Signature

PATIENCE = 0.5  # seconds that a file stays open before a reader may see what is in it
LATE = 0.02  # seconds after the first half of a rename, when nobody waits for the second any more


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
    # Of a directory: what is in it, and its own entry, which the root has not.
    entries: "dict[bytes, Name]" = field(default_factory=dict)
    entry: "Name | None" = None
    is_removed: bool = False  # but somebody may have it open

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

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.kind)


@dataclass(eq=False)
class Name:
    """A directory entry. A writer keeps it, and its events bear the name that it has by then."""

    name: bytes
    inode: Inode
    directory: Inode

    @property
    def is_there(self) -> bool:
        """Say whether it is still an entry of its directory."""
        return self.directory.entries.get(self.name) is self


@dataclass
class Open:
    """An open file description of the service's."""

    inode: Inode
    locked: bool = False
    leased: bool = False


class Disk:
    """A directory, with all that is below, what is done to it, and what inotify tells of that.

    Attributes:
        root: the directory.
        outside: another one, to which things are moved out of it, and from which they come back.
        inotify: what tells the service of it.
        open: what the service has open.
        has_leases: whether the file system knows leases, fcntl(2).

    """

    def __init__(self, clock: Clock, *, has_leases: bool = True) -> None:
        self.has_leases = has_leases
        self.inotify = Inotify(clock)
        self.open: dict[int, Open] = {}
        self._clock = clock
        self._writers: list[Name] = []
        self._elsewhere: list[Inode] = []  # files that have, or had, names there
        self._named: defaultdict[bytes, set[Inode]] = defaultdict(set)  # by all paths they ever had
        self._moved_out = 0
        self.root = Inode(0, stat.S_IFDIR, b"", 0, 0)
        self.outside = Inode(-1, stat.S_IFDIR, b"", 0, 0)

    def files(self) -> dict[bytes, Inode]:
        return {path: each.inode for path, each in self._below(self.root) if each.inode.is_file}

    def names(self) -> set[bytes]:
        """Return all paths that any file ever had."""
        return {*self._named}

    def is_written(self, name: bytes) -> bool:
        """Say whether somebody has the file of that name open to write."""
        entry = self._entry(name)
        return entry is not None and any(each.inode is entry.inode for each in self._writers)

    def places(self) -> set[bytes]:
        """Return where there are directories, a slash behind each, without the root."""
        return {path + b"/" for path, each in self._below(self.root) if each.inode.is_directory}

    def is_whole(self, name: bytes, value: bytes) -> bool:
        """Say whether this was once what a file of that name had to show to a reader of keys."""
        for inode in self._named[name]:
            self._see(inode)
        return any(value in inode.whole for inode in self._named[name])

    def watch(self) -> int:
        """Begin a watch, which has nothing to tell of what was done before; return its number.

        So nobody has heard of those who write just now, and the service asks for a lease only when
        the file has changed in this very tick.
        """
        self._excuse(entry.inode for entry in self._writers)
        return self.inotify.begin(self.root)

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
        self._end_if_removed(opened.inode)

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
        if entry := self._entry(name):
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
            if self._path(entry) == name and entry.inode.writer is not entry:
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
        entry, at = self._entry(old), self._free(new)
        if entry and at and entry.inode.is_file:
            self._name(entry.inode, *at)
            entry.inode.links += 1
            entry.inode.ctime = self._clock.now()
            self.inotify.tell(at[0], IN_CREATE, at[1])

    def link_elsewhere(self, name: bytes) -> None:
        """Give a file one more name, in another directory, of which nobody here is told."""
        entry = self._entry(name)
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
        entry = self._entry(name)
        if entry and entry.inode.elsewhere:
            self.tick()
            self._fill(entry.inode, content)

    def unlink_elsewhere(self, name: bytes) -> None:
        entry = self._entry(name)
        if entry and entry.inode.elsewhere:
            entry.inode.touch(self._clock.now())
            entry.inode.links -= 1
            entry.inode.elsewhere -= 1

    def break_(self, name: bytes, error: int) -> None:
        """Have all that looks at a file, or reads it, end with an error, under all its names."""
        if entry := self._entry(name):
            entry.inode.broken = error

    def mend(self) -> None:
        """Have nothing end with an error any more."""
        for inode in self._inodes():
            inode.broken = 0

    def symlink(self, name: bytes) -> None:
        """Make a symbolic link to the directory outside."""
        if at := self._free(name):
            self._name(self._new(stat.S_IFLNK), *at)
            self.inotify.tell(at[0], IN_CREATE, at[1])

    def remove(self, name: bytes) -> None:
        """unlink(2)."""
        entry = self._entry(name)
        if entry and not entry.inode.is_directory and self._may_go(entry):
            self._unlink(entry)
            self.inotify.tell(entry.directory, IN_DELETE, entry.name)

    def mkdir(self, name: bytes) -> None:
        if at := self._free(name):
            self._name(self._new(stat.S_IFDIR), *at)
            self.inotify.tell(at[0], IN_CREATE | IN_ISDIR, at[1])

    def rmdir(self, name: bytes) -> None:
        entry = self._entry(name)
        if entry and entry.inode.is_directory and not entry.inode.entries:
            self._unlink(entry)
            self.inotify.tell(entry.directory, IN_DELETE | IN_ISDIR, entry.name)
            self._end_if_removed(entry.inode)

    def remove_one(self, name: bytes) -> None:
        """Do what comes next of `rm -r`: remove one file, or a directory that is empty."""
        if entry := self._entry(name):
            *_, last = (name, *(path for path, _ in self._below(entry.inode, name + b"/")))
            self.remove(last)
            self.rmdir(last)

    def rename(self, old: bytes, new: bytes) -> None:
        self._move(old, new)

    def rename_in_halves(self, old: bytes, new: bytes) -> None:
        """Rename, but the second event comes too late to be seen as the other half of the first."""
        self._move(old, new, LATE)

    def exchange(self, one: bytes, other: bytes) -> None:
        """renameat2(RENAME_EXCHANGE), which the kernel reports as two renames."""
        first, second = self._entry(one), self._entry(other)
        if not first or not second or first.inode is second.inode:
            return
        if one.startswith(other + b"/") or other.startswith(one + b"/"):
            return
        here, there = (first.directory, first.name), (second.directory, second.name)
        for entry, at in ((first, there), (second, here)):
            self._put_at(entry, *at)
            if not self.has_leases:
                self._excuse([entry.inode])
            entry.inode.touch(self._clock.now())
        self._tell_move(first, here)
        self._tell_move(second, there)

    def swap(self, one: bytes, other: bytes, third: bytes) -> None:
        if one != other and self._entry(one) and self._entry(other) and self._free(third):
            for old, new in ((one, third), (other, one), (third, other)):
                self.rename(old, new)

    def replace(self, name: bytes, content: bytes) -> None:
        """Write another file and rename it over this one, as editors do."""
        if self._free(b"tmp"):
            self.write(b"tmp", content)
            self.rename(b"tmp", name)

    def move_out(self, name: bytes) -> None:
        entry = self._entry(name)
        if entry and self._may_go(entry):
            self._moved_out += 1
            self._move_to(entry, self.outside, b"%d" % self._moved_out)

    def move_in(self, name: bytes) -> None:
        """Have what left last come back under a name that is free."""
        if self.outside.entries and (at := self._free(name)):
            *_, entry = self.outside.entries.values()
            self._move_to(entry, *at)

    def bring(self, name: bytes, contents: Iterable[tuple[bytes, bytes]]) -> None:
        """Move in a directory that was made outside, with files in it, and perhaps directories."""
        if not (at := self._free(name)):
            return
        made = self._new(stat.S_IFDIR)
        entry = self._name(made, self.outside, b"new")
        for path, content in contents:
            directory = made
            *names, last = path.split(b"/")
            for each in names:
                if each not in directory.entries:
                    self._name(self._new(stat.S_IFDIR), directory, each)
                directory = directory.entries[each].inode
            self._fill(self._name(self._new(stat.S_IFREG), directory, last).inode, content)
        self._move_to(entry, *at)

    def deny(self, name: bytes) -> None:
        """Have nobody look into a directory, or read a file."""
        self.break_(name, errno.EACCES)

    def limit_watches(self, number: int | None) -> None:
        """Let there be so many watches at most, beside that of the root."""
        self.inotify.watches_max = None if number is None else number + 1

    def overflow(self) -> None:
        """Let the kernel's queue be full: it drops what happens until the queue has been read."""
        if not self.inotify.is_full:
            self.inotify.overflow()
            self._excuse(entry.inode for entry in self._writers)  # as when a watch begins

    def _tell(self, entry: Name, mask: int) -> None:
        """Have what is done through an entry told in the directory in which it is, or was."""
        self.inotify.tell(entry.directory, mask, entry.name)
        if self.inotify.is_full or not (
            self.has_leases or self.inotify.is_watched(entry.directory)
        ):
            self._excuse(each.inode for each in self._writers)

    def _begin(self, name: bytes, content: bytes) -> Name | None:
        """Open to write, and write; return what was opened, or None if that cannot be."""
        entry = self._entry(name)
        if entry is None:
            if not (at := self._at(name)):
                return None
            entry = self._name(self._new(stat.S_IFREG), *at)
            self._open(entry)
            entry.inode.content = content
            self._tell(entry, IN_CREATE)
            if content:
                self._tell(entry, IN_MODIFY)
            return entry
        if not self._may_write(entry):
            return None
        self._open(entry)
        self._put(entry, content)
        return entry

    def _lock(self, name: bytes, content: bytes) -> Name | None:
        entry = self._entry(name)
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
        self._tell(entry, IN_CLOSE_WRITE)

    def _put(self, entry: Name, content: bytes, *, even_if_unheard: bool = False) -> None:
        inode = entry.inode
        if even_if_unheard or self._may_write(entry):
            self._fill(inode, content)
            if inode.links > 1 and not self.has_leases:
                self._excuse([inode])  # under the other names nothing is heard
            self._tell(entry, IN_MODIFY)

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
        entries = [each for _, each in self._below(self.root) if each.inode is entry.inode]
        return not entries or entry in entries

    def _may_go(self, entry: Name) -> bool:
        """Say whether nothing will be written through this name that is not heard of then.

        If it is a directory's, that is said of all below.
        """
        going = [entry, *(each for _, each in self._below(entry.inode))]
        locked = [each.inode for each in going if each.inode.writer is each]
        stays = {each.inode for _, each in self._below(self.root) if each not in going}
        return stays.isdisjoint(locked)

    def _inodes(self) -> list[Inode]:
        """Return all that are in use, for whatever reason; one may come more than once."""
        inodes = [entry.inode for entry in self._writers]
        inodes += (each.inode for top in (self.root, self.outside) for _, each in self._below(top))
        inodes += (each.inode for each in self.open.values())
        return inodes + [each for each in self._elsewhere if each.elsewhere]

    def _new(self, kind: int) -> Inode:
        used = {inode.number for inode in self._inodes()}
        number = min(set(range(1, len(used) + 2)) - used)
        return Inode(number, kind, b"", self._clock.now(), self._clock.now())

    # Where things are.

    def at(self, directory: Inode, name: bytes) -> Inode | None:
        """Return what has a name in a directory."""
        entry = directory.entries.get(name)
        return entry.inode if entry else None

    def _below(self, directory: Inode, place: bytes = b"") -> Iterator[tuple[bytes, Name]]:
        """Yield all paths below a directory, a directory's before what is in it."""
        for name, entry in directory.entries.items():
            yield place + name, entry
            if entry.inode.is_directory:
                yield from self._below(entry.inode, place + name + b"/")

    def _at(self, path: bytes) -> tuple[Inode, bytes] | None:
        """Return the directory that a path leads to, if there is one, and the last name in it."""
        directory = self.root
        *names, last = path.split(b"/")
        for name in names:
            inode = self.at(directory, name)
            if not inode or not inode.is_directory:
                return None
            directory = inode
        return directory, last

    def _entry(self, path: bytes) -> Name | None:
        at = self._at(path)
        return at[0].entries.get(at[1]) if at else None

    def _free(self, path: bytes) -> tuple[Inode, bytes] | None:
        """Return where something can get this path, None if it is not free."""
        at = self._at(path)
        return at if at and at[1] not in at[0].entries else None

    def _path(self, entry: Name) -> bytes | None:
        """Return the path of what is, or was, somewhere below the root; None if that is outside."""
        path = entry.name
        while (above := entry.directory.entry) is not None:
            entry = above
            path = entry.name + b"/" + path
        return path if entry.directory is self.root else None

    # How they come there, and go.

    def _name(self, inode: Inode, directory: Inode, name: bytes) -> Name:
        """Give a name to what has none in that directory."""
        entry = Name(name, inode, directory)
        self._put_at(entry, directory, name)
        return entry

    def _put_at(self, entry: Name, directory: Inode, name: bytes) -> None:
        """Have an entry be in a directory under a name from now on."""
        if entry.is_there:
            del entry.directory.entries[entry.name]
        directory.entries[name] = entry
        entry.directory, entry.name = directory, name
        if entry.inode.is_directory:
            entry.inode.entry = entry
        if (path := self._path(entry)) is not None:
            self._named[path].add(entry.inode)
            for below, each in self._below(entry.inode, path + b"/"):
                self._named[below].add(each.inode)

    def _unlink(self, entry: Name) -> None:
        inode = entry.inode
        del entry.directory.entries[entry.name]
        inode.touch(self._clock.now())
        inode.links -= 1
        inode.is_removed = inode.is_directory

    def _end_if_removed(self, inode: Inode) -> None:
        """Have the watch of a directory end that is removed, when nobody has it open any more."""
        if inode.is_removed and not any(each.inode is inode for each in self.open.values()):
            self.inotify.tell(inode, IN_DELETE_SELF)
            self.inotify.end(inode)

    def _move(self, old: bytes, new: bytes, delay: float = 0.0) -> None:
        """rename(2); the second half is told so many seconds later."""
        entry, at, over = self._entry(old), self._at(new), self._entry(new)
        if entry is None or at is None or (over and over.inode is entry.inode):
            return
        if new.startswith(old + b"/") or old.startswith(new + b"/"):
            return
        if over:
            is_of_kind = over.inode.is_directory == entry.inode.is_directory
            if not is_of_kind or over.inode.entries or not self._may_go(over):
                return
            self._unlink(over)
        self._move_to(entry, *at, delay)
        if over:
            self._end_if_removed(over.inode)

    def _move_to(self, entry: Name, directory: Inode, name: bytes, delay: float = 0.0) -> None:
        source = entry.directory, entry.name
        self._put_at(entry, directory, name)
        if not self.has_leases:
            self._excuse([entry.inode])  # what was heard of was about the old name
        entry.inode.touch(self._clock.now())
        self._tell_move(entry, source, delay)

    def _tell_move(self, entry: Name, source: tuple[Inode, bytes], delay: float = 0.0) -> None:
        inotify, inode = self.inotify, entry.inode
        cookie, flag = inotify.cookie(), IN_ISDIR if inode.is_directory else 0
        inotify.tell(source[0], IN_MOVED_FROM | flag, source[1], cookie)
        inotify.tell(entry.directory, IN_MOVED_TO | flag, entry.name, cookie, delay)
        if inode.is_directory:
            inotify.tell(inode, IN_MOVE_SELF)
