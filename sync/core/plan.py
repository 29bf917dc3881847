"""The core: from changes to what must be done. Plain values in and out, no I/O, no clock.

The rule that makes it right: an event says where to look, not what is there. A changed name is
examined, that is, the file is read when the command is made, and the state of the disk at that
moment decides between SET and DEL. So a plan may be late but never wrong, and events of one name
coalesce.

Renames are the exception, since a RENAME moves a value that nobody reads again. So they are settled
against what is so: one is done only where Redis holds the value of the very file that now has the
new name, and any other name is examined after all.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import islice

from sync.core.changes import (
    NONE,
    Change,
    Changed,
    Created,
    Rename,
    Renamed,
    Signature,
    Unfinished,
)

# Where a value waits while others trade their names; no file name has a slash in it.
SPARE = b"/mdvp-sync/spare"

_COUNTED = 1000  # changes that are taken up before the names that wait are counted again


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: values that shall move, and names to examine.

    `moves` has, for each new name, the name under which Redis had the value so far; all move at
    once, so that a name can be both.

    Of the names in `examine`, those that are `overdue` are to be read as they are, though a writer
    may be at work: their patience is over. Of those of them that are `unheard` no write was heard
    of: whoever writes now is to be waited for. Those that are `alone` are looked at without the
    other names of their files, which were looked at when something happened. Of those that are
    `vacated` nothing need be wondered about when nothing is found under them: a rename took their
    file elsewhere, or it vanished after a rename from a name under which Redis could have its
    value. Those that were `written` to, or created, may have been names of other files in between.

    It `is_put_back` when there was no time for its names before: their order has to stay. Of those
    that are `owed` something was heard that was finished, and not just of a writer at work.
    """

    moves: Mapping[bytes, bytes]
    examine: tuple[bytes, ...]
    overdue: frozenset[bytes] = frozenset()
    unheard: frozenset[bytes] = field(default=frozenset(), compare=False)
    alone: frozenset[bytes] = frozenset()
    vacated: frozenset[bytes] = frozenset()
    written: frozenset[bytes] = field(default=frozenset(), compare=False)
    is_put_back: bool = field(default=False, compare=False)
    owed: frozenset[bytes] = field(default=frozenset(), compare=False)

    def __bool__(self) -> bool:
        """Say whether there is anything to do."""
        return bool(self.moves or self.examine)

    def names(self) -> list[bytes]:
        """Return each name in the moves once."""
        return list(dict.fromkeys([*self.moves.values(), *self.moves]))


class _Waiting:
    """Names that wait, each until a time of its own. Nothing here goes through all of them."""

    def __init__(self) -> None:
        self._due: dict[bytes, float] = {}
        # Also has what is not so any more: it is known by its time, and left out when it comes up.
        self._heap: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, name: object) -> bool:
        return name in self._due

    def names(self) -> list[bytes]:
        return list(self._due)

    def due_of(self, name: bytes) -> float | None:
        return self._due.get(name)

    def put(self, name: bytes, due: float) -> None:
        if self._due.get(name) == due:
            return
        self._due[name] = due
        heappush(self._heap, (due, name))
        if len(self._heap) > 2 * len(self._due) + 100:
            self._heap = [(due, name) for name, due in self._due.items()]
            heapify(self._heap)

    def drop(self, name: bytes) -> bool:
        return self._due.pop(name, None) is not None

    @property
    def due(self) -> float | None:
        """When the first of them is due."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: float, limit: int) -> list[bytes]:
        """Return at most `limit` names that are due, the first ones, and forget them."""
        taken: list[bytes] = []
        while len(taken) < limit and (due := self.due) is not None and due <= now:
            name = heappop(self._heap)[1]
            del self._due[name]
            taken.append(name)
        return taken


class _Ready:
    """What each name is to get, in an order in which no value is lost before it is moved.

    That is the value that Redis had under another name (its origin), or, if None, what is found on
    disk. A value has one heir at most, so names are in chains and in rings. A name is free when its
    own value goes nowhere, or has been taken; the others wait for their heirs. So the order costs
    no search: what is taken frees the next one. Only rings have no free name.
    """

    def __init__(self) -> None:
        self._origins: dict[bytes, bytes | None] = {}
        self._heirs: dict[bytes, bytes] = {}  # by the origin; but no name is its own heir
        self._free: dict[bytes, None] = {}  # a set that keeps the order

    def __len__(self) -> int:
        return len(self._origins)

    def __contains__(self, name: object) -> bool:
        return name in self._origins

    def origin(self, name: bytes, default: bytes | None = None) -> bytes | None:
        return self._origins.get(name, default)

    def put(self, name: bytes, origin: bytes | None) -> None:
        self._disinherit(name)
        self._origins[name] = origin
        if origin is not None and origin != name:
            self._heirs[origin] = name
            self._free.pop(origin, None)
        if name not in self._heirs:
            self._free[name] = None

    def drop(self, name: bytes) -> bytes | None:
        """Forget a name; return the one that is free now, if that is ready too."""
        origin = self._disinherit(name)
        del self._origins[name]
        self._free.pop(name, None)
        return origin

    def distrust(self, name: bytes) -> None:
        """Have the name examined that was to get the value that Redis has under this one."""
        heir = name if self._origins.get(name) == name else self._heirs.get(name)
        if heir is not None:
            self.put(heir, None)

    def take(self, limit: int) -> dict[bytes, bytes | None]:
        """Return at most `limit` names, each with its origin, and forget them."""
        taken: dict[bytes, bytes | None] = {}
        self._take_free(taken, limit)
        # Whatever is left when no name is free is in rings, all of it.
        for start in () if self._free else list(islice(self._origins, limit)):
            if start not in self._origins:
                continue  # its ring was taken
            ring = list(islice(self._ring(start), limit + 1))
            if len(ring) > limit:
                # One of its names is examined in the end, and the others are a chain.
                self.put(start, None)
                self._take_free(taken, limit)
            elif len(taken) + len(ring) <= limit:
                for name in ring:
                    self._take(name, taken)
            if len(taken) >= limit or self._free or start in self._origins:
                break
        return taken

    def _take_free(self, taken: dict[bytes, bytes | None], limit: int) -> None:
        # A dict finds its first key slowly when many before it are gone: so all at once.
        for end in list(islice(self._free, limit - len(taken))):
            name: bytes | None = end
            while name is not None and len(taken) < limit:
                name = self._take(name, taken)

    def _take(self, name: bytes, taken: dict[bytes, bytes | None]) -> bytes | None:
        taken[name] = self._origins[name]
        return self.drop(name)

    def _ring(self, start: bytes) -> Iterator[bytes]:
        yield start
        name = self._heirs[start]
        while name != start:
            yield name
            name = self._heirs[name]

    def _disinherit(self, name: bytes) -> bytes | None:
        origin = self._origins.get(name)
        if origin is None or origin == name:
            return None
        del self._heirs[origin]
        if origin not in self._origins:
            return None
        self._free[origin] = None
        return origin


class Pending:
    """Changes that wait for their turn, coalesced.

    A file is mirrored when its writer closes it. For one that stays open (a log, say) or that is
    never closed (a hard link) the wait ends `patience` seconds after the first such change.

    A name waits in one way only: ready, unfinished or deferred. The one exception is a name that a
    value is to be moved to: its file can be written to, or deferred, before that is done.

    Attributes:
        overflowed: set when more than `names_max` names waited together, and all of them were
            forgotten. The caller unsets it, and then looks at the whole directory.

    """

    def __init__(self, patience: float, retry: float, names_max: int = 100_000) -> None:
        """Hold unfinished files back for `patience` seconds, and deferred ones for `retry`.

        Of `names_max` names each takes some 400 bytes.
        """
        self._patience = patience
        self._retry = retry
        self._names_max = names_max
        self.overflowed = False
        self._forget()

    def _forget(self) -> None:
        self._ready = _Ready()
        # What was put back: behind all that has happened since. In its turn it is as what is ready.
        self._later: dict[bytes, None] = {}
        self._is_turn_of_later = False
        self._unfinished = _Waiting()
        self._deferred = _Waiting()
        self._resting: set[bytes] = set()  # of the deferred ones: whatever is written to them
        self._postponed: set[bytes] = set()  # of the unfinished ones: they wait anew
        self._held_back: set[bytes] = set()  # unfinished or overdue, and no write was heard of
        self._overdue: set[bytes] = set()  # of the ready ones: their patience is over
        self._another: set[bytes] = set()  # something else than a write came since it was taken
        self._written: set[bytes] = set()  # created, or written to, since it was taken
        self._alone: set[bytes] = set()  # of the ready ones: they were deferred, and nothing came
        self._left: set[bytes] = set()  # a rename took the file, and nothing came since
        self._gone: set[bytes] = set()  # a file that a rename had brought changed, or vanished
        # Something finished has come that was not taken yet; may have what waits no more, too.
        self._owed: set[bytes] = set()
        self._last_rename: tuple[bytes, bytes] | None = None  # old name, new name
        # What follows is of all that is ready together, until the last of it is taken.
        self._has_changes = False  # others than renames
        self._has_exchanges = False

    @property
    def is_ready(self) -> bool:
        """Say whether there is something to take that need not wait."""
        return bool(self._ready or self._later)

    def is_due(self, now: float) -> bool:
        """Say whether there is something to take by `now`."""
        return self.is_ready or ((due := self.due) is not None and due <= now)

    @property
    def deferred(self) -> int:
        """How many names are to be looked at again."""
        return len(self._deferred)

    def deferred_names(self) -> list[bytes]:
        """Return the names that are to be looked at again."""
        return self._deferred.names()

    @property
    def is_quiet(self) -> bool:
        """Say whether there is no name that has news."""
        return not (self._ready or self._later or self._unfinished)

    @property
    def due(self) -> float | None:
        """When something that waits is to be taken; None while nothing waits."""
        times = [each.due for each in (self._unfinished, self._deferred)]
        return min((each for each in times if each is not None), default=None)

    def add(self, changes: Iterable[Change], now: float) -> None:
        """Add changes in their order; `now` is in seconds on the caller's clock."""
        for number, change in enumerate(changes, 1):
            match change:
                case Unfinished(name):
                    self._write(name, now)
                case Created(name, is_written):
                    self._create(name, now, is_written=is_written)
                case Changed(name):
                    self._change(name)
                case Renamed(old, new):
                    self._rename(old, new)
            if number % _COUNTED == 0:
                self._stay_bounded()
        self._stay_bounded()

    def __len__(self) -> int:
        """Return how many names wait; what is to get a value twice, if it waits for more, too."""
        waiting = len(self._ready) + len(self._later) + len(self._unfinished)
        return waiting + len(self._deferred)

    def __contains__(self, name: object) -> bool:
        """Say whether a name is to be examined, or its value to be moved."""
        waiting = (self._ready, self._later, self._unfinished, self._deferred)
        return any(name in names for names in waiting)

    def has_news(self, name: bytes) -> bool:
        """Say whether something happened under the name that is not taken yet.

        What is only to be looked at again, since it could not be read, is no news.
        """
        return name in self._ready or name in self._unfinished or name in self._later

    def is_heard(self, name: bytes) -> bool:
        """Say whether the name has news, and not just waits for a writer of whom nothing came."""
        return self.has_news(name) and name not in self._held_back

    def has_another(self, name: bytes) -> bool:
        """Say whether the name may be another file's since it was taken, or another writer's."""
        return name in self._another

    def is_unfinished(self, name: bytes) -> bool:
        """Say whether the name waits for the close of its writer."""
        return name in self._unfinished

    def owe(self, names: Iterable[bytes]) -> None:
        """Take note that something finished is still to be followed of names that wait."""
        self._owed.update(names)

    def owed(self, elsewhere: Collection[bytes] = ()) -> set[bytes]:
        """Return the names that wait, here or `elsewhere`, though something under them is finished.

        The others wait for a writer who has not closed his file, and nothing else has happened.
        """
        self._owed = self.among(self._owed) | self._owed.intersection(elsewhere)
        return set(self._owed)

    def among(self, names: Iterable[bytes]) -> set[bytes]:
        """Return those of some names that wait."""
        ready, later, unfinished = self._ready, self._later, self._unfinished
        deferred = self._deferred
        return {
            name
            for name in names
            if name in ready or name in later or name in deferred or name in unfinished
        }

    def hold_back(self, names: Iterable[bytes], now: float) -> None:
        """Have names wait for a close: a writer is at work, so what was read must not be sent.

        Each is taken as overdue when no close has come after `patience` seconds. These begin anew
        with the first write that is heard of: the close may have been before, and it be another's.
        """
        for name in names:
            self._is_outdated(name)
            if not self.has_news(name):
                self._defer_no_more(name)
                self._unfinished.put(name, now + self._patience)
                self._held_back.add(name)
        self._stay_bounded()

    def wait_no_more(self, names: Iterable[bytes]) -> None:
        """Have names examined as overdue: the patience for a writer of their file is over.

        Not those under which something was heard, or that are new, perhaps another file's by now:
        these have patience of their own.
        """
        for name in names:
            if self.is_heard(name) or name in self._written:
                continue
            self._is_outdated(name)
            self._forget_waiting(name)
            self._ready.put(name, None)
            self._overdue.add(name)
            self._alone.add(name)
        self._stay_bounded()

    def postpone(self, now: float) -> None:
        """Have what waits for a close wait for its whole patience anew: events were lost.

        The close may have been among them, and whoever writes to the file now be another writer.
        Each name waits anew but once: there may be no end of what is lost.
        """
        for name in self._unfinished.names():
            if name not in self._postponed:
                self._postponed.add(name)
                due = now + self._patience
                self._unfinished.put(name, max(due, self._unfinished.due_of(name) or due))
                self._owed.add(name)

    def renew(self, places: tuple[bytes, ...], now: float) -> None:
        """Have names at places that directories have left wait for their whole patience anew.

        Other files are there by now, if any, and whoever writes to these is another.
        """
        for name in self._unfinished.names() if places else ():
            if name.startswith(places):
                due = now + self._patience
                self._unfinished.put(name, max(due, self._unfinished.due_of(name) or due))
                self._held_back.add(name)

    def put_back(self, names: Iterable[bytes], plan: Plan) -> None:
        """Have names of a plan examined later after all: there was no time."""
        for name in names:
            self._is_outdated(name)
            if self.has_news(name):
                continue
            self._defer_no_more(name)
            self._later[name] = None
            for flags, those in (
                (self._overdue, plan.overdue),
                (self._held_back, plan.unheard),
                (self._alone, plan.alone),
                (self._left, plan.vacated),
                (self._written, plan.written),
            ):
                if name in those:
                    flags.add(name)
        self._stay_bounded()

    def defer(self, names: Iterable[bytes], now: float, delay: float | None = None) -> None:
        """Have names examined again after `delay` seconds: what is there cannot be read now.

        Without a delay that is soon, and later the more names are deferred. A name that has news
        is examined for these. One that is deferred already keeps the later time.
        """
        names = dict.fromkeys(names)
        if delay is None:
            # What cannot be read for long, and is much, must not be all that is looked at.
            count = len(self._deferred) + sum(name not in self._deferred for name in names)
            delay = self._retry * (1 + count // 100)
        for name in names:
            self._defer(name, now + delay)
        self._stay_bounded()

    def rest(self, name: bytes, now: float, delay: float) -> None:
        """Have a name examined again after `delay` seconds: that takes long, and it changes.

        Nor is it examined sooner when it is written to, until it is closed.
        """
        due = now + delay
        if (unfinished := self._unfinished.due_of(name)) is not None:
            self._is_outdated(name)
            self._unfinished.put(name, max(due, unfinished))
        else:
            self._defer(name, due)
            if name in self._deferred:
                self._resting.add(name)
        self._stay_bounded()

    def look_again(self, names: Iterable[bytes], now: float) -> None:
        """Have names examined: something has happened to their files, under other names.

        It may be what those were deferred for; only what rests goes on doing so.
        """
        for name in names:
            if name not in self._resting:
                self._defer_no_more(name)
                self._defer(name, now)
        self._stay_bounded()

    def _defer(self, name: bytes, due: float) -> None:
        self._is_outdated(name)
        is_waiting = name in self._unfinished or name in self._later
        if not (is_waiting or self._is_examined_soon(name)):
            self._deferred.put(name, max(due, self._deferred.due_of(name) or due))

    def _defer_no_more(self, name: bytes) -> bool:
        """Say whether it was deferred."""
        self._resting.discard(name)
        return self._deferred.drop(name)

    def take(self, now: float, limit: int = 700) -> Plan:
        """Return what is to be done by `now`, at most `limit` names, and forget it.

        What is left is ready, or due. A value is moved before its name is examined, or another
        value is moved there: in the same plan or in one before. Names that trade places are moved
        in one plan; if they are more than `limit`, one of them is examined for that.
        """
        for name in self._unfinished.take(now, limit):
            self._postponed.discard(name)
            self._overdue.add(name)
            self._ready.put(name, None)
        for name in self._deferred.take(now, limit):
            self._alone.add(name)
            self._ready.put(name, None)
        # There may be no end of what is new: then what was put back has every other turn.
        is_theirs = self._is_turn_of_later and bool(self._later)
        taken = {} if is_theirs else self._ready.take(limit)
        self._is_turn_of_later = not is_theirs
        for name in list(islice(self._later, limit - len(taken))):
            del self._later[name]
            taken.setdefault(name, None)
        if self._has_exchanges and self._has_changes:
            taken = dict.fromkeys(taken)
        plan = self._plan(taken, is_put_back=is_theirs)
        flags = (self._overdue, self._another, self._written, self._alone, self._left, self._gone)
        for names in (*flags, self._held_back, self._resting, self._owed):
            names.difference_update(taken)
        if not self._ready:
            self._has_changes = self._has_exchanges = False
        return plan

    def _plan(self, taken: Mapping[bytes, bytes | None], *, is_put_back: bool) -> Plan:
        examine = tuple(name for name, origin in taken.items() if origin is None)
        return Plan(
            {name: origin for name, origin in taken.items() if origin is not None},
            examine,
            overdue=frozenset(self._overdue.intersection(examine)),
            unheard=frozenset(self._overdue.intersection(self._held_back, examine)),
            alone=frozenset(self._alone.intersection(examine)),
            vacated=frozenset(name for name in examine if name in self._left or name in self._gone),
            written=frozenset(self._written.intersection(examine)),
            is_put_back=is_put_back,
            owed=frozenset(self._owed.intersection(taken)),
        )

    def _write(self, name: bytes, now: float) -> None:
        self._has_changes = True
        self._written.add(name)
        self._left.discard(name)
        self._gone.discard(name)
        self._alone.discard(name)
        if name in self._overdue and name not in self._held_back:
            return
        self._overdue.discard(name)
        self._later.pop(name, None)
        if self._is_examined_soon(name):
            self._ready.drop(name)  # its new writer has it now
        if name not in self._unfinished:
            due = now + self._patience
            rest = self._deferred.due_of(name) if name in self._resting else None
            self._unfinished.put(name, max(due, rest or due))
            self._defer_no_more(name)
        elif name in self._held_back:
            due = now + self._patience
            self._unfinished.put(name, max(due, self._unfinished.due_of(name) or due))
        self._held_back.discard(name)

    def _create(self, name: bytes, now: float, *, is_written: bool) -> None:
        self._write(name, now)
        # Whatever was written before was to another file.
        if (waits := self._unfinished.due_of(name)) is not None:
            self._unfinished.put(name, max(waits, now + self._patience))
            if not is_written:  # it may be a second name of a file that is finished
                self._held_back.add(name)
                self._owed.add(name)

    def _change(self, name: bytes) -> None:
        self._has_changes = True
        # A file that a rename brought, and that nobody wrote to, is what Redis has under the name
        # that it had.
        is_brought = self._ready.origin(name) is not None and name not in self._unfinished
        self._settle_name(name)
        if is_brought:
            self._gone.add(name)
        self._ready.put(name, None)
        self._owed.add(name)

    def _rename(self, old: bytes, new: bytes) -> None:
        # When two files take each other's name, the kernel reports two renames. Then the first is
        # over a file that is not gone, and what had come of that one is not where it seems to be.
        # The file that had the new name may have others, so a write to it is to be looked at.
        is_written = self._is_examined_soon(new) and new not in self._left
        is_written |= self._settle_name(new)
        # Of a file that waits Redis does not have the content yet, so there is nothing to move; and
        # if it waits for its writer, it does so under its new name.
        due = self._unfinished.due_of(old)
        is_held_back = old in self._held_back
        waits = self._settle_name(old)
        origin = None if waits else self._ready.origin(old, old)
        self._has_changes |= waits or is_written
        # The kernel locks the directory for both, so that no other comes between.
        self._has_exchanges |= (new, old) == self._last_rename
        self._last_rename = old, new
        self._ready.put(old, None)
        self._left.add(old)
        self._owed.update((old, new))
        if old in self._written:
            self._written.add(new)
        # After an overflow nobody knows what waited for the old name.
        if due is None:
            self._ready.put(new, None if is_written or self.overflowed else origin)
        else:
            if new in self._ready:
                self._ready.drop(new)
            self._unfinished.put(new, due)
            if is_held_back:
                self._held_back.add(new)

    def _settle_name(self, name: bytes) -> bool:
        """Forget what is no more so of a name with news; say whether it waited for something."""
        self._another.add(name)
        return self._forget_waiting(name)

    def _forget_waiting(self, name: bytes) -> bool:
        """Forget what a name waits for, and on which terms; say whether it waited."""
        self._postponed.discard(name)
        self._held_back.discard(name)
        self._overdue.discard(name)
        self._alone.discard(name)
        self._left.discard(name)
        self._gone.discard(name)
        was_put_back = name in self._later
        self._later.pop(name, None)
        return self._unfinished.drop(name) | self._defer_no_more(name) | was_put_back

    def _is_outdated(self, name: bytes) -> None:
        """Take to heart that Redis did not get what was found under this name.

        Its file may have got another name by now.
        """
        self._ready.distrust(name)
        self._has_changes |= bool(self._ready)

    def _is_examined_soon(self, name: bytes) -> bool:
        return name in self._ready and self._ready.origin(name) is None

    def _stay_bounded(self) -> None:
        if len(self) > self._names_max:
            self._forget()
            self.overflowed = True


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
