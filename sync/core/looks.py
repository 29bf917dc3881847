"""Which directories are to be looked into, and where Redis may have what is in them.

As with files, what is told of a directory says where to look, and not what is there. That one has
moved is a hint more: Redis may have the values of its files under the paths that they had.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sync.core.changes import Appeared, Moved, PlaceChange, Vanished

_ORIGINS_MAX = 4  # of a directory that moves on and on before it is looked into


class Look(NamedTuple):
    """A directory to look into, with all that is below.

    `origins` are the places at which it was, the last one first.
    """

    place: bytes
    origins: tuple[bytes, ...] = ()


class Looks:
    """The directories that wait for a look, coalesced.

    Attributes:
        current: the one that is being looked into; None when there is none, or when it has moved
            since and what was begun is no use.

    """

    def __init__(self) -> None:
        """Have none to look into."""
        self._there: dict[bytes, tuple[bytes, ...]] = {}
        self._gone: dict[bytes, None] = {}
        self.current: Look | None = None

    def __bool__(self) -> bool:
        """Say whether there is one to look into, or being looked into."""
        return bool(self._there or self._gone or self.current)

    def add(self, changes: Iterable[PlaceChange]) -> None:
        """Take up what has happened, in its order."""
        for change in changes:
            match change:
                case Appeared(place):
                    self._there.setdefault(place, ())
                case Vanished(place):
                    self._gone[place] = None
                case Moved(old, new):
                    self._move(old, new)

    def take(self) -> Look | None:
        """Return the next that is to be looked into, which is the current one from now on."""
        self.current = None
        while self._there:
            place = next(iter(self._there))
            look = Look(place, self._there.pop(place))
            # What was not looked into yet is looked into as a whole.
            if look.origins or not any(above in self._there for above in _above(place)):
                self.current = look
                break
        return self.current

    def take_gone(self, limit: int) -> list[bytes]:
        """Return at most so many places that directories have left; none before all others.

        A value that can be moved from there is moved before it would be removed.
        """
        gone: list[bytes] = []
        while self._gone and not self._there and len(gone) < limit:
            place = next(iter(self._gone))
            del self._gone[place]
            if not any(above in self._gone for above in _above(place)):
                gone.append(place)
        return gone

    def clear(self) -> None:
        """Forget all of them: there will be a look at the whole tree."""
        self._there, self._gone, self.current = {}, {}, None

    def _move(self, old: bytes, new: bytes) -> None:
        current = self.current
        if current and current.place.startswith(old):
            # What was begun is not ended, and may have moved some of it already.
            self.current = None
            self._there.setdefault(current.place, current.origins)  # another may be there by now
            again = new + current.place[len(old) :]
            self._there[again] = _bounded(current, again)
        origins = self._origins(old)
        self._there[new] = _bounded(Look(old, (*self._there.get(new, ()), *origins)), new)
        self._gone[old] = None

    def _origins(self, place: bytes) -> Iterator[bytes]:
        """Yield where Redis may have what is at a place, though not under that."""
        for above in (place, *_above(place)):
            for origin in self._there.get(above, ()):
                yield origin + place[len(above) :]


def _bounded(look: Look, now: bytes) -> tuple[bytes, ...]:
    origins = dict.fromkeys((look.place, *look.origins))
    origins.pop(now, None)
    return tuple(origins)[:_ORIGINS_MAX]


def _above(place: bytes) -> Iterator[bytes]:
    """Yield the places above one, the nearest first, without the root."""
    end = place.rfind(b"/", 0, -1)
    while end >= 0:
        yield place[: end + 1]
        end = place.rfind(b"/", 0, end)
