"""Who waits until all that was finished before is in Redis: plain values in and out, no I/O.

Somebody who waits has made a cookie, a file that the kernel tells of after all that had happened
before. When it has come, all of that is either in Redis or waits here for its turn. So what waits
then is noted, as a barrier: who waits is answered when each of it has been brought once since.
What happens later is nobody's business here, or there would be no end of it where much happens.

What a look at names is still to find cannot be noted: so what waits is noted when there is no
reconcile any more, and when the directories have been looked into that were to be looked into. If
events are lost meanwhile, all of that begins anew.

Nothing depends on a cookie that comes: it may be lost, and is made again and again. One of whom
nothing is heard any more is forgotten.
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache

_PATIENCE = 5.0  # seconds without a cookie, of which there is one each half second
_MOST = 100  # who wait at the same time; others are heard again when these are answered
_FEW = 100  # names of which it is found out at any time whether they still wait


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for its turn, while nothing is under way.

    is_unknown   whether all files are to be looked at, or are being looked at
    places       the directories that are to be looked into, or are being looked into
    is_together  whether something waits that has no name: a group, or a search for other names
    is_ready     whether there is more to do at once
    owed         returns the names that wait of which something is finished
    among        returns those of some names that wait
    """

    is_unknown: bool
    places: Collection[bytes]
    is_together: bool
    is_ready: bool
    owed: Callable[[], set[bytes]]
    among: Callable[[Iterable[bytes]], set[bytes]]


@dataclass(slots=True)
class _Barrier:
    """What somebody waits for.

    began   when the cookie came first (s)
    heard   when it came last (s)
    places  the directories that are still to be looked into; None when they are not noted yet
    names   what is still to be brought; None when it is not noted yet
    """

    began: float
    heard: float
    places: set[bytes] | None = None
    names: set[bytes] | None = None

    def is_over(self, waiting: Waiting) -> bool:
        """Say whether all of it has been brought."""
        if waiting.is_unknown:
            self.places = self.names = None
            return False
        if self.places is None:
            self.places = set(waiting.places)
        self.places.intersection_update(waiting.places)
        if self.places:
            return False
        if self.names is None:
            self.names = {*waiting.owed()}
        elif self.names and (len(self.names) <= _FEW or not waiting.is_ready):
            # What was looked at, and is not to be looked at again, is right.
            self.names = waiting.among(self.names)
        return not (self.names or waiting.is_together)


class Barriers:
    """All who wait, by their tokens."""

    def __init__(self) -> None:
        """Have nobody wait."""
        self._barriers: dict[bytes, _Barrier] = {}

    def __bool__(self) -> bool:
        """Say whether somebody waits."""
        return bool(self._barriers)

    def add(self, tokens: Iterable[bytes], now: float) -> None:
        """Take up cookies that have come; after that, all that had happened before is known."""
        for token in tokens:
            if token in self._barriers or len(self._barriers) < _MOST:
                self._barriers.setdefault(token, _Barrier(now, now)).heard = now

    def brought(self, names: Collection[bytes], since: float = math.inf) -> None:
        """Take note that names are as they were at some time `since` then, or later."""
        for barrier in self._barriers.values():
            if barrier.names and barrier.began <= since:
                barrier.names.difference_update(names)

    def owe(self, names: Collection[bytes]) -> None:
        """Take note of names that are to be looked at because of what was found under others."""
        for barrier in self._barriers.values():
            if barrier.names is not None:
                barrier.names.update(names)

    def take(self, waiting: Waiting, now: float) -> list[bytes]:
        """Return the tokens of those for whom all has been brought, and forget them."""
        # Very many names may wait, and they are the same for all.
        waiting = replace(waiting, owed=cache(waiting.owed))
        over = [token for token, barrier in self._barriers.items() if barrier.is_over(waiting)]
        silent = [token for token, each in self._barriers.items() if now - each.heard > _PATIENCE]
        for token in {*over, *silent}:
            del self._barriers[token]
        return over
