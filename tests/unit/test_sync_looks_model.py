"""The looks into directories alone, against a tree in which directories come, move and go.

A look is taken, goes on for a while, and ends; meanwhile more happens. However that is cut: a
directory that has come, or moved, is looked into after that, and a place that one has left is
looked through, when no directory waits that may have come from there.
"""

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, product
from typing import TypeAlias
from unittest import mock

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import IS_CHECK

from sync.core import looks
from sync.core.changes import Appeared, Moved, PlaceChange, Vanished, place_of
from sync.core.looks import Look, Looks

EXAMPLES = 2 * int(os.environ.get("MDVP_TEST_EXAMPLES", "500"))
ALL = 99


@dataclass(eq=False)
class Dir:
    """A directory, and since when it waits to be looked into; None when it does not."""

    place: bytes
    since: int | None


@dataclass
class Model:
    """Directories, the looks into them, and what these leave undone.

    `gone` has the places that wait to be looked through.
    """

    looks: Looks = field(default_factory=Looks)
    dirs: list[Dir] = field(default_factory=list)
    gone: set[bytes] = field(default_factory=set)
    begun: tuple[Look, int] | None = None
    _times: Iterator[int] = field(default_factory=count)

    # What happens.

    def make(self, place: bytes) -> None:
        if self._is_free(place):
            self.dirs.append(Dir(place, next(self._times)))
            self._tell(Appeared(place))

    def remove(self, place: bytes) -> None:
        """Remove a directory with all that is below, or move it out."""
        if below := self._below(place):
            for each in below:
                self.dirs.remove(each)
            self.gone.add(place)
            self._tell(Vanished(place))

    def move(self, old: bytes, new: bytes) -> None:
        below = self._below(old)
        if below and not new.startswith(old) and self._is_free(new):
            self._put(below, old, new)
            self._tell(Moved(old, new))

    def exchange(self, one: bytes, other: bytes) -> None:
        first, second = self._below(one), self._below(other)
        if first and second and not one.startswith(other) and not other.startswith(one):
            self._put(first, one, other)
            self._put(second, other, one)
            self._tell(Moved(one, other), Moved(other, one))

    # What the service does.

    def begin(self) -> None:
        if not self.begun and (look := self.looks.take()):
            self.begun = look, next(self._times)

    def end(self) -> None:
        """Come to the end of the look that was begun, if it is still of use."""
        if not self.begun:
            return
        (look, began), self.begun = self.begun, None
        if self.looks.current is look:
            self.looks.current = None
            for each in self.dirs:
                is_in = each.place.startswith(look.places)
                if is_in and each.since is not None and each.since < began:
                    each.since = None

    def look(self) -> None:
        self.begin()
        self.end()

    def look_through(self, limit: int) -> None:
        """Look through places that directories have left, when no other look is begun."""
        if self.begun or self.looks.current:
            return
        taken = self.looks.take_gone(limit)
        assert len(taken) <= limit
        if taken:
            others = copy.deepcopy(self.looks)
            while look := others.take():
                assert not look.origins, "there is one that has moved to look into before"
            self.gone -= {each for each in self.gone if each.startswith(tuple(taken))}

    def catch_up(self) -> None:
        for _ in range(ALL):
            if not (self.looks or self.begun):
                return
            self.end()
            self.look()
            self.look_through(ALL)
        raise AssertionError("there is no end of what is to be looked into")

    def _put(self, dirs: list[Dir], old: bytes, new: bytes) -> None:
        for each in dirs:
            each.place, each.since = new + each.place[len(old) :], next(self._times)
        self.gone.add(old)

    def _tell(self, *changes: PlaceChange) -> None:
        self.looks.add(changes)

    def _below(self, place: bytes) -> list[Dir]:
        return [each for each in self.dirs if each.place.startswith(place)]

    def _is_free(self, place: bytes) -> bool:
        above = place_of(place)
        return not self._below(place) and (not above or bool(self._below(above)))


PLACES = [b"d/", b"e/", b"d/d/", b"d/e/", b"e/d/", b"d/e/d/"]
Step: TypeAlias = tuple[Callable[..., None], tuple[object, ...]]
TWO = list(product(PLACES, PLACES))
# As many of one kind as of another.
KINDS: list[list[Step]] = [
    [(Model.make, (place,)) for place in PLACES],
    [(Model.remove, (place,)) for place in PLACES],
    [(Model.move, places) for places in TWO],
    [(Model.move, places) for places in TWO],
    [(Model.exchange, places) for places in TWO],
    [(Model.begin, ()), (Model.end, ()), (Model.look, ())],
    [(Model.look_through, (limit,)) for limit in (1, 2, ALL)],
]


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_CHECK)
@given(
    st.integers(0, len(PLACES)),
    st.lists(st.one_of(*map(st.sampled_from, KINDS)), max_size=20),
)
# One that is being looked into moves, and so does one that it is in.
@example(3, [(Model.make, (b"e/d/",)), (Model.begin, ()), (Model.move, (b"e/d/", b"d/d/"))])
@example(3, [(Model.move, (b"d/d/", b"e/d/")), (Model.begin, ()), (Model.exchange, (b"e/", b"d/"))])
def test_what_comes_or_moves_is_looked_into_and_what_it_leaves_looked_through(
    directories: int, script: list[Step]
) -> None:
    with mock.patch.object(looks, "_TOGETHER", 2):
        model = Model()
        for place in PLACES[:directories]:
            model.make(place)
        model.catch_up()
        for method, arguments in script:
            method(model, *arguments)
        model.catch_up()
    assert [each.place for each in model.dirs if each.since is not None] == []
    assert model.gone == set()
