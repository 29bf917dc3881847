"""What links make depend on each other, and which of them Redis holds.

When a link changes through which several paths lead, all of these have other content at once, and
no reader of Redis is to see some of it beside some from before. So they form a group, which is
brought together (`together`). What is found under such a path at any other time, since its file was
written to, say, is sent by itself, but only as long as the links are those of which Redis holds
what they lead to; otherwise its group goes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from sync.core.changes import (
    Change,
    Changed,
    Created,
    PlaceChange,
    Renamed,
    Unfinished,
    places_above,
)
from sync.disk.linked import LinkedDirectory
from sync.disk.resolver import Link

_LINKS_MAX = 50_000  # remembered, some 20 MB


class Groups:
    """The paths that wait to be brought together, and the links of those that Redis holds.

    Attributes:
        directory: the one in which links are followed.
        due: when they are to be brought (s); None when there are none.

    """

    def __init__(self, directory: LinkedDirectory) -> None:
        """Have none wait; of `directory` nothing is in Redis as far as is known."""
        self.directory = directory
        self._routes = directory.routes
        self._waiting: dict[bytes, None] = {}  # known paths, each with all below
        self._held: dict[bytes, Link] = {}  # by real path
        self._rest: set[bytes] = set()  # names that were too many to be brought together
        self.due: float | None = None

    def add(self, paths: Iterable[bytes]) -> None:
        """Have paths, and what is below, brought together."""
        before = len(self._waiting)
        self._waiting.update(dict.fromkeys(paths))
        if len(self._waiting) > before:
            self.due = time.monotonic()

    def translate(
        self, changes: Iterable[Change], places: Iterable[PlaceChange]
    ) -> tuple[list[Change], list[PlaceChange]]:
        """Return what happened to known paths, given what happened to real ones.

        What is to be looked at together is added here.
        """
        followed = self._routes.follow(map(self._settled, changes), places)
        self.add(followed.together)
        if self._routes.is_tree:
            self.add(filter(self.directory.leads_to_place, _new_names(followed.changes)))
        return followed.changes, followed.places

    def _settled(self, change: Change) -> Change:
        """Return a change; that of a link is not to wait for a close, since it has no writer."""
        if isinstance(change, Created) and self.directory.link_at(change.name):
            return Changed(change.name)
        return change

    def left_to_it(self, names: Iterable[bytes]) -> set[bytes]:
        """Return those of some names that a group will bring, and must not go by themselves."""
        left: set[bytes] = set()
        current: dict[bytes, bool] = {}
        for name in names:
            links = self._routes.shared(name)
            for link in links - current.keys():
                current[link] = self.directory.link_at(link) == self._held.get(link)
            if not all(current[link] for link in links):
                self.add([name])
                left.add(name)
            elif self._covers(name):
                left.add(name)
        return left

    def _covers(self, name: bytes) -> bool:
        if not self._waiting:
            return False
        return name in self._waiting or any(
            place[:-1] in self._waiting for place in places_above(name)
        )

    def take(self) -> dict[bytes, None]:
        """Return the paths that wait, each with all below, and forget them."""
        taken, self._waiting, self.due = self._waiting, {}, None
        return taken

    def put_back(self, paths: Mapping[bytes, None], due: float) -> None:
        """Have paths wait until a time after all."""
        self._waiting = {**paths, **self._waiting}
        self.due = due

    def leave(self, names: Iterable[bytes]) -> None:
        """Take note of names that were too many to be brought together: they are by themselves."""
        self._rest.update(names)

    def has_rest(self, is_pending: Callable[[bytes], bool]) -> bool:
        """Say whether some of those are still pending."""
        self._rest = set(filter(is_pending, self._rest))
        return bool(self._rest)

    @property
    def is_waiting(self) -> bool:
        """Say whether there is a path that waits."""
        return bool(self._waiting)

    def hold(self, links: Mapping[bytes, Link]) -> None:
        """Take note that Redis has all that leads through links as they were."""
        if len(self._held) + len(links) > _LINKS_MAX:
            self._held.clear()
        self._held.update(links)

    def forget(self, names: Iterable[bytes]) -> None:
        """Take note that Redis has nothing under names, at least those that are not there."""
        for name in names:
            if not self.directory.is_there(name):
                self._routes.forget(name)

    def changed(self, links: Mapping[bytes, Link]) -> set[bytes]:
        """Return those of some links of which it is not known that Redis has what they lead to."""
        return {real for real, link in links.items() if self._held.get(real) != link}

    def real(self, name: bytes) -> bytes | None:
        """Return the real path of a file, None if nobody knows."""
        return self.directory.real(name)

    def enter(self, place: bytes) -> bytes | None:
        """Return the real place of a known one, None if there is none; raises OSError."""
        try:
            return self.directory.real_place(place)
        except FileNotFoundError:
            return None


def _new_names(changes: Iterable[Change]) -> Iterator[bytes]:
    for change in changes:
        if isinstance(change, Renamed):
            yield change.new
        elif not isinstance(change, Unfinished):
            yield change.name
