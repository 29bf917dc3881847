"""All volumes at once: what is shown to whoever looks after them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from mdvp.core.figures import Figures
from mdvp.core.lease import Claims
from mdvp.core.volume import Volume
from mdvp.custody import Kernel, Look, doubled
from mdvp.disk.root import Root
from mdvp.disk.store import Store
from mdvp.disk.trash import Entry
from mdvp.driver import Driver

_PAGE = 50  # volumes that are read at a time when all are counted


@dataclass(frozen=True, slots=True)
class Listed:
    """A volume as it is listed: the record, the path of its directory, and who has it.

    `claims` is None when nobody has it; `waiting` is how many wait for their turn; `filling` is how
    far it is with getting the content of another, None if it is not at that.
    """

    volume: Volume
    mountpoint: str
    claims: Claims | None
    waiting: int = 0
    filling: str | None = None


class Overview:
    """What there is. Thread-safe: it takes the driver's lock for some volumes at a time."""

    def __init__(self, root: Root, store: Store, kernel: Kernel, driver: Driver) -> None:
        """Show the volumes in `store`, and what their `driver` knows of who has or waits for each.

        And what is in its trash.
        """
        self._root = root
        self._store = store
        self._kernel = kernel
        self._custody = driver.custody
        self._trash = driver.trash
        self._turns = driver.turns
        self._filler = driver.filler
        self._lock = driver.custody.lock

    def figures(self) -> Figures:
        """Count all volumes, by one look at the host.

        Each is counted as it is at one instant; others wait for one of them, not for all. Not seen
        is who has a volume without a lease whose directory somebody has moved away.
        """
        look = self._kernel.look()
        shown = look.shown_in(self._kernel.path("")) if look else frozenset()
        figures = Figures(host_visible=look is not None, removed=self._root.removed())
        for volume, used in self._pages():
            if used or look is None or os.fsencode(volume.reader_of or volume.name) in shown:
                self._count(volume.name, look, figures)
            else:
                figures.count(volume, None, doubled=False, warned=self._has_warning(volume))
        figures.reclaimed = self._custody.reclaimed
        with self._lock:
            figures.restorable = self._trash.restorable()
            figures.mounts_waiting = self._turns.total
        return figures

    def volumes(self) -> Iterator[Listed]:
        """Yield all volumes, by name, by one look at the host, as `figures` counts them."""
        look = self._kernel.look()
        shown = look.shown_in(self._kernel.path("")) if look else frozenset()
        for volume, used in self._pages():
            seen = os.fsencode(volume.reader_of or volume.name) in shown
            if used or look is None or seen or volume.is_being_filled:
                if (listed := self._listed(volume.name, look)) is not None:
                    yield listed
            else:
                yield Listed(volume, self._root.shown_at(volume), None)

    def removed(self) -> list[Entry]:
        """Return the removed volumes whose content is kept, by name, the last removed first."""
        with self._lock:
            return self._trash.entries()

    def _listed(self, name: str, look: Look | None) -> Listed | None:
        with self._lock:
            volume = self._store.volume(name)
            if volume is None:  # by now
                return None
            claims = self._custody.glance(volume, look)
            waiting, filling = self._turns.waiting(name), self._filler.state(volume)
        return Listed(volume, self._root.shown_at(volume), claims, waiting, filling)

    def _pages(self) -> Iterator[tuple[Volume, bool]]:
        """Yield all volumes, and whether each has leases or holders on record."""
        after = ""
        while True:
            with self._lock:
                page = self._store.page(after, _PAGE)
            if not page:
                return
            yield from page
            after = page[-1][0].name

    def _has_warning(self, volume: Volume) -> bool:
        if volume.reader_of is not None:  # of its directory, its own volume tells
            with self._lock:
                return self._store.volume(volume.reader_of) is None
        if self._root.warning(volume) is None and self._root.why_unlimited(volume.name) is None:
            return False
        with self._lock:  # or the warning may be that it has just been removed
            return self._store.volume(volume.name) == volume

    def _count(self, name: str, look: Look | None, figures: Figures) -> None:
        with self._lock:
            volume = self._store.volume(name)
            if volume is None:  # by now
                return
            claims = self._custody.glance(volume, look)
            figures.count(
                volume,
                claims,
                doubled=bool(doubled(volume, claims.holders)),
                warned=bool(self._custody.warnings(volume, claims)),
            )
