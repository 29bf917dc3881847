"""Which directories are to be looked into, and where Redis may have what is in them.

As with files, what is told of a directory says where to look, and not what is there. That one has
moved is a hint more: Redis may have the values of its files under the paths that they had.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sync.core.changes import Appeared, Moved, PlaceChange, Vanished, places_above

_ORIGINS_MAX = 4  # of a directory that moves on and on before it is looked into
_TOGETHER = 200  # directories that are looked into together


class Look(NamedTuple):
    """Directories to look into, with all that is below.

    One that has moved is looked into by itself: `origins` are the places at which it was, the last
    one first.
    """

    places: tuple[bytes, ...]
    origins: tuple[bytes, ...] = ()


class Looks:
    """The directories that wait for a look, coalesced.

    Attributes:
        current: those that are being looked into; None when there are none, or when one has moved
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
        """Return what is to be looked into next, and take note that it is the current look."""
        places: list[bytes] = []
        origins: tuple[bytes, ...] = ()
        while self._there and len(places) < _TOGETHER and not origins:
            place, its = next(iter(self._there.items()))
            if places and its:
                break  # by itself, the next time
            del self._there[place]
            origins = its
            # What was not looked into yet is looked into as a whole.
            if origins or not any(above in self._there for above in places_above(place)):
                places.append(place)
        self.current = Look(tuple(places), origins) if places else None
        return self.current

    def take_gone(self, limit: int) -> list[bytes]:
        """Return at most so many places that directories have left.

        None while a directory is to be looked into that has moved: a value is moved before it
        would be removed.
        """
        gone: list[bytes] = []
        while self._gone and not any(self._there.values()) and len(gone) < limit:
            place = next(iter(self._gone))
            del self._gone[place]
            if not any(above in self._gone for above in places_above(place)):
                gone.append(place)
        return gone

    def places(self) -> set[bytes]:
        """Return the places that wait for a look, are being looked into, or were left."""
        current = self.current.places if self.current else ()
        return {*self._there, *self._gone, *current}

    def clear(self) -> None:
        """Forget all of them: there will be a look at the whole tree."""
        self._there, self._gone, self.current = {}, {}, None

    def _move(self, old: bytes, new: bytes) -> None:
        current = self.current
        if current and any(place.startswith(old) for place in current.places):
            self.current = None
            for place in current.places:
                # What was begun is not ended, and may have moved some of it already.
                self._there.setdefault(place, current.origins)  # another may be there by now
                if place.startswith(old):
                    again = new + place[len(old) :]
                    self._there[again] = _bounded(again, (place, *current.origins))
        self._there[new] = _bounded(new, (old, *self._there.get(new, ()), *self._origins(old)))
        self._gone[old] = None

    def _origins(self, place: bytes) -> Iterator[bytes]:
        """Yield where Redis may have what is at a place, though not under that."""
        for above in (place, *places_above(place)):
            for origin in self._there.get(above, ()):
                yield origin + place[len(above) :]


def _bounded(place: bytes, origins: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return origins of what is at a place by now, each once, and not too many."""
    return tuple(each for each in dict.fromkeys(origins) if each != place)[:_ORIGINS_MAX]
