"""What has happened in the directory and is not followed yet."""

import time
from collections.abc import Container, Iterable, Iterator

from sync.core.changes import Moved, PlaceChange, Vanished
from sync.core.looks import Looks
from sync.core.plan import Pending
from sync.disk.files import Directory, now
from sync.disk.watch import Watch
from sync.service.groups import Groups

_PATIENCE = 0.5  # seconds that a file may stay open before it is mirrored all the same
_RETRY = 0.1  # seconds before another look at a file that could not be read


class News:
    """The events of one watch, from the kernel's queue to the plan.

    Attributes:
        pending: the changes that wait for their turn.
        looks: the directories that wait for theirs.
        arrived: when the first of them came that was not taken yet (s); None when there is none.
        drained: until when what had happened was known then, by `files.now`.
        is_new: whether something has come since this was unset.
        groups: what is to be followed together; None where links are not followed.

    """

    groups: Groups | None = None

    def __init__(self, watch: Watch, groups: Groups | None = None) -> None:
        """Take up what `watch` tells, of known paths if there are others, by way of `groups`."""
        self._watch = watch
        self.groups = groups
        self.pending = Pending(_PATIENCE, _RETRY)
        self.looks = Looks()
        self.arrived: float | None = None
        self.drained = 0
        self.is_new = False

    def drain(self) -> None:
        """Take up what has happened; the kernel's queue of events must not fill up."""
        self.drained = now()
        had_lost, self._watch.lost = self._watch.lost, False
        changes, places = self._watch.read(), self._watch.read_places()
        if self.groups and (changes or places):
            changes, places = self.groups.translate(changes, places)
        at = time.monotonic()
        if self._watch.lost:
            self.pending.postpone(at)
        self._watch.lost |= had_lost
        if changes:
            self.pending.add(changes, at)
            self.arrived = self.arrived or at
            self.is_new = True
        if places:
            self.looks.add(places)
            self.pending.renew(tuple(_left(places)), at)
            self.is_new = True
        if self.pending.overflowed:
            # More than is remembered: as if the kernel had dropped it.
            self.pending.overflowed = False
            self._watch.lost = True

    def enter(self, place: bytes) -> bool:
        """Have what happens in a directory told from now on; say whether there is one.

        Raises OSError when it cannot be looked into, or must not be.
        """
        if not self.groups:
            return self._watch.enter(place)
        real = self.groups.enter(place)
        return real is not None and self._watch.enter(real)

    def listed(self, place: bytes, below: Iterable[bytes]) -> None:
        """Take up which directories were found in one that was listed."""
        self._watch.listed(place, below)

    def tells_of(self, name: bytes) -> bool:
        """Say whether what happens to a file is told."""
        if not self.groups:
            return self._watch.is_watched(name)
        real = self.groups.real(name)
        return real is not None and self._watch.is_watched(real)

    def has(self, name: bytes) -> bool:
        """Say whether a name waits for its turn."""
        return name in self.pending

    def of(self, names: Iterable[bytes], *, overdue: Container[bytes] = ()) -> set[bytes]:
        """Return those of some names under which something has happened by now.

        Of those that are `overdue`, writes are known to happen.
        """
        self.drain()
        pending = self.pending
        if pending.is_quiet:
            return set()
        return {
            name
            for name in names
            if pending.has_news(name) and (name not in overdue or pending.has_another(name))
        }

    def is_heard_of(self, names: Iterable[bytes]) -> bool:
        """Say whether something had happened under one of some names when `of` was last asked.

        That a name is new, or that nobody knows who has its file open, is nothing.
        """
        return any(map(self.pending.is_heard, names))

    def has_writer(self, name: bytes, others: Iterable[bytes]) -> bool:
        """Say whether somebody is writing to a file by now, and has not closed it.

        So it seems of one who is waited for under the name, and is of one who was heard of under
        one of its `others`.
        """
        self.drain()
        pending = self.pending
        return pending.is_unfinished(name) or any(
            pending.is_unfinished(each) and pending.is_heard(each) for each in others
        )


def _left(places: Iterable[PlaceChange]) -> Iterator[bytes]:
    """Yield the places that directories have left."""
    for change in places:
        if isinstance(change, Moved):
            yield change.old
        elif isinstance(change, Vanished):
            yield change.place


class NoNews(News):
    """For whoever has no watch."""

    def __init__(self, directory: Directory) -> None:
        """Know of nothing in `directory`, and of nothing new."""
        self.is_new = False
        self._directory = directory

    def enter(self, place: bytes) -> bool:
        """Say whether there is a directory."""
        try:
            self._directory.open_at(place)
        except FileNotFoundError:
            return False
        return True

    def listed(self, place: bytes, below: Iterable[bytes]) -> None:
        """Do nothing: no directory is watched."""

    def tells_of(self, name: bytes) -> bool:  # noqa: ARG002  # as above
        """Say yes: nothing depends on it."""
        return True

    def has(self, name: bytes) -> bool:  # noqa: ARG002  # as above
        """Say no."""
        return False

    def of(  # as above
        self,
        names: Iterable[bytes],  # noqa: ARG002
        *,
        overdue: Container[bytes] = (),  # noqa: ARG002
    ) -> set[bytes]:
        """Return no name."""
        return set()

    def is_heard_of(self, names: Iterable[bytes]) -> bool:  # noqa: ARG002  # as above
        """Say no."""
        return False

    def has_writer(self, name: bytes, others: Iterable[bytes]) -> bool:  # noqa: ARG002  # as above
        """Say no."""
        return False
