"""Which paths that users know lead through which links, and to what: plain values, no I/O.

A known path is what becomes a key. Where one of its components is a symbolic link, what it leads to
has a path of its own, the real one; and the kernel tells of real paths alone. So what happened to
real paths is translated here to what happened to the known paths that depend on them.

What is known of a path is what its last lookup has found on the way: a path that leads elsewhere by
now does so because a link, or a directory, on that way has changed, and of that the kernel tells.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sync.core.changes import (
    Appeared,
    Change,
    Changed,
    Created,
    Moved,
    PlaceChange,
    Renamed,
    Unfinished,
    Vanished,
)

_WAYS_MAX = 100_000  # paths with a link in the end, of each some 1 KB
PLACES_MAX = 10_000  # directories to which links lead: each more may have others in it
_NONE: frozenset[bytes] = frozenset()


class Way(NamedTuple):
    """What was found on the way from a known path that is a link.

    own       the real path of the link itself
    end       the real path of what it leads to, whether or not there is such a thing
    links     the real paths of other links that it leads through
    places    the real paths of directories on the way, as far as there are such
    is_place  whether it leads to a directory that is mirrored
    """

    own: bytes
    end: bytes
    links: tuple[bytes, ...] = ()
    places: tuple[bytes, ...] = ()
    is_place: bool = False


class Followed(NamedTuple):
    """What happened, of known paths; and those that are to be looked at together, and all below."""

    changes: list[Change]
    places: list[PlaceChange]
    together: dict[bytes, None]


def is_hidden(path: bytes) -> bool:
    """Say whether a component of a path begins with two dots: those are of whoever publishes."""
    return path.startswith(b"..") or b"/.." in path


class Routes:
    """The ways of all known paths that are links.

    Attributes:
        is_tree: whether directories below have known paths, too.
        overflowed: whether there were more than are remembered: what depends on a link is not all
            known then.

    """

    def __init__(self, *, is_tree: bool) -> None:
        """Know of none; without `is_tree`, only what is at the root has a known path."""
        self.is_tree = is_tree
        self._ways: dict[bytes, Way] = {}
        self._through: dict[bytes, set[bytes]] = {}  # by the real path of what is on the way
        self._ends: dict[bytes, set[bytes]] = {}  # by the real path of the end
        self._places: dict[bytes, set[bytes]] = {}  # known paths of directories, by the real ones
        self._places_count = 0
        self.overflowed = False

    @property
    def has_room(self) -> bool:
        """Say whether links may lead to more directories."""
        return self._places_count < PLACES_MAX and len(self._ways) < _WAYS_MAX

    def __contains__(self, known: object) -> bool:
        """Say whether the way of a path is known."""
        return known in self._ways

    def note(self, known: bytes, way: Way) -> None:
        """Take note of a path's way."""
        if self._ways.get(known) == way:
            return
        self.forget(known)
        if len(self._ways) >= _WAYS_MAX:
            self.overflowed = True
            return
        self._ways[known] = way
        for real in (way.own, *way.links, *way.places):
            self._through.setdefault(real, set()).add(known)
        self._ends.setdefault(way.end, set()).add(known)
        if way.is_place:
            self._places.setdefault(way.end, set()).add(known)
            self._places_count += 1

    def forget(self, known: bytes) -> None:
        """Take note that a path is no link's."""
        way = self._ways.pop(known, None)
        if way is None:
            return
        for real in (way.own, *way.links, *way.places):
            _discard(self._through, real, known)
        _discard(self._ends, way.end, known)
        if way.is_place:
            _discard(self._places, way.end, known)
            self._places_count -= 1

    def is_place(self, known: bytes) -> bool:
        """Say whether a path is that of a link to a directory."""
        return known in self._ways and self._ways[known].is_place

    def shared(self, known: bytes) -> set[bytes]:
        """Return the links that a path leads through and that others may lead through, too."""
        links: set[bytes] = set()
        for path in _upward(known):
            if way := self._ways.get(path):
                links.update(way.links)
                if path != known or way.is_place:
                    links.add(way.own)
        return links

    def dependents(self, link: bytes) -> set[bytes]:
        """Return the known paths that lead through a link."""
        return self._through.get(link, set())

    def follow(self, changes: Iterable[Change], places: Iterable[PlaceChange]) -> Followed:
        """Translate what happened to real paths."""
        followed = Followed([], [], {})
        for change in changes:
            if isinstance(change, Renamed):
                self._rename(change, followed)
            else:
                self._change(change, followed)
        for place_change in places:
            self._change_place(place_change, followed)
        return followed

    def _change(self, change: Created | Changed | Unfinished, followed: Followed) -> None:
        real = change.name
        if isinstance(change, Unfinished) or not self._gather(real, followed):
            for known in (*self._known(real).values(), *self._ends.get(real, _NONE)):
                followed.changes.append(_of_another(change, known))

    def _rename(self, change: Renamed, followed: Followed) -> None:
        old, new = change.old, change.new
        are_gathered = [self._gather(real, followed) for real in (old, new)]
        if any(are_gathered):
            for real, is_gathered in zip((old, new), are_gathered, strict=True):
                if not is_gathered:
                    self._change(Changed(real), followed)
            return
        before, after = self._known(old), self._known(new)
        for at in {**before, **after}:
            if at in before and at in after:
                followed.changes.append(Renamed(before[at], after[at]))
            else:
                followed.changes.append(Changed(before[at] if at in before else after[at]))
        for real in (old, new):
            followed.changes.extend(map(Changed, self._ends.get(real, _NONE)))

    def _gather(self, real: bytes, followed: Followed) -> bool:
        """Have looked at together what depends on a link; say no if that is its own path."""
        through = self._through.get(real, _NONE)
        if not through or all(self._is_alone(known, real) for known in through):
            return False
        followed.together.update(dict.fromkeys(sorted(through)))
        followed.together.update(dict.fromkeys(self._known(real).values()))
        return True

    def _is_alone(self, known: bytes, real: bytes) -> bool:
        way = self._ways[known]
        return way.own == real and not way.is_place

    def _change_place(self, change: PlaceChange, followed: Followed) -> None:
        ends = (change.old, change.new) if isinstance(change, Moved) else (change.place,)
        for place in ends:
            real = place[:-1]
            depending = {*self._through.get(real, _NONE), *self._ends.get(real, _NONE)}
            followed.together.update(dict.fromkeys(sorted(depending)))
            if not self.is_tree:
                followed.changes.extend(map(Changed, self._known(real).values()))
        if not self.is_tree:
            return
        if isinstance(change, Moved):
            before, after = self._known(change.old[:-1]), self._known(change.new[:-1])
            for at in {**before, **after}:
                if at in before and at in after:
                    followed.places.append(Moved(before[at] + b"/", after[at] + b"/"))
                elif at in before:
                    followed.places.append(Vanished(before[at] + b"/"))
                else:
                    followed.places.append(Appeared(after[at] + b"/"))
            return
        for known in self._known(change.place[:-1]).values():
            followed.places.append(type(change)(known + b"/"))

    def _known(self, real: bytes) -> dict[bytes, bytes]:
        """Return the known paths of what has a real path, by where the known part begins.

        That is the root, or a directory to which a link leads, as the link's path.
        """
        found = {} if is_hidden(real) else {b"": real}
        if not self.is_tree:
            return {} if b"/" in real else found
        if self._places:
            for place in _upward(real):
                rest = real[len(place) :]
                if rest and not is_hidden(rest[1:]):
                    for known in self._places.get(place, _NONE):
                        found[known] = known + rest
        return found


def _of_another(change: Created | Changed | Unfinished, name: bytes) -> Change:
    if isinstance(change, Created):
        return Created(name, change.is_written)
    return type(change)(name)


def _discard(sets: dict[bytes, set[bytes]], key: bytes, each: bytes) -> None:
    some = sets[key]
    some.discard(each)
    if not some:
        del sets[key]


def _upward(path: bytes) -> Iterator[bytes]:
    """Yield a path and the paths of the directories above, without the root's."""
    while path:
        yield path
        path = path[: max(path.rfind(b"/"), 0)]
