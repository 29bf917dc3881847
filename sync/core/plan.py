"""The core: from changes to what must be done. Plain values in and out, no I/O, no clock.

The rule that makes it right: an event says where to look, not what is there. A changed name is
examined, that is, the file is read when the command is made, and the state of the disk at that
moment decides between SET and DEL. So a plan may be late but never wrong, and events of one name
coalesce.

Renames are the exception, since a RENAME moves a value that nobody reads again. So they are settled
against what is so: one is done only where Redis holds the value of the very file that now has the
new name, and any other name is examined after all.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sync.core.changes import NONE, Change, Changed, Rename, Renamed, Signature, Unfinished

# Where a value waits while others trade their names; no file name has a slash in it.
SPARE = b"/mdvp-sync/spare"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: values that shall move, and names to examine.

    `moves` has, for each new name, the name under which Redis had the value so far; all move at
    once, so that a name can be both.
    """

    moves: Mapping[bytes, bytes]
    examine: tuple[bytes, ...]

    def __bool__(self) -> bool:
        """Say whether there is anything to do."""
        return bool(self.moves or self.examine)

    def names(self) -> list[bytes]:
        """Return each name in the moves once."""
        return list(dict.fromkeys([*self.moves.values(), *self.moves]))


@dataclass(slots=True)
class _Waiting:
    """Names that are to be examined some time after the first of them came."""

    delay: float
    names: dict[bytes, None] = field(default_factory=dict)  # a set that keeps the order
    due: float | None = None

    def add(self, name: bytes, now: float) -> None:
        self.names[name] = None
        if self.due is None:
            self.due = now + self.delay

    def drop(self, name: bytes) -> bool:
        if name not in self.names:
            return False
        del self.names[name]
        if not self.names:
            self.due = None
        return True

    def take(self, now: float) -> Iterable[bytes]:
        if self.due is None or now < self.due:
            return ()
        taken, self.names, self.due = self.names, {}, None
        return taken


class Pending:
    """Changes that wait for their turn, coalesced.

    A file is mirrored when its writer closes it. For one that stays open (a log, say) or that is
    never closed (a hard link) the wait ends `patience` seconds after the first such change.
    """

    def __init__(self, patience: float, retry: float) -> None:
        """Hold unfinished files back for `patience` seconds, and deferred ones for `retry`."""
        # What each name is to get: the value that Redis had under another name, or, if None, what
        # is found on disk.
        self._ready: dict[bytes, bytes | None] = {}
        self._renames: set[tuple[bytes, bytes]] = set()  # old name, new name
        self._has_changes = False  # others than renames
        self._has_exchanges = False
        self._patience = patience
        self._unfinished = _Waiting(patience)
        self._deferred = _Waiting(retry)
        self._retry = retry

    @property
    def is_ready(self) -> bool:
        """Say whether there is something to take that need not wait."""
        return bool(self._ready)

    @property
    def due(self) -> float | None:
        """When something that waits is to be taken; None while nothing waits."""
        times = [each.due for each in (self._unfinished, self._deferred) if each.due is not None]
        return min(times, default=None)

    def add(self, changes: Iterable[Change], now: float) -> None:
        """Add changes in their order; `now` is in seconds on the caller's clock."""
        for change in changes:
            match change:
                case Unfinished(name):
                    self._has_changes = True
                    if self._ready.get(name, name) is not None:
                        self._unfinished.add(name, now)
                case Changed(name):
                    self._has_changes = True
                    self._unfinished.drop(name)
                    self._ready[name] = None
                case Renamed(old, new):
                    self._rename(old, new)

    def __contains__(self, name: object) -> bool:
        """Say whether a name is to be examined, or its value to be moved."""
        return any(
            name in names for names in (self._ready, self._unfinished.names, self._deferred.names)
        )

    def defer(self, names: Iterable[bytes], now: float) -> None:
        """Have names examined again after a while: what is there cannot be read now."""
        for name in names:
            self._deferred.add(name, now)
        # What cannot be read for long, and is much, must not be all that is looked at.
        self._deferred.delay = self._retry * (1 + len(self._deferred.names) // 100)

    def stretch(self, seconds: float) -> None:
        """Have what waits wait at least so long, from now on: what was taken last took its time."""
        self._unfinished.delay = max(self._patience, seconds)
        self._deferred.delay = max(self._deferred.delay, seconds)

    def take(self, now: float) -> Plan:
        """Return what is to be done by `now`, and forget it."""
        for waiting in (self._unfinished, self._deferred):
            self._ready.update(dict.fromkeys(waiting.take(now)))
        ready, self._ready = self._ready, {}
        if self._has_exchanges and self._has_changes:
            ready = dict.fromkeys(ready)
        self._renames.clear()
        self._has_changes = self._has_exchanges = False
        return Plan(
            {name: origin for name, origin in ready.items() if origin is not None},
            tuple(name for name, origin in ready.items() if origin is None),
        )

    def _rename(self, old: bytes, new: bytes) -> None:
        # Of a file that waits Redis does not have the content yet, so there is nothing to move.
        waits = self._unfinished.drop(old) | self._deferred.drop(old)
        origin = None if waits else self._ready.get(old, old)
        # When two files take each other's name, the kernel reports two renames. Then the first is
        # over a file that is not gone, and what had come of that one is not where it seems to be.
        self._has_changes |= waits | self._unfinished.drop(new) | (new in self._deferred.names)
        self._has_exchanges |= (new, old) in self._renames
        self._renames.add((old, new))
        self._ready[old] = None
        self._ready[new] = origin


@dataclass(frozen=True, slots=True)
class Settled:
    """The renames for Redis, in groups that must not be parted, and what became of the moves.

    The values in `moved` are right; the names in `missed` are to be examined.
    """

    renames: tuple[tuple[Rename, ...], ...]
    moved: tuple[bytes, ...]
    missed: tuple[bytes, ...]


def settle(
    moves: Mapping[bytes, bytes],
    held: Mapping[bytes, Signature | None],
    on_disk: Mapping[bytes, Signature | None],
) -> Settled:
    """Check moves against what is so.

    For each name in the moves, `held` has the signature of the file whose content Redis holds
    under it, and `on_disk` that of the regular file of that name now; None where there is none.
    """
    good: dict[bytes, Signature] = {}
    missed: list[bytes] = []
    for new, old in moves.items():
        had, has = held[old], on_disk[new]
        if had is not None and has is not None and has.is_content_of(had):
            good[new] = has
        else:
            missed.append(new)
    return Settled(
        tuple(
            tuple(Rename(old, new, good.get(new, NONE)) for old, new in group)
            for group in in_order({new: moves[new] for new in good})
        ),
        tuple(good),
        tuple(missed),
    )


def in_order(moves: Mapping[bytes, bytes]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield moves (new name: old name) as renames (old, new), none over a value yet to be moved.

    Each group stands for itself: a chain, from its free end on, or names that trade places, which
    takes one more rename, by way of SPARE.
    """
    left = {new: old for new, old in moves.items() if new != old}
    taken = set(left.values())
    for end in [new for new in left if new not in taken]:
        yield list(_chain(left, end))
    while left:
        end = next(iter(left))
        chain = list(_chain(left, end))
        _, last = chain[-1]  # gets the value that was at `end`
        yield [(end, SPARE), *chain[:-1], (SPARE, last)]


def _chain(left: dict[bytes, bytes], new: bytes) -> Iterator[tuple[bytes, bytes]]:
    while new in left:
        old = left.pop(new)
        yield old, new
        new = old
