"""How a volume that is removed leaves its place.

Failure model. Its directory is moved aside, then the volume is forgotten, then the directory is
deleted: a removal that is cut off before the volume is forgotten is undone, since what is aside and
on record goes back.
"""

import logging

from mdvp.core.clock import Clock
from mdvp.core.volume import Volume
from mdvp.disk.entry import Found
from mdvp.disk.root import Aside, Root
from mdvp.disk.store import Store
from mdvp.places import Places

log = logging.getLogger(__name__)


class Remover:
    """Removes volumes. To be used by whoever holds the driver's lock."""

    def __init__(self, root: Root, store: Store, places: Places, now: Clock) -> None:
        """Take them out of `root` and `store`."""
        self._root = root
        self._store = store
        self._places = places
        self._now = now

    def remove(self, volume: Volume) -> None:
        """Remove a volume that nobody has; its directory is left to be deleted."""
        if volume.reader_of is not None:  # it is nothing but a record
            self._store.delete(volume.name)
            return
        aside = self._set_aside(volume)
        self._forget(volume, aside)
        self._root.let_go(volume.name)
        self._places.forget(volume.name)

    def _set_aside(self, volume: Volume) -> Aside | None:
        found = self._places.found(volume)
        if found is Found.OURS:
            aside = self._root.set_aside(volume.name, volume.identity)
            if aside is not None:
                return aside
            found = self._places.found(volume)
        log.warning(
            "volume %(volume)s: its directory is no longer at %(mountpoint)s%(_stays)s",
            {
                "event": "directory_gone",
                "volume": volume.name,
                "mountpoint": self._root.mountpoint(volume.name),
                "_stays": ", and what is there now stays" if found is Found.FOREIGN else "",
            },
        )
        return None

    def _forget(self, volume: Volume, aside: Aside | None) -> None:
        try:
            if aside is None:  # it may come back, with its record
                self._root.void_records(volume.identity, self._now().utc)
            self._store.delete(volume.name)
        except BaseException:
            if aside is not None:
                self._root.place(aside, volume.name)
            raise
