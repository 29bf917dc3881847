"""Brings to Redis together what links make depend on each other: in one transaction.

Failure model. A group that changes while it is read, or that a writer is at work on, is read again
a moment later, as a whole; writers are waited for as long as for those of single files. One that is
larger than what a transaction may have takes several, and so does one of which Redis refuses a
part.
"""

import time
from collections.abc import Iterable, Iterator

from sync.core.changes import PlaceChange, Vanished
from sync.disk.resolver import Link
from sync.redis.target import Target
from sync.service.groups import Groups
from sync.service.mirror import Mirror, Outcome

_PATIENCE = 0.5  # seconds that a group waits for those who write to its files
_MOMENT = 0.01  # seconds


class Together:
    """Brings the groups that wait."""

    def __init__(self, groups: Groups, target: Target, mirror: Mirror) -> None:
        """Bring what waits in `groups` by way of `mirror` to `target`."""
        self._directory = groups.directory
        self._routes = groups.directory.routes
        self._groups = groups
        self._target = target
        self._mirror = mirror
        self._since: float | None = None  # when what waits was not ready at first

    def bring(self) -> tuple[Outcome, list[PlaceChange]]:
        """Bring what waits; what was sent before has to be settled, by `flush`.

        Return what became of it, and what is to be looked into afterwards.
        """
        now, is_broken = time.monotonic(), False
        roots = self._groups.take()
        is_late = self._since is not None and now - self._since >= _PATIENCE
        with self._directory.moment() as moment:
            roots = self._with_dependents(roots, moment)
            names, gone = self._below(roots)

            def is_still() -> bool:
                nonlocal is_broken
                is_broken = self._groups.is_waiting or not self._directory.is_still(moment)
                return not is_broken

            outcome = self._mirror.bring_together([*roots, *names], is_still, overdue=is_late)
        if outcome is None:
            if is_broken or self._since is None:
                self._since = now
            self._groups.put_back(roots, now if is_broken else now + _MOMENT)
            return Outcome(), []
        self._since = None
        self._groups.hold(moment)
        self._groups.leave(outcome.free)
        outcome.is_doubtful |= self._routes.overflowed
        return outcome, [Vanished(place) for place in gone]

    def _with_dependents(
        self, roots: dict[bytes, None], moment: dict[bytes, Link]
    ) -> dict[bytes, None]:
        """Return paths and all others that depend on a link that Redis has nothing of yet."""
        roots, left, seen = dict(roots), list(roots), set[bytes]()
        while left:
            for path in left:
                self._directory.real(path)  # reads the links on the way
            changed = self._groups.changed(moment) - seen
            seen.update(changed)
            more = {path for link in changed for path in self._routes.dependents(link)}
            left = sorted(more - roots.keys())
            roots |= dict.fromkeys(left)
        return roots

    def _below(self, roots: Iterable[bytes]) -> tuple[dict[bytes, None], list[bytes]]:
        """Return all names below paths, on disk or in Redis, and places that Redis alone has."""
        names: dict[bytes, None] = {}
        gone: list[bytes] = []
        if not self._routes.is_tree:
            return names, gone
        places = [path + b"/" for path in roots]
        for place in places:
            if self._directory.has_place(place):
                for name, _, _ in self._directory.walk(place):
                    if not name.endswith(b"/"):
                        names[name] = None
        for name in _held_below(places, self._target):
            if not name.endswith(b"/"):
                names[name] = None
            elif not self._directory.has_place(name):
                gone.append(name)
        return names, gone


def _held_below(places: list[bytes], target: Target) -> Iterator[bytes]:
    """Yield the names that Redis has of places and of those below, and those places, as marks."""
    while places:
        lengths = target.records((), places).lengths
        there = [place for place, both in zip(places, lengths, strict=True) if any(both)]
        yield from there
        places = []
        for place in there:
            for page in (*target.manifest(place), *target.names(place)):
                yield from (name for name in page if not name.endswith(b"/"))
                places += [name for name in page if name.endswith(b"/")]
        places = list(dict.fromkeys(places))
