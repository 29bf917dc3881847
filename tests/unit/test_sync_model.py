"""The mirror between a disk and a Redis in memory, under any sequence of operations at any lag.

`Disk` does what the kernel does and reports it as `sync.watch` would: later operations may be done
before a change is looked at, be it between the two looks at one file. Inodes are used again at
once, times are coarse, and contents have the same few sizes, so that signatures collide as they do
on a real disk.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sync.changes import (
    Change,
    Changed,
    Command,
    Delete,
    Removed,
    Rename,
    Renamed,
    Set,
    Signature,
    Unfinished,
)
from sync.files import Directory, File, Found, Unfit
from sync.mirror import Mirror
from sync.plan import Pending
from sync.target import Target

EXAMPLES = int(os.environ.get("MDVP_TEST_EXAMPLES", "500"))

PATIENCE = 0.5
ALL = 1 << 30
FOREIGN = {b"foreign": b"somebody else's"}


@dataclass(eq=False)
class Inode:
    number: int
    content: bytes
    mtime: int

    @property
    def signature(self) -> Signature:
        return Signature(self.number, len(self.content), self.mtime)


@dataclass(eq=False)
class Entry:
    """A directory entry. A writer keeps it, and its events bear the name that it has by then."""

    name: bytes
    inode: Inode | None  # None: not a regular file


class Disk(Directory):
    """A directory whose operations queue changes."""

    def __init__(self) -> None:
        self.path = Path("/model")
        self.entries: dict[bytes, Entry] = {}
        self.queue: deque[Change] = deque()
        self.meanwhile: deque[Operation] = deque()  # one is done at each look at the disk
        self._writers: list[Entry] = []
        self._now = 0

    # What the mirror sees of it.

    def names(self) -> Iterator[bytes]:
        yield from list(self.entries)

    def signature(self, name: bytes) -> Signature | None:
        self._time_passes()
        inode = self._inode(name)
        return inode.signature if inode else None

    def read(self, name: bytes, size_max: int) -> Found:  # noqa: ARG002  # all files are small
        self._time_passes()
        if name not in self.entries:
            return None
        inode = self._inode(name)
        if inode is None:
            return Unfit("is a symbolic link")
        signature = inode.signature
        self._time_passes()
        return File(signature, inode.content)

    def regular(self) -> dict[bytes, Inode]:
        return {name: entry.inode for name, entry in self.entries.items() if entry.inode}

    # What is done to it.

    def do(self, operation: "Operation") -> None:
        method, arguments = operation
        method(self, *arguments)

    def tick(self) -> None:
        """Let the clock go on, of which times of modification are read."""
        self._now += 1

    def write(self, name: bytes, content: bytes) -> None:
        """Create or truncate, write, and close."""
        if entry := self._begin(name, content):
            self.queue.append(Changed(entry.name))

    def begin(self, name: bytes, content: bytes) -> None:
        """Create or truncate, write, and keep open."""
        if entry := self._begin(name, content):
            self._writers.append(entry)

    def more(self, content: bytes) -> None:
        """Have every writer replace what it has written, and keep its file open."""
        for entry in self._writers:
            if entry.inode and self._reports(entry, entry.inode):
                entry.inode.content, entry.inode.mtime = content, self._now
                self.queue.append(Unfinished(entry.name))

    def close_all(self) -> None:
        """Have every writer close its file."""
        self.queue.extend(Changed(entry.name) for entry in self._writers)
        self._writers.clear()

    def link(self, old: bytes, new: bytes) -> None:
        inode = self._inode(old)
        if inode and new not in self.entries:
            self.entries[new] = Entry(new, inode)
            self.queue.append(Unfinished(new))

    def symlink(self, name: bytes) -> None:
        if name not in self.entries:
            self.entries[name] = Entry(name, None)
            self.queue.append(Unfinished(name))

    def remove(self, name: bytes) -> None:
        if self.entries.pop(name, None):
            self.queue.append(Removed(name))

    def rename(self, old: bytes, new: bytes) -> None:
        if self._move(old, new):
            self.queue.append(Renamed(old, new))

    def rename_in_halves(self, old: bytes, new: bytes) -> None:
        """Rename, but the second event comes too late to be seen as the other half of the first."""
        if self._move(old, new):
            self.queue += [Removed(old), Changed(new)]

    def exchange(self, one: bytes, other: bytes) -> None:
        """renameat2(RENAME_EXCHANGE), which the kernel reports as two renames."""
        entries = self.entries
        if one == other or not {one, other} <= entries.keys():
            return
        if self._is_same_file(one, other):
            return
        entries[one], entries[other] = entries[other], entries[one]
        entries[one].name, entries[other].name = one, other
        self.queue += [Renamed(one, other), Renamed(other, one)]

    def swap(self, one: bytes, other: bytes, third: bytes) -> None:
        if one != other and {one, other} <= self.entries.keys() and third not in self.entries:
            for old, new in ((one, third), (other, one), (third, other)):
                self.rename(old, new)

    def replace(self, name: bytes, content: bytes) -> None:
        """Write another file and rename it over this one, as editors do."""
        if b"tmp" not in self.entries:
            self.write(b"tmp", content)
            self.rename(b"tmp", name)

    def move_in(self, name: bytes, content: bytes) -> None:
        self.entries[name] = Entry(name, self._new_inode(content))
        self.queue.append(Changed(name))

    def _time_passes(self) -> None:
        if self.meanwhile:
            self.do(self.meanwhile.popleft())

    def _inode(self, name: bytes) -> Inode | None:
        entry = self.entries.get(name)
        return entry.inode if entry else None

    def _new_inode(self, content: bytes) -> Inode:
        entries = [*self.entries.values(), *self._writers]
        used = {entry.inode.number for entry in entries if entry.inode}
        return Inode(min(set(range(len(used) + 1)) - used), content, self._now)

    def _begin(self, name: bytes, content: bytes) -> Entry | None:
        entry = self.entries.get(name)
        if entry is None:
            self.entries[name] = entry = Entry(name, self._new_inode(content))
        elif entry.inode is None or not self._reports(entry, entry.inode):
            return None
        else:
            entry.inode.content, entry.inode.mtime = content, self._now
        self.queue.append(Unfinished(name))
        return entry

    def _reports(self, entry: Entry, inode: Inode) -> bool:
        # A write is reported under the name by which it is done. Whatever other name the file has
        # is not heard of, which no reader of inotify can mend: such writes are left out here.
        names = [each for each in self.entries.values() if each.inode is inode]
        return names in ([], [entry])

    def _is_same_file(self, one: bytes, other: bytes) -> bool:
        return self._inode(one) is not None and self._inode(one) is self._inode(other)

    def _move(self, old: bytes, new: bytes) -> bool:
        if old == new or old not in self.entries or self._is_same_file(old, new):
            return False
        self.entries[new] = self.entries.pop(old)
        self.entries[new].name = new
        return True


class Store(Target):
    """A Redis."""

    def __init__(self) -> None:
        self.value_max = 1000
        self.keys = dict(FOREIGN)
        self.entries: dict[bytes, Signature] = {}

    def held(self, names: Sequence[bytes]) -> dict[bytes, Signature | None]:
        return {name: self.entries.get(name) for name in names}

    def manifest(self) -> Iterator[list[bytes]]:
        for name in list(self.entries):
            yield [name]

    def apply(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Set(name, content, signature):
                    self.keys[name], self.entries[name] = content, signature
                case Delete(name):
                    del self.keys[name], self.entries[name]
                case Rename(old, new, signature):
                    # Redis answers with an error when there is no such key, as this does.
                    self.keys[new] = self.keys.pop(old)
                    del self.entries[old]
                    self.entries[new] = signature


Operation: TypeAlias = tuple[Callable[..., None], tuple[bytes, ...]]


@dataclass(frozen=True)
class Batch:
    """The service takes some changes from the queue while operations go on."""

    changes: int
    meanwhile: tuple[Operation, ...] = ()
    pause: float = 0.0  # seconds before it does


@dataclass(frozen=True)
class Overflow:
    """The kernel drops all changes, so the service looks at the whole directory."""

    meanwhile: tuple[Operation, ...] = ()


Step: TypeAlias = Operation | Batch | Overflow

NAMES = [b"a", b"b", b"c", b"d"]  # few, so that operations meet
CONTENTS = [b"", b"1", b"2", b"3", b"44", b"55"]
OPERATIONS: list[tuple[Callable[..., None], list[list[bytes]]]] = [
    (Disk.tick, []),
    (Disk.write, [NAMES, CONTENTS]),
    (Disk.begin, [NAMES, CONTENTS]),
    (Disk.more, [CONTENTS]),
    (Disk.close_all, []),
    (Disk.link, [NAMES, NAMES]),
    (Disk.symlink, [NAMES]),
    (Disk.remove, [NAMES]),
    (Disk.rename, [NAMES, NAMES]),
    (Disk.rename_in_halves, [NAMES, NAMES]),
    (Disk.exchange, [NAMES, NAMES]),
    (Disk.swap, [NAMES, NAMES, NAMES]),
    (Disk.replace, [NAMES, CONTENTS]),
    (Disk.move_in, [NAMES, CONTENTS]),
]


def operations() -> st.SearchStrategy[Operation]:
    return st.one_of(
        [
            st.sampled_from([(method, arguments) for arguments in product(*choices)])
            for method, choices in OPERATIONS
        ]
    )


def steps() -> st.SearchStrategy[Step]:
    meanwhile = st.lists(operations(), max_size=4).map(tuple)
    batch = st.builds(Batch, st.integers(1, 6), meanwhile, st.sampled_from([0.0, 0.3, PATIENCE]))
    # Four operations a batch.
    operation = operations()
    return st.one_of(
        operation, operation, operation, operation, batch, st.builds(Overflow, meanwhile)
    )


def scripts() -> st.SearchStrategy[list[Step]]:
    # A list of lists has some 25 steps on average, and yet shrinks to none; a list would have 5.
    parts = st.lists(st.lists(steps(), max_size=10), max_size=10)
    return parts.map(lambda lists: [step for each in lists for step in each])


class Service:
    """What `sync.service` does between the watch and the mirror, with the parts in memory."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.store = Store()
        self._mirror = Mirror(self.disk, self.store)
        self._pending = Pending(PATIENCE)
        self._now = 0.0

    def take(self, step: Step) -> None:
        match step:
            case Batch():
                self._follow(step)
            case Overflow(meanwhile):
                self._reconcile(meanwhile)
            case operation:
                self.disk.do(operation)

    def catch_up(self) -> None:
        self._follow(Batch(changes=ALL))
        self._follow(Batch(changes=ALL, pause=PATIENCE))

    def _follow(self, batch: Batch) -> None:
        disk = self.disk
        self._now += batch.pause
        count = min(batch.changes, len(disk.queue))
        self._pending.add([disk.queue.popleft() for _ in range(count)], self._now)
        disk.meanwhile.extend(batch.meanwhile)
        exhaust(self._mirror.follow(self._pending.take(self._now)))
        self._end_meanwhile()

    def _reconcile(self, meanwhile: Iterable[Operation]) -> None:
        self.disk.queue.clear()
        self._pending = Pending(PATIENCE)
        self.disk.meanwhile.extend(meanwhile)
        exhaust(self._mirror.examine(self.disk.names()))
        exhaust(self._mirror.examine(self._mirror.stale()))
        self._end_meanwhile()

    def _end_meanwhile(self) -> None:
        while self.disk.meanwhile:
            self.disk.do(self.disk.meanwhile.popleft())


def exhaust(batches: Iterable[Sequence[Command]]) -> None:
    deque(batches, maxlen=0)


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(scripts())
# A late look at both halves of an exchange.
@example(
    [
        (Disk.write, (b"a", b"1")),
        (Disk.write, (b"b", b"2")),
        Batch(changes=ALL),
        (Disk.exchange, (b"a", b"b")),
        Batch(changes=1),
        Batch(changes=1),
    ]
)
# An exchange reports a rename over a file that is not gone. Redis holds nothing of the link.
@example(
    [
        (Disk.write, (b"a", b"1")),
        (Disk.symlink, (b"b",)),
        Overflow(),
        (Disk.write, (b"a", b"2")),
        (Disk.exchange, (b"b", b"a")),
    ]
)
# Written anew within one tick of the clock, closed or not, and renamed before that is looked at.
@example(
    [
        (Disk.write, (b"a", b"1")),
        Batch(changes=ALL),
        (Disk.write, (b"a", b"2")),
        (Disk.rename, (b"a", b"b")),
    ]
)
@example(
    [
        (Disk.write, (b"a", b"1")),
        Batch(changes=ALL),
        (Disk.begin, (b"a", b"2")),
        (Disk.rename, (b"a", b"b")),
    ]
)
# The file has its old name again, and other content with the same signature, when the first rename
# is looked at.
@example(
    [
        (Disk.write, (b"a", b"1")),
        Batch(changes=ALL),
        (Disk.rename, (b"a", b"b")),
        (Disk.write, (b"b", b"2")),
        (Disk.rename, (b"b", b"a")),
        Batch(changes=1),
        Batch(changes=1),
        Batch(changes=1),
    ]
)
def test_redis_ends_equal_to_the_disk_however_far_the_service_lags_behind(
    script: list[Step],
) -> None:
    service = Service()
    for step in script:
        service.take(step)
    service.catch_up()
    files = service.disk.regular()
    assert service.store.keys == {name: inode.content for name, inode in files.items()} | FOREIGN
    assert service.store.entries == {name: inode.signature for name, inode in files.items()}
