"""What was done since the service began: counted, and the last of it remembered."""

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from sync.core.changes import (
    Arrive,
    Confirm,
    Delete,
    Done,
    Keep,
    MovedFile,
    Record,
    Removed,
    Rename,
    Set,
    Written,
    shown,
)

RECENT_MAX = 20  # changes that are remembered
# Seconds: the upper bounds of the classes in which lags are counted; one more is for all above.
LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# What each kind is called, for programs too. Of the kinds that are not here nobody is told.
OPERATIONS: dict[type[Done], str] = {
    Set: "set",
    Arrive: "set",
    Delete: "delete",
    Rename: "rename",
    Written: "write_file",
    Removed: "remove_file",
    MovedFile: "rename_file",
}
# The same for people, in the order in which they are told.
WORDS = {
    "set": "SET",
    "delete": "DEL",
    "rename": "RENAME",
    "write_file": "file written",
    "remove_file": "file removed",
    "rename_file": "file renamed",
}


class Change(NamedTuple):
    """One change that was carried out.

    at         when, in seconds since the epoch; 0 where nobody asks
    operation  one of the values of OPERATIONS
    name       of the file, as `changes.shown` writes it
    new        the name that it has by now; "" unless it was renamed
    size       bytes of the value that went from one side to the other; None if none did
    """

    at: float
    operation: str
    name: str
    new: str = ""
    size: int | None = None


def change(done: Done, at: float = 0.0) -> Change | None:
    """Return what was done as a change; None if nothing has changed by it."""
    match done:
        case Confirm() | Record() | Keep():
            return None
        case Set(name, content):
            return Change(at, OPERATIONS[Set], shown(name), size=len(content))
        case Arrive(name, signature):
            return Change(at, OPERATIONS[Arrive], shown(name), size=signature.size)
        case Written(name, size):
            return Change(at, OPERATIONS[Written], shown(name), size=size)
        case Rename(old, new) | MovedFile(old, new):
            return Change(at, OPERATIONS[type(done)], shown(old), shown(new))
        case Delete(name) | Removed(name):
            return Change(at, OPERATIONS[type(done)], shown(name))


def summed(done: Sequence[Done]) -> tuple[dict[str, int], int, int]:
    """Return how many there were of each of OPERATIONS, and the bytes that were set and written."""
    # A burst has some 100,000 commands a second: only what C does with all of them at once.
    operations: dict[str, int] = {}
    kinds = Counter(map(type, done))
    for kind, number in kinds.items():
        if operation := OPERATIONS.get(kind):
            operations[operation] = operations.get(operation, 0) + number
    was_set, written = sum([len(each[1]) for each in done if type(each) is Set]), 0
    if Arrive in kinds or Written in kinds:
        was_set += sum([each.signature.size for each in done if isinstance(each, Arrive)])
        written += sum([each.size for each in done if isinstance(each, Written)])
    return operations, was_set, written


class Tally:
    """Counts what is done.

    Attributes:
        operations: how many of each of OPERATIONS.
        moved: bytes of values that went from one side to the other.
        lags: how many lags were in each class of LAG_BOUNDS, and above.
        lag_sum: seconds, of all lags together.

    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Begin at nothing; `clock` returns seconds since the epoch."""
        self._clock = clock
        self.operations: Counter[str] = Counter(dict.fromkeys(OPERATIONS.values(), 0))
        self.moved = 0
        self.lags = [0] * (len(LAG_BOUNDS) + 1)
        self.lag_sum = 0.0
        self._recent: deque[Change] = deque(maxlen=RECENT_MAX)

    def add(self, done: Sequence[Done]) -> None:
        """Count what was carried out."""
        if not done:
            return
        operations, was_set, written = summed(done)
        self.operations.update(operations)
        self.moved += was_set + written
        # As changes, not as what was done: that holds whole values, of a megabyte each.
        told = (each for each in reversed(done) if type(each) in OPERATIONS)
        last, at = [*islice(told, RECENT_MAX)], self._clock()
        self._recent.extend(found for each in reversed(last) if (found := change(each, at)))

    def lag(self, seconds: float) -> None:
        """Count how long a change has taken from its arrival to its being in Redis."""
        self.lags[bisect_left(LAG_BOUNDS, seconds)] += 1
        self.lag_sum += seconds

    def recent(self) -> list[Change]:
        """Return the last changes, the last of all at the end."""
        return list(self._recent)
